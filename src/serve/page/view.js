// How messages look: a question, and an answer that grows. It draws what it is given, and calls back when a button is pressed;
// it neither asks the server nor keeps anything.

import { edit } from "./edit.js";
import { button, element } from "./element.js";
import { chip } from "./files.js";
import { copyText, render } from "./markdown.js";
import { figuresInWords } from "./time.js";

const talk = document.getElementById("talk");
const down = document.getElementById("down");

/** Nearer to the end than this, the page follows an answer that grows. (pixels) */
const NEAR = 80;

/** What is said below an answer that did not end by itself. */
const NOTES = {
  stopped: "You stopped this answer.",
  left: "This answer was interrupted before it was complete.",
  cut: "The answer ends here: it reached its longest length.",
  full: "The answer ends here: the context is full.",
  edited: "You edited this answer.",
};

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

/** `‹ 1/2 ›`: which version of a message is shown; `pick(at)` shows another. */
function versionsView(pick) {
  let [at, n] = [0, 1];
  const step = (by, label, text) => {
    const node = button(text, () => pick(at + by), "quiet small step");
    node.setAttribute("aria-label", label);
    return node;
  };
  const [back, on] = [step(-1, "Previous version", "\u2039"), step(1, "Next version", "\u203a")];
  const words = element("span", "which");
  const node = element("span", "versions", back, words, on);
  return {
    node,
    show(of, all) {
      [at, n] = [of, all];
      node.hidden = n < 2;
      words.textContent = `${at + 1}/${n}`;
      words.setAttribute("aria-label", `Version ${at + 1} of ${n}`);
      back.disabled = at === 0;
      on.disabled = at === n - 1;
    },
  };
}

/**
 * A question. `actions`: `send(text)` says it otherwise, `pick(at)` shows another version, `answer()` answers one that has no answer,
 * `remove()` deletes it.
 */
export function questionView(message, { send, pick, answer, remove }) {
  const bubble = element("div", "bubble", message.text);
  const back = button("Edit", begin);
  const copy = button("Copy", () => copyText(message.text, copy));
  const versions = versionsView(pick);
  const ask = button("Answer", answer);
  const actions = element("div", "actions", ask, copy, back, button("Delete", remove), versions.node);
  const node = element("article", "question");
  if (message.files.length) node.append(element("ul", "files", ...message.files.map((file) => chip(file))));
  if (message.text) node.append(bubble);
  node.append(actions);
  node.setAttribute("aria-label", "You");

  function begin() {
    edit({
      old: bubble, next: actions, actions, text: message.text, label: "Edit the question", save: "Send", enterSends: true,
      wants: (text) => Boolean(text || message.files.length), done: send,
    });
  }

  return {
    node,
    settle({ at, n, last, busy }) {
      versions.show(at, n);
      ask.hidden = busy || !last;
    },
  };
}

/**
 * An answer. `actions`: `retry()` answers again, `go()` continues it, `change(text)` keeps it otherwise, `pick(at)` shows another version,
 * `remove()` deletes it.
 */
export function answerView(message, { retry, go, change, pick, remove }) {
  const summary = element("summary", "", "Thoughts");
  const thought = element("details", "thought", summary);
  const thoughtText = element("div", "prose");
  thought.append(thoughtText);
  const text = element("div", "prose");
  const wait = element("div", "wait", element("span", "wait-words"), element("span", "wait-more"), element("span", "wait-bar", element("i")));
  const noteLine = element("p", "note-line");
  const copy = button("Copy", () => copyText(parts(message).said, copy));
  const again = button("Try again", retry);
  const on = button("Continue", go);
  const versions = versionsView(pick);
  const figures = element("span", "rate");
  const rewrite = button("Edit", begin);
  const forget = button("Delete", remove);
  const actions = element("div", "actions", copy, on, again, rewrite, forget, versions.node, figures);
  const missing = element("p", "left-out");
  const alone = element("p", "alone", "The question before this answer was deleted: the answer is left out of the prompt.");
  const node = element("article", "answer", element("h2", "sr", "Answer"), missing, alone, thought, text, wait, noteLine, actions);
  node.setAttribute("aria-label", "Answer");

  let drawing = false;
  let growing = false;
  function draw() {
    drawing = false;
    const { thinking, said } = parts(message);
    thought.hidden = !thinking;
    const open = growing && !said;
    if (thinking) {
      render(thoughtText, thinking, open);
      const words = open ? `Thinking \u00b7 ${thinking.split(/\s+/).length} words \u00b7 ` : "Thoughts";
      summary.replaceChildren(words, ...(open ? [element("span", "last-thought", thinking.trim().split("\n").at(-1).slice(-90))] : []));
    }
    render(text, said, growing);
  }

  const view = {
    node,
    /** The message has grown: shows it with the next frame. */
    grow() {
      growing = true;
      wait.hidden = true;
      if (drawing) return;
      drawing = true;
      requestAnimationFrame(draw);
    },
    /** Says how much of the conversation the model had no room for. */
    leftOut() {
      const n = message.dropped ?? 0;
      missing.hidden = n === 0;
      missing.textContent = n === 1 ? "The context is full: the oldest message is left out from here on." : `The context is full: the oldest ${n} messages are left out from here on.`;
    },
    /** Nothing new is there yet: says why in one or two lines, and how far it is. */
    waiting(words, more = "", part = 0) {
      wait.hidden = false;
      node.setAttribute("aria-busy", "true");
      const [first, second, bar] = wait.children;
      if (first.textContent !== words) first.textContent = words;
      if (second.textContent !== more) second.textContent = more;
      second.hidden = !more;
      bar.firstChild.style.transform = `scaleX(${part})`;
      bar.hidden = part === 0;
    },
    /** It begins, or is over. */
    begin() {
      growing = true;
      node.setAttribute("aria-busy", "true");
      noteLine.hidden = true;
    },
    end() {
      growing = false;
      wait.hidden = true;
      node.removeAttribute("aria-busy");
      draw();
      note();
    },
    /** Which version it is, whether it is the last message, what it comes after, and whether an answer is under way. */
    settle({ at, n, last, busy, after }) {
      versions.show(at, n);
      again.hidden = busy || after !== "user";
      on.hidden = busy || !last || !after || !canGoOn(message);
      rewrite.hidden = forget.hidden = busy;
      alone.hidden = Boolean(after);
      copy.hidden = !message.text;
      actions.hidden = busy && node.hasAttribute("aria-busy");
      again.classList.toggle("framed", last && message.note.startsWith("failed"));
      on.classList.toggle("framed", last && !on.hidden && message.note !== "edited");
    },
  };

  function begin() {
    const { said } = parts(message);
    edit({
      old: text, next: wait, actions, text: said, label: "Edit the answer", save: "Save", enterSends: false,
      wants: Boolean, done: (now) => change(withSaid(message, now)),
    });
  }

  /** How it ended, if not by itself. */
  function note() {
    const failed = message.note.startsWith("failed: ");
    noteLine.textContent = failed ? message.note.slice(8) : NOTES[message.note] ?? "";
    noteLine.hidden = !noteLine.textContent;
    noteLine.classList.toggle("failure", failed);
    noteLine.setAttribute("role", failed ? "alert" : "note");
    figures.textContent = figuresInWords(message.figures);
  }
  wait.hidden = true;
  view.leftOut();
  draw();
  note();
  return view;
}

/** Whether an answer ended before its end, and says something to go on from. */
function canGoOn({ note, text, thought }) {
  return Boolean(text.trim() || thought.trim()) && note !== "";
}

/** A line across the conversation, with `words` in it. */
export function divider(words) {
  return element("p", "divider", words);
}

/** What a model thought, and what it said: some write their thoughts into the answer, between marks. */
function parts({ text, thought }) {
  if (thought) return { thinking: thought, said: text };
  const open = /^\s*<think>/.exec(text);
  if (!open) return { thinking: "", said: text };
  const end = text.indexOf("</think>");
  if (end < 0) return { thinking: text.slice(open[0].length).trim(), said: "" };
  return { thinking: text.slice(open[0].length, end).trim(), said: text.slice(end + "</think>".length).trimStart() };
}

/** The text of an answer that says `said` instead; thoughts that are in it stay. */
function withSaid({ text, thought }, said) {
  const open = thought ? null : /^\s*<think>/.exec(text);
  if (!open) return said;
  const end = text.indexOf("</think>");
  return `${end < 0 ? `${text.trimEnd()}\n` : text.slice(0, end)}</think>\n\n${said}`;
}
