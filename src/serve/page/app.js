// The page: a conversation with the model that the server has. It holds what was said, asks for answers and shows them as they
// come; how they look is in `view.js`, what the server is doing meanwhile in `blocks.js`.

import * as blocks from "./blocks.js";
import { Failure, get, setKey, stream } from "./api.js";
import { loadSettings, loadTalk, NUMBERS, saveSettings, saveTalk } from "./store.js";
import { answerView, follow, questionView } from "./view.js";

const $ = (id) => document.getElementById(id);

/** Questions for a beginning that any model can try. */
const IDEAS = ["Explain how a heat pump works, in three sentences.", "Write a haiku about slow disks.", "What should I cook with lentils and lemons?"];

/** How long the page waits before it asks again for a server that is not there. (milliseconds) */
const AGAIN = 1500;

/** How often a growing answer is kept. (milliseconds) */
const KEEP = 1000;

let talk = loadTalk();
let settings = loadSettings();
let views = [];
let model = "";
let now = null;
/** The answer under way: its message, and how to end it. */
let running = null;
/** Whether the page is being left, which breaks connections that are nobody's fault. */
let leaving = false;

// --- the conversation

function show() {
  views = talk.map((message, at) => message.role === "user" ? questionView(message, { edit: () => edit(at) }) : answerView(message, { retry: () => retry(at) }));
  $("messages").replaceChildren(...views.map((view) => view.node));
  settle();
}

/** What depends on the conversation as a whole. */
function settle() {
  $("empty").hidden = talk.length > 0;
  document.body.classList.toggle("busy", running !== null);
  $("send").setAttribute("aria-label", running ? "Stop" : "Send");
  $("send").disabled = !running && !$("question").value.trim();
  $("fresh").disabled = talk.length === 0;
  views.forEach((view, at) => view.last(at === views.length - 1 && !running, running !== null));
}

function add(message) {
  const at = talk.length;
  const view = message.role === "user"
    ? questionView(message, { edit: () => edit(at) })
    : answerView(message, { retry: () => retry(at) });
  talk.push(message);
  views.push(view);
  $("messages").append(view.node);
  return view;
}

function cut(from) {
  talk.length = from;
  for (const view of views.splice(from)) view.node.remove();
}

/** Asks `text`. */
function ask(text) {
  add({ role: "user", content: text });
  saveTalk(talk);
  answer();
}

/** Draws the answer at `at` again. */
function retry(at) {
  if (running) return;
  cut(at);
  answer();
}

/** Takes the question at `at` back, to be said otherwise. */
function edit(at) {
  if (running) return;
  const { content } = talk[at];
  cut(at);
  saveTalk(talk);
  settle();
  fill(content);
}

function fill(text) {
  $("question").value = text;
  grow();
  $("question").focus();
}

/** The request for an answer to what was said. */
function request() {
  const messages = talk.filter((m) => m.content).map(({ role, content }) => ({ role, content }));
  if (settings.system) messages.unshift({ role: "system", content: settings.system });
  const body = { messages, stream: true, stream_options: { include_usage: true } };
  if (model) body.model = model;
  for (const name of NUMBERS) if (settings[name] !== undefined) body[name] = settings[name];
  return body;
}

async function answer() {
  const body = request();
  // Until the answer is complete, it is one that was left: that is what a reload finds.
  const message = { role: "assistant", content: "", note: "left", thought: "" };
  const view = add(message);
  const end = new AbortController();
  running = { end, view, begin: performance.now(), first: 0, last: 0, pieces: 0, tokens: 0 };
  const run = running;
  settle();
  view.note("");
  view.waiting("Waiting for the model");
  follow(true);
  const keep = setInterval(() => saveTalk(talk), KEEP);
  try {
    for await (const event of stream("/v1/chat/completions", { body, signal: end.signal })) take(event, message, run);
    view.end(summary(run));
    message.note = run.cut ? "cut" : "";
    if (!message.content && !message.thought) throw new Failure("The model said nothing.");
    say(message.content);
  } catch (error) {
    if (leaving) return;
    if (end.signal.aborted) {
      message.note = "stopped";
      view.end(summary(run));
      say("Stopped.");
    } else {
      message.note = `failed: ${error.message}`;
      view.end("");
      if (error.status === 401) askKey(true);
    }
  } finally {
    clearInterval(keep);
    if (running === run) running = null;
    view.note(message.note);
    saveTalk(talk);
    settle();
    follow();
  }
}

/** Takes one event of the stream. */
function take(event, message, run) {
  const choice = event.choices?.[0];
  const delta = choice?.delta ?? {};
  const thought = delta.reasoning_content ?? delta.reasoning ?? "";
  if (delta.content || thought) {
    run.last = performance.now();
    run.first ||= run.last;
    run.pieces++;
    message.content += delta.content ?? "";
    message.thought += thought;
    run.view.grow();
    follow();
  }
  if (choice?.finish_reason === "length") run.cut = true;
  if (event.usage?.completion_tokens) run.tokens = event.usage.completion_tokens;
}

/** `42 tokens, 3.1 tokens/s; the first after 2.4 s`. The first token comes with the prompt, so it is no part of the rate. */
function summary(run) {
  const tokens = run.tokens || run.pieces;
  if (!tokens || !run.first) return "";
  const seconds = (run.last - run.first) / 1000;
  // What comes in one go was not timed by its arrival.
  const rate = seconds > 0.02 && tokens > 1 ? `${((tokens - 1) / seconds).toFixed(1)} tokens/s` : "";
  const wait = `the first after ${((run.first - run.begin) / 1000).toFixed(1)} s`;
  return [`${tokens} token${tokens === 1 ? "" : "s"}`, rate, wait].filter(Boolean).join(" · ");
}

/** Tells those who hear the page: an answer when it is complete, not word by word. */
function say(text) {
  $("status").textContent = text.length > 600 ? `${text.slice(0, 600)} …` : text;
}

function stop() {
  running?.end.abort();
}

// --- what the server is doing

/** While nothing is printed yet: how far the prompt is. */
function progress() {
  if (!running || running.first) return;
  const seconds = Math.round((performance.now() - running.begin) / 1000);
  const place = blocks.position(now);
  if (now?.waiting > 0 && !(now.running > 0)) running.view.waiting("Waiting for its turn", 0, seconds);
  else if (place) running.view.waiting(`Reading the prompt: block ${place[0]} of ${place[1]}`, place[0] / place[1], seconds);
  else running.view.waiting("Reading the prompt", 0, seconds);
}

function headline(title, words) {
  $("model").textContent = title;
  $("plan").textContent = words;
}

async function watch() {
  for (;;) {
    try {
      const status = await get("/api/airrun/status");
      model = status.model ?? "";
      now = status.now ?? null;
      document.title = `${model || "airrun"} · airrun`;
      blocks.show(status);
      $("plan").dataset.live = "yes";
      headline(status.title || model, blocks.planInWords());
      $("model").title = [status.architecture, status.quantisation, status.bytes && blocks.size(status.bytes)].filter(Boolean).join(", ");
      $("welcome").textContent = welcome(status);
      document.body.classList.remove("away");
      for await (const event of stream("/api/airrun/events")) {
        now = event;
        blocks.update(event);
        progress();
        if (document.hidden) break;
      }
    } catch (error) {
      await away(error);
    }
    await pause(document.hidden ? 0 : AGAIN / 3);
    if (document.hidden) await seen();
  }
}

function welcome(status) {
  const streams = (status.plan?.units ?? []).length > 0;
  const runs = streams
    ? "It is larger than the memory it may use, so its blocks stream through it while it answers: the strip above shows how."
    : "It runs on this machine and nowhere else.";
  return `${status.title || status.model} is ready. ${runs}`;
}

async function away(error) {
  $("plan").dataset.live = "no";
  document.body.classList.add("away");
  if (error.status === 401) {
    headline("airrun", "needs a key");
    if (!declined) await askKey(false);
    if (declined) await new Promise((resume) => { given = resume; });
    return;
  }
  const loading = error.status === 503;
  headline($("model").textContent, loading ? "the model is being loaded …" : "the server does not answer; trying again …");
  await pause(AGAIN);
}

const pause = (time) => new Promise((resume) => { setTimeout(resume, time); });

/** Until somebody looks at the page again. */
function seen() {
  return new Promise((resume) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resume();
    };
    document.addEventListener("visibilitychange", look);
    look();
  });
}

// --- the key

let asking = null;
/** Whether nobody wanted to give a key: then the page asks again only when it is needed for an answer. */
let declined = false;
/** Tells those who wait for a key that there is one. */
let given = () => {};

/** Asks for the key; `wrong` if the last one was refused in the middle of a conversation. */
function askKey(wrong) {
  asking ??= new Promise((resume) => {
    const dialog = $("key");
    if (wrong) $("key-why").textContent = "The server refuses the key that it was shown.";
    declined = true;
    const done = () => { asking = null; resume(); };
    dialog.addEventListener("close", done, { once: true });
    dialog.showModal();
  });
  return asking;
}

$("key-form").addEventListener("submit", () => {
  setKey($("key-value").value.trim());
  $("key-value").value = "";
  declined = false;
  given();
  const last = talk.at(-1);
  if (last?.note?.startsWith("failed") && !last.content) queueMicrotask(() => retry(talk.length - 1));
});
$("key-cancel").addEventListener("click", () => $("key").close());

// --- settings

function openSettings() {
  const form = $("settings").querySelector("form");
  form.elements.system.value = settings.system ?? "";
  for (const name of NUMBERS) form.elements[name].value = settings[name] ?? "";
  $("settings").showModal();
}

function keepSettings() {
  const { elements } = $("settings").querySelector("form");
  settings = {};
  if (elements.system.value.trim()) settings.system = elements.system.value.trim();
  for (const name of NUMBERS) {
    const input = elements[name];
    if (input.value !== "" && input.validity.valid) settings[name] = input.valueAsNumber;
  }
  saveSettings(settings);
}

$("open-settings").addEventListener("click", openSettings);
$("settings").addEventListener("close", keepSettings);
$("settings").addEventListener("click", (event) => {
  if (event.target === $("settings")) $("settings").close();
});
$("reset").addEventListener("click", () => {
  for (const input of $("settings").querySelectorAll("input, textarea")) input.value = "";
});

// --- the composer

function grow() {
  const area = $("question");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
  $("send").disabled = !running && !area.value.trim();
}

function submit() {
  const text = $("question").value.trim();
  if (running) return stop();
  if (!text) return;
  $("question").value = "";
  ask(text);
  grow();
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("question").addEventListener("input", grow);
$("question").addEventListener("keydown", (event) => {
  const plain = event.key === "Enter" && !event.shiftKey && !event.altKey && !event.ctrlKey && !event.metaKey;
  // Enter may also choose a word of an input method.
  if (!plain || event.isComposing || running) return;
  event.preventDefault();
  submit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    stop();
    $("question").focus();
  }
});
$("fresh").addEventListener("click", () => {
  stop();
  cut(0);
  saveTalk(talk);
  settle();
  $("question").focus();
});
$("down").addEventListener("click", () => follow(true));
addEventListener("pagehide", () => {
  leaving = true;
  saveTalk(talk);
});
addEventListener("pageshow", () => { leaving = false; });

$("ideas").append(...IDEAS.map((idea) => {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = idea;
  button.addEventListener("click", () => fill(idea));
  item.append(button);
  return item;
}));

show();
grow();
follow(true);
watch();
