// npm's `openai` and `ai` with its providers for OpenAI, compatible servers and Anthropic, against a server whose model is the parrot.
//
//   node npm_clients.mjs http://127.0.0.1:11435 KEY

globalThis.AI_SDK_LOG_WARNINGS = false;
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from 'ai';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { z } from 'zod';

const [url, apiKey] = process.argv.slice(2);
const HELLO = 'Hello there, you who ask.';
const TOLD = 'The tool has told me: all is well.';
const Person = z.object({ name: z.string(), age: z.number().int() });

async function openai() {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
  const messages = [{ role: 'user', content: 'Hi' }];
  const model = (await client.models.list()).data[0].id;
  assert.equal((await client.chat.completions.create({ model, messages })).choices[0].message.content, HELLO);
  let text = '';
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? '';
  }
  assert.equal(text, HELLO);
  const parsed = await client.chat.completions.parse({
    model, messages: [{ role: 'user', content: 'Which person?' }], response_format: zodResponseFormat(Person, 'person'),
  });
  assert.equal(parsed.choices[0].message.parsed.name, 'Grace');
  const asked = [];
  const runner = client.chat.completions.runTools({
    model, messages,
    tools: [{ type: 'function', function: {
      name: 'weather', function: (args) => { asked.push(args.city); return 'Rain'; }, parse: JSON.parse,
      parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    } }],
  });
  assert.equal(await runner.finalContent(), TOLD);
  assert.deepEqual(asked, ['Oslo']);
  const response = await client.responses.create({ model, input: 'Hi' });
  assert.equal(response.output_text, HELLO);
  const kinds = [];
  for await (const event of await client.responses.create({ model, input: 'Hi', stream: true })) kinds.push(event.type);
  assert.equal(kinds.at(-1), 'response.completed');
  const formats = z.object({
    a: z.email(), b: z.iso.datetime(), c: z.iso.time(), d: z.iso.duration(), e: z.ipv6(), f: z.uuid(), g: z.iso.date(),
  });
  await client.chat.completions.create({
    model, messages, max_tokens: 60, response_format: zodResponseFormat(formats, 'formats'),
  });
}

async function sdk(name, model) {
  const { text } = await generateText({ model, prompt: 'Hi', maxRetries: 0 });
  assert.equal(text, HELLO, name);
  let streamed = '';
  for await (const part of streamText({ model, prompt: 'Hi', maxRetries: 0 }).textStream) streamed += part;
  assert.equal(streamed, HELLO, name);
  const { object } = await generateObject({ model, prompt: 'Which person?', schema: Person, maxRetries: 0 });
  assert.ok(['Ada', 'Grace'].includes(object.name), name);
  const asked = [];
  const tools = {
    weather: tool({
      description: 'd', inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => { asked.push(city); return 'Rain'; },
    }),
  };
  const steps = await generateText({ model, prompt: 'Hi', tools, stopWhen: stepCountIs(3), maxRetries: 0 });
  assert.equal(steps.text, TOLD, name);
  let last = '';
  const running = streamText({ model, prompt: 'Hi', tools, stopWhen: stepCountIs(3), maxRetries: 0 });
  for await (const part of running.textStream) last += part;
  assert.equal(last, TOLD, name);
  assert.deepEqual(asked, ['Oslo', 'Oslo'], name);
}

await openai();
const theirs = createOpenAI({ baseURL: `${url}/v1`, apiKey });
await sdk('@ai-sdk/openai, Responses', theirs('parrot'));
await sdk('@ai-sdk/openai, chat', theirs.chat('parrot'));
const compatible = createOpenAICompatible({ name: 'airrun', baseURL: `${url}/v1`, apiKey, supportsStructuredOutputs: true });
await sdk('@ai-sdk/openai-compatible', compatible('parrot'));
const { embeddings } = await embedMany({ model: compatible.textEmbeddingModel('parrot'), values: ['one', 'two'] });
assert.equal(embeddings.length, 2);
await sdk('@ai-sdk/anthropic', createAnthropic({ baseURL: `${url}/v1`, apiKey })('parrot'));
console.log("npm's openai and ai work");
process.exit(0);
