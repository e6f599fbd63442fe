// The conversation that is open: which one it is, what of it is shown, and that what was said is kept. How messages look is in
// `view.js`, where conversations are kept in `store.js`; questions are asked in `asking.js`.

import * as chats from "./chats.js";
import * as live from "./live.js";
import { lasting, undoable } from "./notice.js";
import * as settings from "./settings.js";
import * as store from "./store.js";
import * as tree from "./tree.js";
import { answerView, divider, follow, questionView } from "./view.js";

const $ = (id) => document.getElementById(id);

const LEFT_OUT = "What is above is left out of the prompt: the context is full.";

/** The conversation, what is shown of it, and how that looks. Others read these; they change here. */
export let chat = tree.newChat(settings.current().system);
export let shown = [];
let views = [];
/** How messages look that were shown before. */
const looks = new WeakMap();

/** What is done about answers: `ask`, `retry`, `answer`, `running()`, `leave`, `takeUp`, and `settled()` after each change. */
let asking = null;

/** Joins this with what asks questions. */
export function listen(actions) {
  asking = actions;
}

export const viewOf = (node) => views[shown.indexOf(node)];

/** Shows the branch that is chosen. */
export function show() {
  shown = tree.path(chat);
  views = shown.map((node) => {
    if (!looks.has(node)) looks.set(node, drawn(node));
    return looks.get(node);
  });
  const nodes = views.map((view) => view.node);
  const begin = shown.findIndex(({ id }) => id === chat.from);
  if (begin > 0) nodes.splice(begin, 0, divider(LEFT_OUT));
  const place = $("messages");
  nodes.forEach((node, at) => { if (place.children[at] !== node) place.insertBefore(node, place.children[at] ?? null); });
  while (place.children.length > nodes.length) place.lastChild.remove();
  settle();
}

function drawn(node) {
  const pick = (at) => { if (!asking.running()) choose(tree.tip(chat, tree.versions(chat, node)[at].id)); };
  const remove = () => forget(node);
  return node.role === "user"
    ? questionView(node, { pick, remove, send: (text) => asking.ask(text, node.files, node.parent), answer: () => asking.answer() })
    : answerView(node, { pick, remove, retry: () => asking.retry(node), go: () => asking.answer(node), change: (text) => change(node, text) });
}

/** Keeps another text of an answer beside the one that it had. */
function change({ parent, thought, dropped = 0 }, text) {
  if (asking.running()) return;
  const node = tree.add(chat, parent, { role: "assistant", text, thought, dropped, note: "edited" });
  show();
  keep([node]);
}

/** Deletes a message; for a while it can be brought back. */
function forget(node) {
  if (asking.running()) return;
  const { id } = chat;
  const memo = tree.remove(chat, node);
  show();
  title();
  keep([chat.nodes[node.id]]);
  const back = async () => {
    const of = id === chat.id ? chat : await store.read(id).catch(() => null);
    if (!of) return;
    const again = tree.restore(of, memo);
    if (of === chat) show();
    title();
    keep([again], of);
  };
  const what = node.role === "user" ? "question" : "answer";
  $("status").textContent = `The ${what} is deleted.`;
  undoable(`Deleted the ${what}.`, back).focus();
}

/** What depends on the conversation as a whole. */
export function settle() {
  const busy = asking.running() !== null;
  $("empty").hidden = shown.length > 0;
  document.body.classList.toggle("busy", busy);
  $("fresh").disabled = shown.length === 0;
  let asked = false;
  views.forEach((view, i) => {
    const all = tree.versions(chat, shown[i]);
    view.settle({ at: all.indexOf(shown[i]), n: all.length, last: i === views.length - 1, busy, after: asked ? shown[i - 1].role : "" });
    asked ||= shown[i].role === "user";
  });
  gauge();
  asking.settled(busy);
}

/** Shows the branch that ends with `leaf`. */
export function choose(leaf) {
  chat.leaf = leaf;
  show();
  keep([]);
}

/** Lets the prompt begin later: the model had no room for its first `n` messages. */
export function leaveOut(n, before) {
  chat.from = tree.without(chat, tree.path(chat, before), n);
  show();
}

/** How full the context is. */
export function gauge() {
  const n_ctx = live.context();
  const last = shown.findLast(({ figures }) => figures?.context);
  const used = Math.min(n_ctx, asking.running()?.run.context() || last?.figures.context || 0);
  $("gauge").hidden = !used || !n_ctx;
  if (!used || !n_ctx) return;
  $("gauge-bar").value = used / n_ctx;
  $("gauge-bar").classList.toggle("nearly", used > 0.85 * n_ctx);
  $("gauge-words").textContent = `Context: ${used} of ${n_ctx} tokens (${Math.round(100 * used / n_ctx)} %)`;
}

/** The window's name is that of what is open in it. */
export function title() {
  document.title = [chat.title, live.model() || "airrun"].filter(Boolean).join(" · ");
}

// --- keeping

let queue = Promise.resolve();

/** Keeps `nodes` of the open conversation, or of `of`; one write after the other. */
export function keep(nodes, of = chat) {
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
export function open(next, push = true) {
  asking.leave();
  chat = next;
  title();
  const address = Object.keys(chat.nodes).length ? `#${chat.id}` : location.pathname;
  if (push) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
  show();
  follow(true);
  chats.refresh(chat.id);
  asking.takeUp();
}

export const openNew = () => open(tree.newChat(settings.current().system));

/** Begins a new conversation, and says where the last one is. */
export function fresh() {
  const [before, said] = [chat, shown.length];
  openNew();
  $("question").focus();
  if (said) undoable("A new conversation. The last one is in the list.", () => openId(before.id, before));
}

export async function openId(id, otherwise = null) {
  const found = await store.read(id).catch(() => null) ?? otherwise;
  if (found) open(found);
}

/** Opens what the address says. */
export async function arrive(push) {
  const id = location.hash.slice(1);
  const found = id ? await store.read(id).catch(() => null) : null;
  open(found ?? tree.newChat(settings.current().system), push);
}

/** Another tab has changed a conversation. */
export async function changed(id) {
  chats.refresh(chat.id);
  if (id !== chat.id || asking.running() || document.querySelector(".editing")) return;
  const found = await store.read(id).catch(() => null);
  if (asking.running() || chat.id !== id) return;
  // Deleted there: what is on the screen stays until something else is opened.
  if (!found) return;
  const { leaf } = chat;
  chat = found;
  // Each tab shows the branch that it is on, as far as that has grown.
  if (chat.nodes[leaf]) chat.leaf = tree.tip(chat, leaf);
  show();
  asking.takeUp();
}

/** Names a conversation. */
export async function rename(id, words) {
  const one = id === chat.id ? chat : await store.read(id);
  if (!one) return;
  Object.assign(one, { title: words, named: true });
  await store.write(one, []).catch((error) => lasting("store", error.message));
  title();
}
