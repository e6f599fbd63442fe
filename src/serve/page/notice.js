// Sentences that appear above the line to write on: what can be undone for a while, and what went wrong for good.

import { button, element } from "./element.js";

/** How long something can be undone. (milliseconds) */
const UNDO = 10_000;

const place = document.getElementById("notices");
const home = document.createComment("notices");
place.before(home);

/** What is said belongs where it can be reached: into a drawer that covers the page, as long as it does. */
function reach() {
  const drawer = document.querySelector("dialog:modal");
  if (!drawer || drawer.contains(place)) return;
  drawer.append(place);
  drawer.addEventListener("close", () => home.after(place), { once: true });
}

/** Says that something was done, and lets it be undone for a while; then `kept` is called. Gives the button that undoes it. */
export function undoable(words, undo, kept = () => {}) {
  const end = (what) => {
    clearTimeout(timer);
    const hadFocus = node.contains(document.activeElement);
    node.remove();
    what();
    if (hadFocus) (place.closest("dialog")?.querySelector("input") ?? document.getElementById("question")).focus();
  };
  const back = button("Undo", () => end(undo), "quiet small");
  const node = element("p", "notice", words, back);
  const timer = setTimeout(() => end(kept), UNDO);
  place.replaceChildren(...place.querySelectorAll(".lasting"), node);
  reach();
  return back;
}

/** Says what is wrong until it is not: one sentence of each `kind`. */
export function lasting(kind, words) {
  const before = place.querySelector(`.lasting[data-kind="${kind}"]`);
  if (!words) return before?.remove();
  if (before?.firstChild.textContent === words) return undefined;
  const node = element("p", "notice lasting", words, button("Close", () => node.remove(), "quiet small"));
  node.dataset.kind = kind;
  node.setAttribute("role", "alert");
  before?.remove();
  place.prepend(node);
  return undefined;
}
