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

/** A model of 80 blocks, each in four parts. */
const DEEP_BLOCKS = Array.from({ length: 80 }, (_, i) => ({ name: `block ${i}`, tier: "streamed", partly: i % 9 === 0, bytes: 2.1e8, streamed_bytes: 2e8 }));
const DEEP_PLAN = {
  ...PLAN, blocks: DEEP_BLOCKS,
  units: DEEP_BLOCKS.flatMap((_, block) => ["attn_output", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"].map((part) => ({ name: `block ${block} (${part}.weight)`, block, bytes: 5e7 }))),
};

/** A mixture of 60 blocks of 512 experts, of which a token uses 10. */
const MIXTURE_BLOCKS = Array.from({ length: 60 }, (_, i) => ({ name: `block ${i}`, tier: "streamed", bytes: 1.2e9, streamed_bytes: 1.1e9 }));
const MIXTURE_PLAN = {
  ...PLAN, blocks: MIXTURE_BLOCKS, units: MIXTURE_BLOCKS.map(({ name }, block) => ({ name: `${name} (experts)`, block, bytes: 1.1e9 })),
  experts: { used: 10, kept_of_each_block: 96, bytes: 1.2e10 },
};

/** What each block's experts do: of every 16, three are there, one is used most, and one is being read; `turn` moves them on. */
const experts = (turn) => MIXTURE_BLOCKS.map(({ name }, block) => ({
  name, uses: 1000, misses: 170 + block, bytes: 1e9,
  experts: Array.from({ length: 512 }, (_, e) => ({ 0: "9", 3: "0", 5: "4", 7: turn ? "1" : ".", 11: "+" })[(e + block) % 16] ?? ".").join(""),
}));

const MATHS = "Inline \\(E=mc^2\\), priced $5 or $10, and $a_1 \\le b$.\n\n\\[\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt\\pi}{2}\\]\n\n$$\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}$$\n\nBroken: \\(\\frac{1\\) and open: \\(x.";

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
  maths: [MATHS.slice(0, 30), MATHS.slice(30, 31), MATHS.slice(31)],
  hello: ["Hel", "lo ", "there", "."],
  deep: [`${"> ".repeat(400)}deep\n\n${"- ".repeat(400)}list`],
  story: Array.from({ length: 40 }, (_, i) => `part ${i}, `),
  short: ["It ends here "],
  hesitate: ["One ", "two ", "three."],
  reason: ["Let me ", "see: six ", "times seven.", "Forty-two."],
  think: ["<think>\nLet me ", "see.\n</think>\n\n", "Forty-two."],
};

function events(response) {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
}

const send = (response, value) => response.write(`data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`);

/** A kept stream: what it has said, and who listens. */
class Kept {
  events = [];
  ended = false;
  stopped = false;
  listeners = new Set();

  say(value) {
    this.events.push(`id: ${this.events.length + 1}\ndata: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`);
    for (const one of this.listeners) one.write(this.events.at(-1));
  }

  end() {
    this.ended = true;
    for (const one of this.listeners) one.end();
  }

  listen(response, at = 0) {
    events(response);
    for (const event of this.events.slice(at)) response.write(event);
    if (this.ended) return response.end();
    this.listeners.add(response);
    response.on("close", () => this.listeners.delete(response));
    return undefined;
  }
}
const delta = (text, thought = false) => ({ choices: [{ index: 0, delta: thought ? { reasoning_content: text } : { content: text }, finish_reason: null }] });

function refuse(response, status, message, code = null) {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ error: { message, type: "error", code } }));
}

/** Starts the server on a free port; `state` can be changed while it runs. */
export async function start(state = {}) {
  Object.assign(state, { key: "", running: 0, requests: [], run: 0, passes: 0, read: 0, aborted: 0, fails: 0, streams: new Map(), n_ctx: 4096, drops: 0, pace: 25, ...state });
  const planOf = () => ({ ...(state.gpu ? GPU_PLAN : state.parts ? PARTS_PLAN : state.deep ? DEEP_PLAN : state.mixture ? MIXTURE_PLAN : PLAN), n_ctx_per_request: state.n_ctx });

  function now() {
    const busy = state.running > 0;
    const plan = planOf();
    const n = plan.units.length;
    if (busy) { state.run = (state.run + 1) % n; state.read += 2.1e8; if (state.run === 0) state.passes++; }
    const units = plan.units.map((_, unit) => {
      const ahead = unit - state.run;
      return !busy || state.byExpert ? "idle" : ahead === 0 ? "computing" : ahead === 1 ? "ready" : ahead === 2 ? "reading" : "idle";
    });
    return {
      units, run: state.run, n_runs: n, pass_done: busy ? state.run / n : 0, pass_next: busy ? (state.run + 1) / n : 0, passes: state.passes, streamed_bytes: state.read, stall_seconds: 1.25,
      bytes_per_second: busy ? 2.1e9 + 2e8 * Math.sin(state.run) : 0, tokens_per_second: busy ? state.rate ?? 3.4 : 0, running: state.running, waiting: 0,
    };
  }

  async function talk(request, response, body) {
    const question = body.messages.findLast(({ role }) => role === "user").content.split("\n\n").at(-1);
    state.requests.push(body);
    if (question === "error" && state.fails-- > 0) return refuse(response, 500, "The disk went away.");
    if (question === "too long") return refuse(response, 400, "the prompt has 5000 tokens, and the context has room for 4095", "context_length_exceeded");
    const name = request.headers["x-airrun-stream"] ?? `unnamed-${state.requests.length}`;
    const kept = new Kept();
    state.streams.set(name, kept);
    if (state.drops) response.setHeader("X-Airrun-Dropped", String(state.drops));
    state.drops = 0;
    state.running++;
    kept.listen(response);
    try {
      const n_prompt = 9 + body.messages.length;
      kept.say({ choices: [{ index: 0, delta: {} }], prompt_progress: { total: n_prompt, cache: 0, processed: 0, batch: n_prompt, time_ms: 1, passes: { pass: 1, of: 1, measured: false, before_ms: 0, pass_ms: 3200, after_ms: 0 } } });
      await pause(question === "slow" ? 2500 : 120);
      const goesOn = body.continue_final_message ? ["and on ", "to the end."] : null;
      const pieces = goesOn ?? (["endless", "slow"].includes(question) ? Array.from({ length: 400 }, (_, i) => `word ${i} `) : ANSWERS[question] ?? ["I heard: ", question]);
      for (let i = 0; question === "flood" && i < state.flood; i++) {
        kept.say(delta(`piece ${i}${i % 20 === 19 ? "\n\n" : " "}`));
        if (i % 100 === 99) await pause(1);
      }
      for (const piece of pieces) {
        if (kept.stopped) { state.aborted++; return kept.end(); }
        kept.say(delta(piece, question === "reason" && piece !== "Forty-two."));
        await pause(question === "hesitate" ? 2600 : state.pace);
      }
      if (question === "cut off") { state.streams.delete(name); return response.destroy(); }
      if (question === "break" && !state.broke) { state.broke = true; response.destroy(); await pause(200); kept.say(delta("and the rest.")); }
      if (question === "error later") return kept.say({ error: { message: "The file changed while it was read." } }), kept.end();
      kept.say({ choices: [{ index: 0, delta: {}, finish_reason: question === "short" && !goesOn ? "length" : "stop" }] });
      kept.say({ choices: [], usage: { prompt_tokens: n_prompt, completion_tokens: pieces.length }, timings: { prompt_ms: 120, predicted_ms: state.pace * pieces.length } });
      kept.say("[DONE]");
      kept.end();
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
      const asked = new URL(request.url, "http://localhost").searchParams.get("model");
      if (state.models && !state.requests.some(({ model }) => model === asked)) return refuse(response, 503, "the model is being loaded");
      if (state.loading) return refuse(response, 503, "the model is being loaded");
      response.writeHead(200, { "Content-Type": "application/json" });
      return response.end(JSON.stringify({ model: "fake-70b", title: "Fake 70B Instruct", architecture: "fake", quantisation: "Q4_K_M", bytes: 4.2e10, defaults: { temperature: 0.6, top_k: 20 }, plan: planOf(), now: now(), ...(state.mixture && { experts: experts(0) }) }));
    }
    if (pathname === "/v1/models") {
      response.writeHead(200, { "Content-Type": "application/json" });
      return response.end(JSON.stringify({ object: "list", data: (state.models ?? ["fake-70b"]).map((id) => ({ id, object: "model" })) }));
    }
    if (pathname === "/api/airrun/events") return live(response);
    if (pathname === "/api/airrun/experts") {
      state.looks = (state.looks ?? 0) + 1;
      response.writeHead(200, { "Content-Type": "application/json" });
      return response.end(JSON.stringify(experts(state.looks > 3 ? 1 : 0)));
    }
    if (pathname === "/api/airrun/count") {
      let text = "";
      for await (const piece of request) text += piece;
      response.writeHead(200, { "Content-Type": "application/json" });
      return response.end(JSON.stringify({ tokens: Math.ceil(text.length / 4), n_ctx: state.n_ctx }));
    }
    if (pathname.startsWith("/api/airrun/streams/")) {
      const name = pathname.slice("/api/airrun/streams/".length);
      const kept = state.streams.get(name);
      if (!kept && request.method === "DELETE") return response.writeHead(204).end();
      if (!kept) return refuse(response, 404, "this stream is not kept here, or not from there on");
      if (request.method !== "DELETE") return kept.listen(response, Number(new URL(request.url, "http://localhost").searchParams.get("after")));
      kept.stopped = true;
      state.streams.delete(name);
      response.writeHead(204);
      return response.end();
    }
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
