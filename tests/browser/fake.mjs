// A server that behaves as airrun's does towards the page, with answers that a model cannot be made to give: hostile ones, slow
// ones, broken ones. What it answers is chosen by the last question. The page's files come from src/serve/page, under the
// policy that src/serve/page.rs holds.

import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../src/serve/", import.meta.url));
const KINDS = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

const RUST = readFileSync(`${ROOT}page.rs`, "utf8");
const POLICY = /const POLICY: &str = "([^"]*)"/.exec(RUST)[1].replace(/\\\n\s*/g, "");

const pause = (time) => new Promise((resume) => { setTimeout(resume, time); });

const N_BLOCKS = 40;
const PLAN = {
  n_ctx: 4096, n_slots: 2, slot_bytes: 218_000_000,
  blocks: Array.from({ length: N_BLOCKS }, (_, i) => ({ name: `block ${i}`, tier: i % 5 === 0 ? "resident" : "streamed", bytes: 2.1e8 })),
};
PLAN.units = PLAN.blocks.flatMap((b, block) => b.tier === "streamed" ? [{ name: b.name, block, bytes: b.bytes }] : []);

/** The same model beside a GPU: some blocks in its memory, some in RAM, some on disk. */
const GPU_PLAN = { ...PLAN, gpu: true, blocks: PLAN.blocks.map((b, i) => ({ ...b, tier: i % 5 === 0 ? "resident" : i < 30 ? "host" : "streamed" })) };

/** The same model with a little more memory: of some blocks, parts stream. */
const PARTS_PLAN = { ...PLAN, blocks: PLAN.blocks.map((b, i) => i % 5 === 1 ? { ...b, partly: true, streamed_bytes: b.bytes / 3 } : b) };

const CODE = "Here is a function:\n\n```rust\nfn main() {\n    println!(\"a line that is much longer than any telephone is wide, so that it has to scroll sideways inside its own frame\");\n}\n```\n\nand `inline` code.";

/** What is answered to each question, in pieces; a function writes to the connection itself. */
export const ANSWERS = {
  hostile: [
    "Look: <img src=x onerror=\"window.hacked=1\"> and <script>window.hacked=2</script>\n\n<svg onload=\"window.hacked=3\"></svg>\n\n",
    "[run](javascript:window.hacked=4) [data](data:text/html,<script>parent.hacked=5</script>) ![pic](x\" onerror=\"window.hacked=6) ",
    "[fine](https://example.com/a?b=c&d) <a href=\"javascript:window.hacked=7\">x</a>\n\n<iframe src=\"javascript:window.hacked=8\"></iframe>\n\n",
    "| a<b | <img src=x onerror=window.hacked=9> |\n|---|---|\n| `<b>` | **bold** |\n\n```\"><script>window.hacked=10</script>\n</code></pre><img src=x onerror=window.hacked=11>\n```\n\nThe end.",
  ],
  markdown: ["# Title\n\nA *small* **text** with ~~marks~~, `code` &amp; a [link](https://example.com).\n\n", "1. one\n2. two\n   - inner\n\n- [x] done\n- [ ] open\n\n> quoted\n\n| name | size |\n|:-----|-----:|\n| a | 1 |\n| b | 20 |\n\n---\n\nline one<br>line two\n\n", CODE],
  code: [CODE],
  hello: ["Hel", "lo ", "there", "."],
  deep: [`${"> ".repeat(400)}deep\n\n${"- ".repeat(400)}list`],
  think: ["<think>\nLet me ", "see.\n</think>\n\n", "Forty-two."],
};

function events(response) {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
}

const send = (response, value) => response.write(`data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`);
const delta = (content) => ({ choices: [{ index: 0, delta: { content }, finish_reason: null }] });

function refuse(response, status, message) {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ error: { message, type: "error", code: null } }));
}

/** Starts the server on a free port; `state` can be changed while it runs. */
export async function start(state = {}) {
  Object.assign(state, { key: "", running: 0, requests: [], run: 0, passes: 0, read: 0, aborted: 0, fails: 0, ...state });

  function now() {
    const busy = state.running > 0;
    if (busy) { state.run = (state.run + 1) % N_BLOCKS; state.read += 2.1e8; if (state.run === 0) state.passes++; }
    const units = PLAN.units.map(({ block }) => {
      const ahead = block - state.run;
      return !busy ? "idle" : ahead === 0 ? "computing" : ahead === 1 ? "ready" : ahead === 2 ? "reading" : "idle";
    });
    return {
      units, run: state.run, n_runs: N_BLOCKS, passes: state.passes, streamed_bytes: state.read, stall_seconds: 1.25,
      bytes_per_second: busy ? 2.1e9 + 2e8 * Math.sin(state.run) : 0, tokens_per_second: busy ? 3.4 : 0, running: state.running, waiting: 0,
    };
  }

  async function talk(request, response, body) {
    const question = body.messages.at(-1).content;
    state.requests.push(body);
    if (question === "error" && state.fails-- > 0) return refuse(response, 500, "The disk went away.");
    if (question === "too long") return refuse(response, 400, "This prompt has 5000 tokens, and the context holds 4096.");
    state.running++;
    let gone = false;
    response.on("close", () => { if (!response.writableEnded) { gone = true; state.aborted++; } });
    try {
      events(response);
      await pause(question === "slow" ? 2500 : 120);
      const pieces = question === "endless" || question === "slow" ? Array.from({ length: 400 }, (_, i) => `word ${i} `) : ANSWERS[question] ?? ["I heard: ", question];
      for (const piece of pieces) {
        if (gone) return;
        send(response, delta(piece));
        await pause(25);
      }
      if (question === "cut off") return response.destroy();
      if (question === "error later") return send(response, { error: { message: "The file changed while it was read." } }), response.end();
      send(response, { choices: [{ index: 0, delta: {}, finish_reason: "stop" }] });
      send(response, { choices: [], usage: { prompt_tokens: 9, completion_tokens: pieces.length } });
      send(response, "[DONE]");
      response.end();
    } finally {
      state.running--;
    }
  }

  async function live(response) {
    events(response);
    let open = true;
    response.on("close", () => { open = false; });
    while (open) { send(response, now()); await pause(100); }
  }

  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/" || pathname.startsWith("/assets/")) {
      const name = pathname === "/" ? "index.html" : pathname.slice("/assets/".length);
      try {
        const bytes = readFileSync(`${ROOT}page/${name}`);
        response.writeHead(200, { "Content-Type": KINDS[extname(name)], "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff" });
        response.end(bytes);
      } catch { refuse(response, 404, `there is no ${pathname}`); }
      return;
    }
    if (state.key && request.headers.authorization !== `Bearer ${state.key}`) return refuse(response, 401, "This server asks for a key.");
    if (pathname === "/api/airrun/status") {
      if (state.loading) return refuse(response, 503, "the model is being loaded");
      response.writeHead(200, { "Content-Type": "application/json" });
      return response.end(JSON.stringify({ model: "fake-70b", title: "Fake 70B Instruct", architecture: "fake", quantisation: "Q4_K_M", bytes: 4.2e10, plan: state.gpu ? GPU_PLAN : state.parts ? PARTS_PLAN : PLAN, now: now() }));
    }
    if (pathname === "/api/airrun/events") return live(response);
    if (pathname === "/v1/chat/completions") {
      let text = "";
      for await (const piece of request) text += piece;
      return talk(request, response, JSON.parse(text));
    }
    refuse(response, 404, `there is no ${pathname}`);
  });
  await new Promise((resume) => { server.listen(state.port ?? 0, "127.0.0.1", resume); });
  const url = `http://127.0.0.1:${server.address().port}/`;
  return { url, state, stop: () => { server.closeAllConnections(); server.close(); } };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { url } = await start({ port: Number(process.argv[2] ?? 0) });
  console.log(url);
}
