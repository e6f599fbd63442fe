// A conversation as a value: a tree of questions and answers, of which one branch is shown. What was said once stays; what is said
// otherwise becomes a branch of its own. Of a message that was deleted, its empty place stays, for what came after it. It draws nothing
// and keeps nothing.

/** A name that nobody else has. (`randomUUID` is only for pages that are served securely.) */
export function newId(bytes = 12) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** An empty conversation. `from` is the question with which its prompt begins, once it is longer than the context. */
export function newChat(system = "") {
  const now = Date.now();
  return { id: newId(), title: "", named: false, system, made: now, changed: now, leaf: "", from: "", nodes: {} };
}

/** A message that says nothing. `turned` is when it was deleted or brought back. */
const blank = () => ({ role: "user", text: "", thought: "", note: "", files: [], figures: null, stream: null, gone: false, turned: 0 });

/** Adds what `fields` say behind `parent` and shows it. */
export function add(chat, parent, fields) {
  const node = { ...blank(), id: newId(), parent, made: Date.now(), ...fields };
  chat.nodes[node.id] = node;
  chat.leaf = node.id;
  chat.changed = node.made;
  if (!chat.named && !chat.title && node.role === "user") chat.title = titleOf(node);
  return node;
}

function titleOf({ text, files }) {
  const line = text.trim().split("\n")[0] || files[0]?.name || "";
  return line.length > 60 ? `${line.slice(0, 57).trimEnd()} …` : line;
}

/** What is shown: from the first question to `leaf`, without what was deleted. */
export function path(chat, leaf = chat.leaf) {
  const found = [];
  let steps = 0;
  for (let node = chat.nodes[leaf]; node && steps++ < 1e5; node = chat.nodes[node.parent]) if (!node.gone) found.push(node);
  return found.reverse();
}

/** What `node` comes after, of what was not deleted: its id, or nothing. */
function before(chat, node) {
  let above = chat.nodes[node.parent];
  for (let steps = 0; above?.gone && steps < 1e5; steps++) above = chat.nodes[above.parent];
  return above?.id ?? "";
}

/** What was said instead of `node`, with itself, oldest first. Answers of which nothing came are none. */
export function versions(chat, node) {
  const place = before(chat, node);
  const says = (one) => one === node || one.role === "user" || one.text || one.thought || one.stream;
  const same = Object.values(chat.nodes).filter((one) => !one.gone && says(one) && before(chat, one) === place);
  return same.sort((a, b) => a.made - b.made);
}

/** The end of the branch that goes through the node `id`, or begins nearest to it: always its newest. */
export function tip(chat, id) {
  // Those that lead to something.
  const alive = new Set();
  for (const node of Object.values(chat.nodes)) {
    for (let at = node.gone ? undefined : node; at && !alive.has(at.id); at = chat.nodes[at.parent]) alive.add(at.id);
  }
  const children = new Map();
  for (const child of Object.values(chat.nodes)) {
    if (!alive.has(child.id)) continue;
    const rival = children.get(child.parent);
    if (!rival || child.made >= rival.made) children.set(child.parent, child);
  }
  let at = id;
  for (let steps = 0; chat.nodes[at] && !alive.has(at) && steps < 1e5; steps++) at = chat.nodes[at].parent;
  for (let steps = 0; children.has(at) && steps < 1e5; steps++) at = children.get(at).id;
  return at;
}

/** Deletes one message; what came after it stays. Says what `restore` needs to bring it back. */
export function remove(chat, node) {
  const memo = { node, leaf: chat.leaf, from: chat.from, title: chat.title };
  const { id, parent, made, role } = node;
  const shown = path(chat);
  chat.nodes[id] = { ...blank(), id, parent, made, role, gone: true, turned: Date.now() };
  if (chat.from === id) chat.from = shown.slice(shown.indexOf(node) + 1).find((one) => one.role === "user")?.id ?? "";
  chat.leaf = tip(chat, chat.leaf);
  // Nor does its name tell what it said.
  if (!chat.named && chat.title === titleOf(node)) chat.title = titled(path(chat));
  return { ...memo, after: { leaf: chat.leaf, from: chat.from } };
}

/** Brings a message back that was deleted; what has been chosen since then stays chosen. Gives the message. */
export function restore(chat, { node, leaf, from, title, after }) {
  const back = { ...node, turned: Date.now() };
  chat.nodes[node.id] = back;
  if (chat.leaf === after.leaf) chat.leaf = leaf;
  if (chat.from === after.from) chat.from = from;
  if (!chat.named) chat.title = title || titled(path(chat));
  return back;
}

const titled = (nodes) => { const first = nodes.find(({ role }) => role === "user"); return first ? titleOf(first) : ""; };

/** A question as the model reads it: its files first, each in a fence that none of its lines can close. */
export function asText({ text, files = [] }) {
  const inFence = ({ name, text: content }) => {
    const longest = Math.max(2, ...[...content.matchAll(/`+/g)].map(([ticks]) => ticks.length));
    const fence = "`".repeat(longest + 1);
    return `File ${name}:\n${fence}\n${content}${content.endsWith("\n") ? "" : "\n"}${fence}`;
  };
  return [...files.map(inFence), text].filter(Boolean).join("\n\n");
}

/**
 * The messages that are sent for the answer behind `nodes`. An answer that says nothing is left out, as is one before any question;
 * questions, or answers, that then follow each other become one: templates want turns.
 */
export function messages(chat, nodes, system) {
  const begin = Math.max(0, nodes.findIndex(({ id }) => id === chat.from));
  const turns = joined(nodes.slice(begin));
  return system ? [{ role: "system", content: system }, ...turns] : turns;
}

function joined(nodes) {
  const out = [];
  for (const node of nodes) {
    const content = node.role === "user" ? asText(node) : node.text;
    const last = out.at(-1);
    if (!content || (!last && node.role !== "user")) continue;
    if (last?.role === node.role) last.content += `\n\n${content}`;
    else out.push({ role: node.role, content });
  }
  return out;
}

/** The question with which a prompt begins that is without its first `dropped` messages. */
export function without(chat, nodes, dropped) {
  const begin = Math.max(0, nodes.findIndex(({ id }) => id === chat.from));
  const rest = nodes.slice(begin);
  for (let at = 1; at < rest.length; at++) {
    if (rest[at].role === "user" && joined(rest.slice(0, at)).length >= dropped) return rest[at].id;
  }
  return chat.from;
}

/** As `airrun chat` saves it: the branch that is shown, in turns that all have their answers. */
export function toSaved(chat, system) {
  const turns = joined(path(chat));
  if (turns.at(-1)?.role === "user") turns.pop();
  return { system: system || null, messages: turns };
}

/** What a file holds: the one conversation of `airrun chat`, or all of a page. Throws what is wrong with it. */
export function fromSaved(value, name = "") {
  if (Array.isArray(value?.conversations)) return value.conversations.map(checked);
  const turns = value?.messages;
  const isTurn = (turn) => (turn?.role === "user" || turn?.role === "assistant") && typeof turn.content === "string";
  if (!Array.isArray(turns) || !turns.every(isTurn)) throw new Error("this is no saved conversation");
  const chat = newChat(typeof value.system === "string" ? value.system : "");
  let parent = "";
  for (const { role, content } of turns) parent = add(chat, parent, { role, text: content }).id;
  chat.title ||= name.replace(/\.json$/, "");
  return [chat];
}

/** A conversation that was kept or exported, with nothing in it that the page does not understand. */
export function checked(value) {
  if (!value || typeof value.nodes !== "object") throw new Error("this is no saved conversation");
  const text = (of) => typeof of === "string" ? of : "";
  const when = (of) => Number.isFinite(of) ? of : Date.now();
  const nodes = {};
  for (const [id, node] of Object.entries(value.nodes ?? {})) {
    if (!node || node.id !== id || (node.role !== "user" && node.role !== "assistant") || typeof node.text !== "string") continue;
    const files = (Array.isArray(node.files) ? node.files : []).filter((f) => typeof f?.name === "string" && typeof f.text === "string");
    const stream = typeof node.stream?.name === "string" && Number.isInteger(node.stream.at) ? { name: node.stream.name, at: node.stream.at } : null;
    nodes[id] = {
      id, parent: text(node.parent), made: when(node.made), role: node.role, text: node.text, thought: text(node.thought), note: text(node.note),
      files, stream, dropped: Number.isInteger(node.dropped) ? node.dropped : 0, figures: node.figures && typeof node.figures === "object" ? node.figures : null,
      gone: node.gone === true, turned: Number.isFinite(node.turned) ? node.turned : 0,
    };
  }
  return {
    ...newChat(text(value.system)), id: text(value.id) || newId(), title: text(value.title), named: Boolean(value.named), made: when(value.made),
    changed: when(value.changed), leaf: nodes[value.leaf] ? value.leaf : Object.keys(nodes).at(-1) ?? "", from: text(value.from), nodes,
  };
}
