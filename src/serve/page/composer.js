// The line to write on: what is typed, files that go with it, and what waits until an answer ends.

import { post } from "./api.js";
import * as asking from "./asking.js";
import * as talk from "./conversation.js";
import * as files from "./files.js";
import * as live from "./live.js";
import * as store from "./store.js";
import * as tree from "./tree.js";
import { follow } from "./view.js";

const $ = (id) => document.getElementById(id);

/** What is asked when the answer under way ends. */
let queued = "";

/** Shows what can be done: send, or stop; and what waits. */
export function settled(busy) {
  $("send").setAttribute("aria-label", busy ? "Stop" : "Send");
  $("queued").hidden = !queued;
  $("queued-text").textContent = queued;
  sendable();
}

function sendable() {
  $("send").disabled = !asking.running() && !$("question").value.trim() && files.attached().length === 0;
}

function grow() {
  const area = $("question");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
  store.saveDraft(area.value);
  sendable();
}

/** Puts `text` on the line. */
export function fill(text) {
  $("question").value = text;
  grow();
  $("question").focus();
}

/** Sends what is written; while an answer comes, after it. */
function submit() {
  const text = $("question").value.trim();
  if (!text && files.attached().length === 0) return;
  if (asking.running()) {
    // Files wait with what they belong to.
    if (files.attached().length || !text) return;
    queued = [queued, text].filter(Boolean).join("\n\n");
    fill("");
    return talk.settle();
  }
  const taken = files.takeFiles();
  fill("");
  asking.ask(text, taken);
}

/** Nothing waits any more; what did is on the line again. */
function takeBack() {
  const text = queued;
  queued = "";
  fill([text, $("question").value].filter(Boolean).join("\n\n"));
  talk.settle();
}

/** Forgets what waits: another conversation is opened. */
export function forget() {
  queued = "";
}

/** An answer has ended: asks what waits, if it ended `well`. */
function over(well) {
  if (!queued) return;
  if (!well) return takeBack();
  const text = queued;
  queued = "";
  asking.ask(text);
}

/** Why `list` does not fit into a question; nothing if it does. */
async function fits(list) {
  const messages = [{ role: "user", content: tree.asText({ text: "", files: list }) }];
  if (talk.chat.system) messages.unshift({ role: "system", content: talk.chat.system });
  let count;
  try { count = await post("/api/airrun/count", { messages, ...(live.model() && { model: live.model() }) }); } catch (error) { return error.message; }
  const room = Math.floor(count.n_ctx * 7 / 8);
  return count.tokens > room ? `it makes ${count.tokens} tokens, and of the context's ${count.n_ctx} a question may have ${room}.` : "";
}

/** Listens to keys, buttons and files. */
export function listen() {
  asking.whenOver(over);
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (asking.running()) asking.running().run.stop();
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
    if (event.key === "Escape" && asking.running() && !document.querySelector("dialog:modal")) {
      event.preventDefault();
      asking.running().run.stop();
      $("question").focus();
    }
  });
  $("unqueue").addEventListener("click", takeBack);
  $("down").addEventListener("click", () => follow(true));
  files.listen(fits, sendable);
}
