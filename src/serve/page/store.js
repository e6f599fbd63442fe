// What this browser keeps: conversations, each under a key of its own, and the settings. Several tabs may write: what one of them
// does not know stays as another wrote it. Where nothing can be kept, conversations live as long as the page.

import { checked, fromSaved } from "./tree.js";

const SETTINGS = "airrun.settings";
/** Where older versions kept their one conversation. */
const OLD = "airrun.talk";

/** The names of the settings that go to the server as numbers. */
export const NUMBERS = [
  "temperature", "max_tokens", "top_p", "top_k", "min_p", "repeat_penalty", "seed", "presence_penalty", "frequency_penalty", "dry_multiplier",
  "xtc_probability",
];

/** How a model can be told to think. */
export const THOUGHTS = ["on", "off", "low", "medium", "high"];

/** Why something could not be kept, in words. */
export class NotKept extends Error {}

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

const finished = (transaction) => new Promise((resolve, reject) => {
  transaction.oncomplete = resolve;
  transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("aborted"));
});

/** The database; null where there is none. */
const database = new Promise((resolve) => {
  let request;
  try { request = indexedDB.open("airrun", 1); } catch { return resolve(null); }
  request.onupgradeneeded = () => {
    request.result.createObjectStore("heads", { keyPath: "id" });
    request.result.createObjectStore("chats", { keyPath: "id" });
  };
  request.onsuccess = () => {
    // Another version of the page may need to change it.
    request.result.onversionchange = () => request.result.close();
    resolve(request.result);
  };
  request.onerror = request.onblocked = () => resolve(null);
});

/** Instead of a database. */
const memory = new Map();

/** Whether conversations outlive the page. */
export const keeps = database.then(Boolean);

const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("airrun") : null;

/** Calls `changed(id)` when another tab has changed a conversation. */
export function onChange(changed) {
  channel?.addEventListener("message", ({ data }) => { if (typeof data?.chat === "string") changed(data.chat); });
}

const head = ({ id, title, made, changed, nodes }) => ({ id, title, made, changed, n: Object.values(nodes).filter(({ gone }) => !gone).length });

/** All conversations without what was said, newest first. */
export async function list() {
  const db = await database;
  const heads = db ? await done(db.transaction("heads").objectStore("heads").getAll()) : [...memory.values()].map(head);
  return heads.sort((a, b) => b.changed - a.changed);
}

/** A conversation; null if there is none. */
export async function read(id) {
  const db = await database;
  const found = db ? await done(db.transaction("chats").objectStore("chats").get(id)) : memory.get(id);
  if (!found) return null;
  try { return checked(structuredClone(found)); } catch { return null; }
}

/** Of what is kept of an answer and what this tab has of it: the one that is longer, and its place in its stream. */
function longer(kept, mine) {
  if (kept.text.length + kept.thought.length <= mine.text.length + mine.thought.length) return mine;
  const isSame = kept.stream && mine.stream && kept.stream.name === mine.stream.name;
  return isSame ? kept.stream.at > mine.stream.at ? kept : mine : mine.stream && !kept.stream ? kept : mine;
}

/** Of what is kept of a message and what this tab has of it: the one that is further. What was done last, deleting or not, holds. */
function further(kept, mine) {
  if (!kept) return mine;
  const [before, now] = [kept.turned ?? 0, mine.turned ?? 0];
  const last = before > now ? kept : mine;
  if (last.gone) return last;
  const one = kept.gone ? mine : mine.gone ? kept : longer(kept, mine);
  return { ...one, turned: Math.max(before, now) };
}

/** What is kept, with what this tab has written: `nodes` of `chat` and all that is about it as a whole. */
function merged(kept, chat, nodes) {
  if (!kept) return structuredClone(chat);
  const all = { ...kept.nodes };
  for (const id of nodes) all[id] = structuredClone(further(kept.nodes[id], chat.nodes[id]));
  return { ...structuredClone({ ...chat, nodes: {} }), nodes: all, changed: Math.max(kept.changed, chat.changed) };
}

/** Keeps `chat`, of which this tab has written `nodes`. Resolves when it is safe; throws `NotKept`. */
export async function write(chat, nodes) {
  const db = await database;
  const ids = [...nodes].filter((id) => chat.nodes[id]);
  let reason = null;
  if (!db) {
    memory.set(chat.id, merged(memory.get(chat.id), chat, ids));
    return;
  }
  try {
    const transaction = db.transaction(["heads", "chats"], "readwrite", { durability: "relaxed" });
    const end = finished(transaction);
    end.catch(() => {});
    const chats = transaction.objectStore("chats");
    const request = chats.get(chat.id);
    request.onsuccess = () => {
      try {
        const next = merged(request.result, chat, ids);
        chats.put(next);
        transaction.objectStore("heads").put(head(next));
      } catch (error) {
        reason = error;
        transaction.abort();
      }
    };
    await end;
  } catch (error) {
    throw new NotKept((reason ?? error)?.name === "QuotaExceededError"
      ? "This browser's storage is full: what is said now will be lost with this tab. Export it, or delete conversations."
      : "This browser could not store the conversation: it will be lost with this tab. Export it.");
  }
  channel?.postMessage({ chat: chat.id });
}

/** Forgets a conversation. */
export async function remove(id) {
  const db = await database;
  memory.delete(id);
  if (db) {
    const transaction = db.transaction(["heads", "chats"], "readwrite");
    for (const name of ["heads", "chats"]) transaction.objectStore(name).delete(id);
    await finished(transaction);
  }
  channel?.postMessage({ chat: id });
}

/** The conversations in which all `words` occur. */
export async function search(words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const says = (chat) => {
    const text = [chat.title, ...Object.values(chat.nodes).map((node) => node.text)].join("\n").toLowerCase();
    return wanted.every((word) => text.includes(word));
  };
  const found = new Set();
  const db = await database;
  if (!db) {
    for (const chat of memory.values()) if (says(chat)) found.add(chat.id);
    return found;
  }
  return new Promise((resolve, reject) => {
    const cursor = db.transaction("chats").objectStore("chats").openCursor();
    cursor.onerror = () => reject(cursor.error);
    cursor.onsuccess = () => {
      const at = cursor.result;
      if (!at) return resolve(found);
      if (says(at.value)) found.add(at.key);
      at.continue();
    };
  });
}

/** The conversation that an older version kept, once. */
export async function adopt() {
  let kept;
  try { kept = localStorage.getItem(OLD); } catch { return; }
  if (!kept) return;
  try {
    const turns = JSON.parse(kept).filter((m) => m && typeof m.content === "string" && (m.role === "user" || m.role === "assistant"));
    const [chat] = fromSaved({ messages: turns.map(({ role, content }) => ({ role, content })) });
    if (turns.length) await write(chat, Object.keys(chat.nodes));
  } catch (error) {
    if (error instanceof NotKept) return;
    // What makes no sense is not worth keeping.
  }
  localStorage.removeItem(OLD);
}

/** The kept settings; only those that were set, and make sense. */
export function loadSettings() {
  let kept;
  try { kept = JSON.parse(localStorage.getItem(SETTINGS)); } catch { /* none, or forbidden */ }
  const settings = {};
  if (typeof kept?.system === "string" && kept.system.trim()) settings.system = kept.system;
  for (const name of NUMBERS) if (Number.isFinite(kept?.[name])) settings[name] = kept[name];
  if (THOUGHTS.includes(kept?.think)) settings.think = kept.think;
  if (Array.isArray(kept?.stop) && kept.stop.length && kept.stop.every((text) => typeof text === "string" && text)) settings.stop = kept.stop;
  return settings;
}

/** Keeps `settings`. */
export function saveSettings(settings) {
  try { localStorage.setItem(SETTINGS, JSON.stringify(settings)); } catch { /* they last as long as the page */ }
}

/** What was written and not sent, for this tab. */
export function loadDraft() {
  try { return sessionStorage.getItem("airrun.draft") ?? ""; } catch { return ""; }
}

export function saveDraft(text) {
  try { sessionStorage.setItem("airrun.draft", text); } catch { /* it lasts as long as the page */ }
}
