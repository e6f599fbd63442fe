// The page: conversations with the model that the server has. It knows which one is open, asks for answers and keeps what was said;
// how that looks is in `view.js`, what the server is doing meanwhile in `live.js`.

import { Run } from "./answer.js";
import { Failure, post } from "./api.js";
import * as chats from "./chats.js";
import * as files from "./files.js";
import { askKey, whenKeyGiven } from "./key.js";
import * as live from "./live.js";
import { lasting, undoable } from "./notice.js";
import * as settings from "./settings.js";
import * as store from "./store.js";
import * as time from "./time.js";
import * as tree from "./tree.js";
import { answerView, divider, follow, questionView } from "./view.js";

const $ = (id) => document.getElementById(id);

/** Questions for a beginning that any model can try. */
const IDEAS = ["Explain how a heat pump works, in three sentences.", "Write a haiku about slow disks.", "What should I cook with lentils and lemons?"];

/** How often a growing answer is kept. (milliseconds) */
const KEEP = 1000;

/** After so long without a token, it is said that the next is on its way. (milliseconds) */
const SILENT = 1500;

let chat = tree.newChat(settings.current().system);
/** What is shown of it: the messages and how they look. */
let shown = [];
let views = [];
/** How messages look that were shown before. */
const looks = new WeakMap();
/** The answer under way, and its view. */
let running = null;
/** What is asked when it ends. */
let queued = "";

// --- what is shown

function show() {
  shown = tree.path(chat);
  views = shown.map((node) => {
    if (!looks.has(node)) looks.set(node, viewOf(node));
    return looks.get(node);
  });
  const nodes = views.map((view) => view.node);
  const begin = shown.findIndex(({ id }) => id === chat.from);
  if (begin > 0) nodes.splice(begin, 0, divider("What is above is left out of the prompt: the context is full."));
  const place = $("messages");
  nodes.forEach((node, at) => { if (place.children[at] !== node) place.insertBefore(node, place.children[at] ?? null); });
  while (place.children.length > nodes.length) place.lastChild.remove();
  settle();
}

function viewOf(node) {
  const pick = (at) => { if (!running) choose(tree.tip(chat, tree.versions(chat, node)[at])); };
  return node.role === "user"
    ? questionView(node, { pick, send: (text) => ask(text, node.files, node.parent) })
    : answerView(node, { pick, retry: () => retry(node), go: () => answer(node) });
}

/** What depends on the conversation as a whole. */
function settle() {
  $("empty").hidden = shown.length > 0;
  document.body.classList.toggle("busy", running !== null);
  $("send").setAttribute("aria-label", running ? "Stop" : "Send");
  sendable();
  $("fresh").disabled = shown.length === 0;
  views.forEach((view, i) => {
    const all = tree.versions(chat, shown[i]);
    view.settle({ at: all.indexOf(shown[i]), n: all.length, last: i === views.length - 1, busy: running !== null });
  });
  gauge();
  $("queued").hidden = !queued;
  $("queued-text").textContent = queued;
}

function choose(leaf) {
  chat.leaf = leaf;
  show();
  keep([]);
}

/** How full the context is. */
function gauge() {
  const n_ctx = live.context();
  const last = shown.findLast(({ figures }) => figures?.context);
  const used = Math.min(n_ctx, running?.run.context() || last?.figures.context || 0);
  $("gauge").hidden = !used || !n_ctx;
  if (!used || !n_ctx) return;
  $("gauge-bar").value = used / n_ctx;
  $("gauge-bar").classList.toggle("nearly", used > 0.85 * n_ctx);
  $("gauge-words").textContent = `Context: ${used} of ${n_ctx} tokens (${Math.round(100 * used / n_ctx)} %)`;
}

// --- keeping

let queue = Promise.resolve();

/** Keeps `nodes` of the open conversation, or of `of`; one write after the other. */
function keep(nodes, of = chat) {
  if (Object.keys(of.nodes).length === 0) return queue;
  const ids = nodes.map(({ id }) => id);
  queue = queue.then(() => store.write(of, ids)).then(
    () => lasting("store", ""),
    (error) => lasting("store", error instanceof store.NotKept ? error.message : `The conversation could not be stored: ${error.message}`),
  );
  return queue.then(() => chats.refresh(chat.id));
}

// --- opening and leaving conversations

/** Shows `next`; an answer under way goes on at the server, and is taken up when its conversation is opened again. */
function open(next, push = true) {
  leave();
  chat = next;
  document.title = [chat.title, live.model() || "airrun"].filter(Boolean).join(" · ");
  const address = Object.keys(chat.nodes).length ? `#${chat.id}` : location.pathname;
  if (push) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
  show();
  follow(true);
  chats.refresh(chat.id);
  takeUp();
}

function leave() {
  if (!running) return;
  running.run.leave();
  clearInterval(running.keep);
  keep([running.node], running.chat);
  running = null;
  queued = "";
}

function fresh() {
  const [before, said] = [chat, shown.length];
  open(tree.newChat(settings.current().system));
  $("question").focus();
  if (said) undoable("A new conversation. The last one is in the list.", () => openId(before.id, before));
}

async function openId(id, otherwise = null) {
  const found = await store.read(id).catch(() => null) ?? otherwise;
  if (found) open(found);
}

/** Another tab has changed a conversation. */
async function changed(id) {
  chats.refresh(chat.id);
  if (id !== chat.id || running || document.querySelector(".editing")) return;
  const found = await store.read(id).catch(() => null);
  if (running || chat.id !== id) return;
  // Deleted there: what is on the screen stays until something else is opened.
  if (!found) return;
  const { leaf } = chat;
  chat = found;
  // Each tab shows the branch that it is on, as far as that has grown.
  if (chat.nodes[leaf]) chat.leaf = tree.tip(chat, chat.nodes[leaf]);
  show();
  takeUp();
}

// --- asking and answering

/** Asks `text` behind `parent`. */
function ask(text, withFiles = [], parent = shown.at(-1)?.id ?? "") {
  if (running) return;
  const isNew = Object.keys(chat.nodes).length === 0;
  const node = tree.add(chat, parent, { role: "user", text, files: withFiles });
  if (isNew) history.replaceState(null, "", `#${chat.id}`);
  document.title = [chat.title, live.model() || "airrun"].filter(Boolean).join(" · ");
  show();
  // The request waits for what is kept before it.
  keep([node]);
  answer();
}

/** Answers the question of `node` again; the old answer stays beside the new one. */
function retry(node) {
  if (running) return;
  chat.leaf = node.parent;
  show();
  answer();
}

/** The request for the answer behind `nodes`. */
function request(nodes, goesOn) {
  const body = { messages: tree.messages(chat, nodes, chat.system), stream: true, stream_options: { include_usage: true } };
  Object.assign(body, { return_progress: true, truncation: "auto" });
  if (goesOn) goOn(body, nodes.at(-1));
  if (live.model()) body.model = live.model();
  const chosen = settings.current();
  for (const name of store.NUMBERS) if (chosen[name] !== undefined) body[name] = chosen[name];
  return body;
}

/** Asks for what comes after the answer that `node` has so far; after its thought, if that is all. */
function goOn(body, { text, thought }) {
  if (!text) body.messages.push({ role: "assistant", content: "" });
  if (thought) body.messages.at(-1).reasoning_content = thought;
  Object.assign(body, { continue_final_message: true, add_generation_prompt: false });
}

/** Gets an answer to the last question, or goes on with `before`. */
function answer(before = null) {
  if (running) return;
  const nodes = before ? shown : [...shown];
  const body = request(nodes, before !== null);
  const node = before ?? tree.add(chat, shown.at(-1)?.id ?? "", { role: "assistant" });
  // Until it is complete, it is one that was left: that is what a reload finds.
  node.note = "left";
  show();
  const run = begin(node);
  finish(run, run.ask(body, () => keep([node])));
}

/** An answer that was under way when its conversation was left goes on. */
function takeUp() {
  const node = shown.at(-1);
  if (!node?.stream || running) return;
  const run = begin(node);
  finish(run, run.resume());
}

function begin(node) {
  const view = views[shown.indexOf(node)];
  const run = new Run(node, {
    grew: () => { view.grow(); follow(); },
    told: progress,
    dropped: (n) => {
      if (!n) return;
      chat.from = tree.without(chat, tree.path(chat, node.parent), n);
      running?.view.node.before(divider(`The context is full: the oldest ${n} messages are left out from here on.`));
    },
  });
  running = { run, view, node, chat, keep: setInterval(() => keep([node], running?.chat ?? chat), KEEP) };
  view.begin();
  settle();
  view.waiting("Waiting for the model");
  follow(true);
  return run;
}

/** Waits for the end of an answer, and says how it was. */
async function finish(run, ends) {
  const { node } = run;
  const mine = running;
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
  running = null;
  mine.view.end();
  await keep([node], mine.chat);
  settle();
  follow();
  if (!queued) return;
  const text = queued;
  queued = "";
  // After an answer that did not end well, who asked may want to ask otherwise.
  if (!run.stopped && !node.note.startsWith("failed")) return ask(text);
  fill([text, $("question").value].filter(Boolean).join("\n\n"));
  settle();
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
function progress() {
  if (!running) return;
  const { run, view } = running;
  const at = performance.now();
  const seconds = (at - run.begin) / 1000;
  const { now, block, binds } = live.state();
  if (run.lost) return view.waiting("The connection broke: waiting for the server", "The answer goes on there.");
  if (run.pieces > 0) {
    if (at - run.last > SILENT) view.waiting(time.tokenInWords(block, now?.tokens_per_second), binds);
    return;
  }
  const more = [seconds > 2 ? `${time.elapsed(seconds)} so far` : "", seconds > 2 ? binds : ""].filter(Boolean).join(" · ");
  if (run.progress) {
    const state = time.prompt(run.progress, now, at);
    // What is known of the blocks may still be about the last pass.
    const place = at - run.progress.at > 300 ? block : null;
    view.waiting(time.promptInWords(state, place, seconds), more, state.part);
  } else if (now?.waiting > 0) view.waiting("Waiting for its turn", more);
  else view.waiting("Waiting for the model", more);
  gauge();
}

// --- the line to write on

function sendable() {
  $("send").disabled = !running && !$("question").value.trim() && files.attached().length === 0;
}

function grow() {
  const area = $("question");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
  store.saveDraft(area.value);
  sendable();
}

function fill(text) {
  $("question").value = text;
  grow();
  $("question").focus();
}

/** Sends what is written; while an answer comes, after it. */
function submit() {
  const text = $("question").value.trim();
  if (!text && files.attached().length === 0) return;
  if (running) {
    // Files wait with what they belong to.
    if (files.attached().length || !text) return;
    queued = [queued, text].filter(Boolean).join("\n\n");
    fill("");
    return settle();
  }
  const taken = files.takeFiles();
  fill("");
  ask(text, taken);
}

/** Why `list` does not fit into a question; nothing if it does. */
async function fits(list) {
  const messages = [{ role: "user", content: tree.asText({ text: "", files: list }) }];
  if (chat.system) messages.unshift({ role: "system", content: chat.system });
  let count;
  try { count = await post("/api/airrun/count", { messages, ...(live.model() && { model: live.model() }) }); } catch (error) { return error.message; }
  const room = Math.floor(count.n_ctx * 7 / 8);
  return count.tokens > room ? `it makes ${count.tokens} tokens, and of the context's ${count.n_ctx} a question may have ${room}.` : "";
}

function listen() {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) running.run.stop();
    else submit();
  });
  $("question").addEventListener("input", grow);
  $("question").addEventListener("keydown", (event) => {
    const plain = event.key === "Enter" && !event.shiftKey && !event.altKey && !event.ctrlKey && !event.metaKey;
    // Enter may also choose a word of an input method.
    if (!plain || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running && !document.querySelector("dialog:modal")) {
      event.preventDefault();
      running.run.stop();
      $("question").focus();
    }
  });
  $("fresh").addEventListener("click", fresh);
  $("unqueue").addEventListener("click", () => { const text = queued; queued = ""; fill([text, $("question").value].filter(Boolean).join("\n\n")); settle(); });
  $("down").addEventListener("click", () => follow(true));
  addEventListener("popstate", () => { if (location.hash.slice(1) !== chat.id) arrive(false); });
  addEventListener("pagehide", () => {
    chats.settle();
    if (running) keep([running.node], running.chat);
    store.saveDraft($("question").value);
  });
  whenKeyGiven(() => { const last = shown.at(-1); if (last?.note.startsWith("failed") && !last.text) retry(last); });
}

/** Opens what the address says. */
async function arrive(push) {
  const id = location.hash.slice(1);
  const found = id ? await store.read(id).catch(() => null) : null;
  open(found ?? tree.newChat(settings.current().system), push);
}

$("ideas").append(...IDEAS.map((idea) => {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = idea;
  button.addEventListener("click", () => fill(idea));
  item.append(button);
  return item;
}));

chats.listen({
  open: (id) => openId(id),
  fresh: () => open(tree.newChat(settings.current().system)),
  rename: async (id, title) => {
    const one = id === chat.id ? chat : await store.read(id);
    if (!one) return;
    Object.assign(one, { title, named: true });
    await store.write(one, []).catch((error) => lasting("store", error.message));
  },
});
settings.listen({
  system: () => chat.system ?? "",
  change: (text) => { chat.system = text; keep([]); },
});
files.listen(fits, sendable);
store.onChange(changed);
listen();
fill(store.loadDraft());
live.watch({ tick: progress, status: (status) => { settings.defaults(status.defaults); document.title = [chat.title, live.model()].filter(Boolean).join(" · "); settle(); } });
store.keeps.then((does) => { if (!does) lasting("store", "This browser keeps nothing here: conversations last as long as this tab."); });
await store.adopt();
await arrive(false);
