// The key that a server may ask for.

import { setKey } from "./api.js";

const $ = (id) => document.getElementById(id);

let asking = null;
/** Whether nobody wanted to give a key: then it is asked for again only when an answer needs it. */
let declined = false;
let tried = false;
/** Tells those who wait that there is a key. */
let given = () => {};
let listener = () => {};

export const isDeclined = () => declined;

/** Until somebody gives a key. */
export const untilGiven = () => new Promise((resume) => { given = resume; });

/** Calls `then` whenever a key was given. */
export function whenKeyGiven(then) {
  listener = then;
}

/** A request was let in: what was shown is the key. */
export function accepted() {
  tried = false;
}

/** Asks for the key; `again` if it is needed for an answer. */
export function askKey(again) {
  asking ??= new Promise((resume) => {
    const dialog = $("key");
    $("key-wrong").hidden = !tried;
    if (again && !tried) $("key-why").textContent = "The server now asks for a key.";
    declined = true;
    dialog.addEventListener("close", () => { asking = null; resume(); }, { once: true });
    dialog.showModal();
  });
  return asking;
}

$("key-form").addEventListener("submit", () => {
  setKey($("key-value").value.trim());
  $("key-value").value = "";
  declined = false;
  tried = true;
  given();
  queueMicrotask(listener);
});
$("key-cancel").addEventListener("click", () => $("key").close());
