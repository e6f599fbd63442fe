// Files that go with a question: texts, by button, drop and paste. It reads and shows them; whether they fit is asked of the server
// by who uses them.

import { size } from "./size.js";

/** The largest file that is read at all. (bytes) */
const MAX_BYTES = 4_000_000;

const $ = (id) => document.getElementById(id);

let files = [];
/** Called when the list has changed. */
let changed = () => {};
/** Whether `files` may stay: a sentence why not, or nothing. */
let check = async () => "";

export const attached = () => files;

/** Replaces the list. */
export function attach(list) {
  files = list;
  show();
}

/** The files of a question that is sent; then there are none. */
export function takeFiles() {
  const taken = files;
  attach([]);
  return taken;
}

function show() {
  $("files").replaceChildren(...files.map((file, at) => chip(file, () => attach(files.filter((_, i) => i !== at)))));
  $("files").hidden = files.length === 0;
  changed();
}

/** `notes.txt, 12 kB`, with a button if it can be removed. */
export function chip(file, remove) {
  const node = document.createElement("li");
  const name = document.createElement("b");
  name.textContent = file.name;
  node.className = "file";
  node.append(name, ` ${size(file.bytes ?? file.text.length)}`);
  if (remove) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "remove";
    button.setAttribute("aria-label", `Remove ${file.name}`);
    button.textContent = "\u00d7";
    button.addEventListener("click", remove);
    node.append(button);
  }
  return node;
}

function refuse(words) {
  $("files-why").textContent = words;
  $("files-why").hidden = !words;
}

/** The text of a file; throws what is wrong with it. */
async function read(file) {
  if (file.size > MAX_BYTES) throw new Error(`${file.name} is too large: ${size(file.size)}, and at most ${size(MAX_BYTES)} are read.`);
  const text = new TextDecoder("utf-8", { fatal: true });
  let content;
  try { content = text.decode(await file.arrayBuffer()); } catch { throw new Error(`${file.name} is not a text file.`); }
  if (content.includes("\0")) throw new Error(`${file.name} is not a text file.`);
  return { name: file.name, bytes: file.size, text: content };
}

/** Takes what somebody has chosen, if it can be used. */
async function take(list) {
  refuse("");
  for (const file of list) {
    try {
      const one = await read(file);
      const why = await check([...files, one]);
      if (why) throw new Error(`${one.name} does not fit: ${why}`);
      attach([...files, one]);
    } catch (error) {
      refuse(error.message);
    }
  }
  $("question").focus();
}

/** Listens for files. `fits(files)` says why they do not fit, `now()` is called when there are others. */
export function listen(fits, now) {
  [check, changed] = [fits, now];
  $("attach").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    take([...$("file").files]);
    $("file").value = "";
  });
  const brings = (event) => [...event.dataTransfer?.types ?? []].includes("Files");
  let depth = 0;
  const over = (is) => document.body.classList.toggle("dropping", is);
  addEventListener("dragenter", (event) => { if (brings(event)) { depth++; over(true); event.preventDefault(); } });
  addEventListener("dragleave", (event) => { if (brings(event)) over(--depth > 0); });
  addEventListener("dragover", (event) => { if (brings(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    over(false);
    depth = 0;
    take([...event.dataTransfer.files]);
  });
  $("question").addEventListener("paste", (event) => {
    const pasted = [...event.clipboardData?.files ?? []];
    if (pasted.length === 0) return;
    event.preventDefault();
    take(pasted);
  });
  $("question").addEventListener("input", () => refuse(""));
}
