// Questions and their answers: what is sent, what is said while one waits, and how an answer ends. The conversation itself is in
// `conversation.js`, the line to the server in `answer.js`.

import { Run } from "./answer.js";
import { Failure } from "./api.js";
import * as talk from "./conversation.js";
import { askKey } from "./key.js";
import * as live from "./live.js";
import * as settings from "./settings.js";
import * as store from "./store.js";
import * as time from "./time.js";
import * as tree from "./tree.js";
import { follow } from "./view.js";

const $ = (id) => document.getElementById(id);

/** How often a growing answer is kept. (milliseconds) */
const KEEP = 1000;

/** After so long without a token, it is said that the next is on its way. (milliseconds) */
const SILENT = 1500;

/** The answer under way, and its view. */
let current = null;
export const running = () => current;

/** What is done when an answer has ended: `over(well)`. */
let over = () => {};
export function whenOver(action) {
  over = action;
}

/** Asks `text` behind `parent`. */
export function ask(text, withFiles = [], parent = talk.shown.at(-1)?.id ?? "") {
  if (current) return;
  const { chat } = talk;
  const isNew = Object.keys(chat.nodes).length === 0;
  const node = tree.add(chat, parent, { role: "user", text, files: withFiles });
  if (isNew) history.replaceState(null, "", `#${chat.id}`);
  talk.title();
  talk.show();
  // The request waits for what is kept before it.
  talk.keep([node]);
  answer();
}

/** Answers the question of `node` again; the old answer stays beside the new one. */
export function retry(node) {
  if (current) return;
  talk.chat.leaf = node.parent;
  talk.show();
  answer();
}

/** Asks again what failed for want of a key. */
export function retryFailed() {
  const last = talk.shown.at(-1);
  if (last?.note.startsWith("failed") && !last.text) retry(last);
}

/** The request for the answer behind `nodes`. */
function request(nodes, goesOn) {
  const { chat } = talk;
  const body = { messages: tree.messages(chat, nodes, chat.system), stream: true, stream_options: { include_usage: true } };
  Object.assign(body, { return_progress: true, truncation: "auto" });
  if (goesOn) goOn(body, nodes.at(-1));
  if (live.model()) body.model = live.model();
  const chosen = settings.current();
  for (const name of store.NUMBERS) if (chosen[name] !== undefined) body[name] = chosen[name];
  if (chosen.stop) body.stop = chosen.stop;
  if (chosen.think) body.think = { on: true, off: false }[chosen.think] ?? chosen.think;
  return body;
}

/** Asks for what comes after the answer that `node` has so far; after its thought, if that is all. */
function goOn(body, { text, thought }) {
  if (!text) body.messages.push({ role: "assistant", content: "" });
  if (thought) body.messages.at(-1).reasoning_content = thought;
  Object.assign(body, { continue_final_message: true, add_generation_prompt: false });
}

/** Gets an answer to the last question, or goes on with `before`. */
export function answer(before = null) {
  if (current) return;
  const nodes = before ? talk.shown : [...talk.shown];
  const body = request(nodes, before !== null);
  const node = before ?? tree.add(talk.chat, talk.shown.at(-1)?.id ?? "", { role: "assistant" });
  // Until it is complete, it is one that was left: that is what a reload finds.
  node.note = "left";
  talk.show();
  const run = begin(node);
  finish(run, run.ask(body, () => talk.keep([node])));
}

/** An answer that was under way when its conversation was left goes on. */
export function takeUp() {
  const node = talk.shown.at(-1);
  if (!node?.stream || current) return;
  const run = begin(node);
  finish(run, run.resume());
}

function begin(node) {
  const { chat } = talk;
  const view = talk.viewOf(node);
  const run = new Run(node, {
    grew: () => { view.grow(); follow(); },
    told: progress,
    dropped: (n) => {
      if (!n) return;
      node.dropped = n;
      talk.leaveOut(n, node.parent);
      view.leftOut();
    },
  });
  current = { run, view, node, chat, keep: setInterval(() => talk.keep([node], chat), KEEP) };
  view.begin();
  talk.settle();
  view.waiting("Waiting for the model");
  follow(true);
  return run;
}

/** Stops listening to the answer under way; the server goes on with it. */
export function leave() {
  if (!current) return;
  current.run.leave();
  clearInterval(current.keep);
  talk.keep([current.node], current.chat);
  current = null;
}

/** Waits for the end of an answer, and says how it was. */
async function finish(run, ends) {
  const { node } = run;
  const mine = current;
  try {
    await ends;
    node.note = run.cut ? "cut" : "";
    if (!node.text && !node.thought) throw new Failure("The model said nothing.");
    say(node.text);
  } catch (error) {
    if (run.left) return;
    fail(run, error);
  }
  node.figures = run.figures() ?? node.figures;
  if (run.cut && node.figures?.context >= live.context()) node.note = "full";
  clearInterval(mine.keep);
  current = null;
  mine.view.end();
  await talk.keep([node], mine.chat);
  run.forget();
  talk.settle();
  follow();
  // After an answer that did not end well, who asked may want to ask otherwise.
  over(!run.stopped && !node.note.startsWith("failed"));
}

function fail(run, error) {
  const { node } = run;
  if (run.stopped) {
    node.note = "stopped";
    say("Stopped.");
  } else if (error.code === "gone" || (error.status === 404 && node.stream)) {
    // The server was started anew, or the page was away for too long.
    node.note = "left";
  } else {
    node.note = `failed: ${sentence(error)}`;
    if (error.status === 401) askKey(true);
  }
  node.stream = null;
}

/** Why an answer failed, with what can be done. */
function sentence({ message, code }) {
  // Of the numbers in it, the largest is that of the prompt's tokens.
  const tokens = code === "context_length_exceeded" ? Math.max(0, ...(message.match(/\d+/g) ?? []).map(Number)) : 0;
  if (!tokens || !live.context()) return message;
  return `This question is too long: ${tokens} of ${live.context()} tokens. Shorten it, or restart the server with -c ${2 ** Math.ceil(Math.log2(tokens * 1.25))}.`;
}

/** Tells those who hear the page: an answer when it is complete, not word by word. */
function say(text) {
  $("status").textContent = text.length > 600 ? `${text.slice(0, 600)} …` : text;
}

/** While nothing new is printed: how far the prompt or the next token is, and for how long. */
export function progress() {
  if (!current) return;
  const { run, view } = current;
  const at = performance.now();
  const seconds = (at - run.begin) / 1000;
  const { now, block, binds } = live.state();
  if (run.lost) return view.waiting("The connection broke: waiting for the server", "The answer goes on there.");
  talk.gauge();
  if (run.pieces > 0) {
    if (at - run.last > SILENT) view.waiting(time.tokenInWords(block, now?.tokens_per_second), binds);
    return;
  }
  const more = [seconds > 2 ? `${time.elapsed(seconds)} so far` : "", seconds > 2 ? binds : ""].filter(Boolean).join(" · ");
  if (run.progress) {
    const state = time.prompt(run.progress, now, at, run.seen, run.gaps);
    // What is known of the blocks may still be about the last pass.
    const place = at - run.progress.at > 300 ? block : null;
    view.waiting(time.promptInWords(state, place, seconds), more, state.part);
  } else if (now?.waiting > 0) view.waiting("Waiting for its turn", more);
  else view.waiting("Waiting for the model", more);
}
