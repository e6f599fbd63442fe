// The list of conversations: to open, name, search, delete, export and import them. It shows what the store has, and tells who uses
// it what was chosen.

import { undoable } from "./notice.js";
import * as store from "./store.js";
import { fromSaved, toSaved } from "./tree.js";
import { button, element } from "./element.js";

const $ = (id) => document.getElementById(id);

/** From this width on the list is beside the conversation. */
const WIDE = matchMedia("(min-width: 64rem)");

let hooks = {};
let heads = [];
let found = null;
let current = "";
/** Those that are deleted, and can still be brought back. */
const gone = new Set();

/** `10:42`, `Tuesday`, `3 Oct`. */
function when(time) {
  const date = new Date(time);
  const days = Math.floor((new Date().setHours(24, 0, 0, 0) - time) / 86_400_000);
  const show = (form) => new Intl.DateTimeFormat("en-GB", form).format(date);
  if (days < 1) return show({ hour: "2-digit", minute: "2-digit" });
  if (days < 7) return show({ weekday: "long" });
  return show(days < 300 ? { day: "numeric", month: "short" } : { day: "numeric", month: "short", year: "numeric" });
}

const nameOf = ({ title }) => title || "Untitled";

function show() {
  const shown = heads.filter(({ id, n }) => n > 0 && !gone.has(id) && (!found || found.has(id)));
  $("chat-list").replaceChildren(...shown.map(row));
  $("chat-none").hidden = shown.length > 0;
  $("chat-none").textContent = found ? "Nothing found." : "No conversations yet.";
}

function row(head) {
  const open = element("button", "chat", element("span", "chat-title", nameOf(head)), element("time", "", when(head.changed)));
  open.type = "button";
  if (head.id === current) open.setAttribute("aria-current", "true");
  open.addEventListener("click", () => { hooks.open(head.id); if (!WIDE.matches) $("chats").close(); });
  const act = (label, path, action) => {
    const node = button("", action, "tool icon");
    node.append(icon(path));
    node.setAttribute("aria-label", `${label} ${nameOf(head)}`);
    node.title = label;
    return node;
  };
  const item = element("li", "chat-row", open,
    act("Rename", "M4 20h4L19 9l-4-4L4 16zM13 7l4 4", () => rename(item, head)),
    act("Export", "M12 4v11M7 10l5 5 5-5M5 20h14", () => exportOne(head.id)),
    act("Delete", "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13", () => forget(head)));
  return item;
}

function icon(path) {
  const SVG = "http://www.w3.org/2000/svg";
  const node = document.createElementNS(SVG, "svg");
  node.setAttribute("viewBox", "0 0 24 24");
  node.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  node.append(line);
  return node;
}

function rename(item, head) {
  const input = element("input");
  input.value = head.title;
  input.maxLength = 200;
  input.setAttribute("aria-label", "Name of the conversation");
  const form = element("form", "chat-rename", input);
  let done = false;
  const end = async (keep) => {
    if (done) return;
    done = true;
    const title = input.value.trim();
    if (keep && title) await hooks.rename(head.id, title);
    await refresh();
    [...$("chat-list").querySelectorAll(".chat")][heads.filter(({ id, n }) => n > 0 && !gone.has(id) && (!found || found.has(id))).findIndex(({ id }) => id === head.id)]?.focus();
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); end(true); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); end(false); }
  });
  input.addEventListener("blur", () => end(true));
  item.replaceChildren(form);
  input.select();
}

/** Deletes a conversation; for a while it can be brought back. */
function forget(head) {
  gone.add(head.id);
  const wasOpen = head.id === current;
  if (wasOpen) hooks.fresh();
  show();
  const back = () => { gone.delete(head.id); if (wasOpen) hooks.open(head.id); show(); };
  undoable(`Deleted "${nameOf(head)}".`, back, () => store.remove(head.id).catch(() => gone.delete(head.id)));
}

/** Deletes for good what waits for that: the page is left. */
export function settle() {
  for (const id of gone) store.remove(id).catch(() => {});
}

function save(name, value) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify(value, null, 2)}\n`], { type: "application/json" }));
  link.download = `${name.replace(/[^\p{L}\p{N} ._-]/gu, "").trim().slice(0, 60) || "conversation"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function exportOne(id) {
  const chat = await store.read(id);
  if (chat) save(chat.title, toSaved(chat, chat.system));
}

async function exportAll() {
  const conversations = (await Promise.all(heads.filter(({ id }) => !gone.has(id)).map(({ id }) => store.read(id)))).filter(Boolean);
  save("airrun conversations", { conversations });
}

async function importFiles(list) {
  let last = "";
  for (const file of list) {
    try {
      for (const chat of fromSaved(JSON.parse(await file.text()), file.name)) {
        await store.write(chat, Object.keys(chat.nodes));
        last = chat.id;
      }
      $("chats-why").hidden = true;
    } catch (error) {
      $("chats-why").textContent = `${file.name}: ${error instanceof SyntaxError ? "this is not JSON" : error.message}`;
      $("chats-why").hidden = false;
    }
  }
  await refresh();
  if (last) hooks.open(last);
}

/** Shows what the store has now; `id` is the conversation that is open. */
export async function refresh(id = current) {
  current = id;
  try { heads = await store.list(); } catch { /* as before */ }
  if ($("chats").open) show();
}

let searching = 0;
async function search() {
  const words = $("chat-search").value.trim();
  const mine = ++searching;
  const result = words ? await store.search(words).catch(() => null) : null;
  if (mine !== searching) return;
  found = result;
  show();
}

function toggle() {
  const list = $("chats");
  if (list.open) list.close();
  else if (WIDE.matches) list.show();
  else list.showModal();
  remember(list.open);
  show();
  if (list.open) $("chat-search").focus();
}

function remember(open) {
  $("open-chats").setAttribute("aria-expanded", String(open));
  try { localStorage.setItem("airrun.list", open ? "open" : ""); } catch { /* it begins closed next time */ }
}

/** Listens: `open(id)`, `fresh()` and `rename(id, title)` are called for what is chosen. */
export function listen(calls) {
  hooks = calls;
  const list = $("chats");
  $("open-chats").addEventListener("click", toggle);
  list.addEventListener("close", () => remember(false));
  list.addEventListener("click", (event) => { if (event.target === list) list.close(); });
  $("close-chats").addEventListener("click", () => { list.close(); $("open-chats").focus(); });
  $("chat-search").addEventListener("input", search);
  $("export-all").addEventListener("click", exportAll);
  $("import").addEventListener("click", () => $("import-file").click());
  $("import-file").addEventListener("change", () => { importFiles([...$("import-file").files]); $("import-file").value = ""; });
  // A list that was over the page goes beside it, or away.
  WIDE.addEventListener("change", () => { if (list.open) { list.close(); if (WIDE.matches) { list.show(); remember(true); } } });
  let wasOpen = false;
  try { wasOpen = localStorage.getItem("airrun.list") === "open"; } catch { /* closed */ }
  if (wasOpen && WIDE.matches) { list.show(); remember(true); }
}
