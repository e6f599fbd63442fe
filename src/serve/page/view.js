// How messages look: a question, and an answer that grows. It draws what it is given, and calls back when a button is pressed;
// it neither asks the server nor keeps anything.

import { copyText, render } from "./markdown.js";

const talk = document.getElementById("talk");
const down = document.getElementById("down");

/** Nearer to the end than this, the page follows an answer that grows. (pixels) */
const NEAR = 80;

/** What is said below an answer that did not end by itself. */
const NOTES = {
  stopped: "You stopped this answer.",
  left: "The page was left before this answer was complete.",
  cut: "The answer ends here because it may not be longer.",
};

function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function button(label, action, className = "quiet small") {
  const node = element("button", className, label);
  node.type = "button";
  node.addEventListener("click", action);
  return node;
}

// --- following what grows

let following = true;
let scheduled = false;

function nearEnd() {
  return talk.scrollHeight - talk.scrollTop - talk.clientHeight < NEAR;
}

/** Keeps the end in sight if it was; or if `force`, always. */
export function follow(force = false) {
  if (force) following = true;
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    if (following) talk.scrollTop = talk.scrollHeight;
    down.hidden = following || nearEnd();
  });
}

let top = 0;
let readerUntil = 0;

const BACK = ["ArrowUp", "Home", "PageUp"];

/** What readers scroll by: a text that gets shorter for a moment moves the page up, too. Each counts for a while. (milliseconds) */
function hand(kind, span, counts = () => true) {
  const listen = (event) => { if (counts(event)) readerUntil = performance.now() + span; };
  addEventListener(kind, listen, { passive: true });
}
hand("wheel", 1000);
hand("touchmove", 2000);
hand("keydown", 1000, (event) => BACK.includes(event.key));
hand("pointerdown", 10000, (event) => event.target === talk);

talk.addEventListener("scroll", () => {
  // Only a reader moves up; the end moves away by itself while an answer grows.
  if (nearEnd()) following = true;
  else if (talk.scrollTop < top && performance.now() < readerUntil) following = false;
  top = talk.scrollTop;
  down.hidden = following;
}, { passive: true });

new ResizeObserver(() => follow()).observe(talk);

// --- messages

/** A question: `edit` takes it back. */
export function questionView(message, { edit }) {
  const back = button("Edit", edit);
  const node = element("article", "question", element("div", "bubble", message.content), element("div", "actions", back));
  node.setAttribute("aria-label", "You");
  return { node, last() {} };
}

/** An answer: `retry` draws it again. */
export function answerView(message, { retry }) {
  const thought = element("details", "thought", element("summary", "", "Thoughts"));
  const thoughtText = element("div", "prose");
  thought.append(thoughtText);
  const text = element("div", "prose");
  const wait = element("div", "wait", element("span", "wait-words"), element("span", "wait-bar", element("i")));
  const noteLine = element("p", "note-line");
  const copy = button("Copy", () => copyText(message.content, copy));
  const again = button("Try again", retry);
  const figures = element("span", "rate");
  const actions = element("div", "actions", copy, again, figures);
  const node = element("article", "answer", thought, text, wait, noteLine, actions);
  node.setAttribute("aria-label", "Answer");

  let drawing = false;
  function draw() {
    drawing = false;
    const { thinking, said } = parts(message);
    thought.hidden = !thinking;
    if (thinking) render(thoughtText, thinking);
    thought.classList.toggle("open-ended", !said && Boolean(thinking));
    render(text, said);
  }

  const view = {
    node,
    /** The message has grown: shows it with the next frame. */
    grow() {
      wait.hidden = true;
      if (drawing) return;
      drawing = true;
      requestAnimationFrame(draw);
    },
    /** Nothing is there yet: says why, how far it is, and for how long. */
    waiting(words, part = 0, seconds = 0) {
      wait.hidden = false;
      node.setAttribute("aria-busy", "true");
      wait.firstChild.textContent = seconds > 2 ? `${words} · ${seconds} s` : words;
      wait.lastChild.firstChild.style.transform = `scaleX(${part})`;
      wait.lastChild.hidden = part === 0;
    },
    /** It is over; `summary` says how fast it was. */
    end(summary) {
      wait.hidden = true;
      node.removeAttribute("aria-busy");
      figures.textContent = summary;
      draw();
    },
    /** How it ended, if not by itself. */
    note(note) {
      const failed = note?.startsWith("failed: ");
      noteLine.textContent = failed ? note.slice(8) : NOTES[note] ?? "";
      noteLine.hidden = !noteLine.textContent;
      noteLine.classList.toggle("failure", Boolean(failed));
      noteLine.setAttribute("role", failed ? "alert" : "note");
      again.classList.toggle("framed", Boolean(failed));
    },
    /** Whether it is the last message of a conversation at rest: only then it can be drawn again. */
    last(is, busy) {
      again.hidden = !is;
      copy.hidden = !message.content;
      actions.hidden = busy && node.hasAttribute("aria-busy");
    },
  };
  wait.hidden = true;
  draw();
  view.note(message.note);
  return view;
}

/** What a model thought, and what it said: some write their thoughts into the answer, between marks. */
function parts({ content, thought }) {
  if (thought) return { thinking: thought, said: content };
  const open = /^\s*<think>/.exec(content);
  if (!open) return { thinking: "", said: content };
  const end = content.indexOf("</think>");
  if (end < 0) return { thinking: content.slice(open[0].length).trim(), said: "" };
  return { thinking: content.slice(open[0].length, end).trim(), said: content.slice(end + "</think>".length).trimStart() };
}
