// npm's `openai` in Chromium, from a page of another origin: what it finds is left in the page's text.
//
//   node browser.mjs http://127.0.0.1:11435 KEY

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';

const [url, key] = process.argv.slice(2);
const NAMES = [process.env.AIRRUN_BROWSER, 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];

const PAGE = `
import OpenAI from 'openai';
const client = new OpenAI({ baseURL: '${url}/v1', apiKey: '${key}', maxRetries: 0, dangerouslyAllowBrowser: true });
const messages = [{ role: 'user', content: 'Hi' }];
const found = [];
try {
  const model = (await client.models.list()).data[0].id;
  found.push((await client.chat.completions.create({ model, messages })).choices[0].message.content);
  let text = '';
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? '';
  }
  found.push(text, (await client.responses.create({ model, input: 'Hi' })).output_text);
} catch (error) {
  found.push(String(error));
}
globalThis.found = found;
`;

function browser() {
  for (const name of NAMES.filter(Boolean)) {
    try {
      return execFileSync('which', [name], { encoding: 'utf8' }).trim();
    } catch {
      // The next one.
    }
  }
  return undefined;
}

const executablePath = browser();
if (!executablePath) {
  console.error("skipped: npm's openai in a browser (no Chromium)");
  process.exit(process.env.AIRRUN_TEST_NO_SKIP === '1' ? 1 : 0);
}
const bundled = await build({
  stdin: { contents: PAGE, resolveDir: import.meta.dirname }, bundle: true, format: 'esm', target: 'es2022', write: false,
});
const pages = createServer((request, response) => {
  const script = request.url === '/client.js';
  response.setHeader('Content-Type', script ? 'text/javascript' : 'text/html');
  response.end(script ? bundled.outputFiles[0].text : '<!doctype html><script type="module" src="client.js"></script>');
});
await new Promise((done) => pages.listen(0, '127.0.0.1', done));
const chrome = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
try {
  const page = await chrome.newPage();
  await page.goto(`http://127.0.0.1:${pages.address().port}/`);
  await page.waitForFunction('globalThis.found');
  assert.deepEqual(await page.evaluate('globalThis.found'), Array(3).fill('Hello there, you who ask.'));
} finally {
  await chrome.close();
}
console.log("npm's openai works in a browser");
process.exit(0);
