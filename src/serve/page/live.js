// What the server is doing, as it tells ten times a second: for the header, the strip of blocks, and whoever waits for an answer.

import { get, stream } from "./api.js";
import * as blocks from "./blocks.js";
import * as experts from "./experts.js";
import { size } from "./size.js";
import { accepted, askKey, isDeclined, untilGiven } from "./key.js";
import { binds } from "./time.js";
import { lasting } from "./notice.js";

const $ = (id) => document.getElementById(id);

/** How long the page waits before it asks again for a server that is not there. (milliseconds) */
const AGAIN = 1500;

/** What binds is told from what happened for so long. (milliseconds) */
const WINDOW = 6000;

let status = null;
let now = null;
let samples = [];

export const model = () => chosen || (status?.model ?? "");

/** Where a server has several models: the one that is asked, or nothing. */
let chosen = "";

/** `path`, for the model that is asked. */
export const forModel = (path) => chosen ? `${path}${path.includes("?") ? "&" : "?"}model=${encodeURIComponent(chosen)}` : path;

/** Lets one of several models be chosen. */
async function offer() {
  const { data = [] } = await get("/v1/models");
  const names = data.map(({ id }) => id);
  const select = $("models");
  select.hidden = names.length < 2;
  $("model").classList.toggle("sr", names.length > 1);
  if (names.length < 2) { chosen = ""; return; }
  if (!names.includes(chosen)) chosen = names.includes(remembered()) ? remembered() : names[0];
  if ([...select.options].map(({ value }) => value).join("\n") !== names.join("\n")) {
    select.replaceChildren(...names.map((name) => new Option(name, name)));
  }
  select.value = chosen;
}

function remembered() {
  try { return localStorage.getItem("airrun.model") ?? ""; } catch { return ""; }
}

/** Ends the stream of events, so that another one begins. */
let again = new AbortController();

$("models").addEventListener("change", () => {
  chosen = $("models").value;
  try { localStorage.setItem("airrun.model", chosen); } catch { /* until the page is left */ }
  again.abort();
});

/** Tokens that a conversation may have; 0 where nobody knows. */
export const context = () => status?.plan?.n_ctx_per_request ?? status?.plan?.n_ctx ?? 0;

/** What goes on: the last event, the block that is computed as `[12, 60]`, and what holds the model back. */
export function state() {
  return { now, block: blocks.position(now), binds: (status?.plan?.units ?? []).length ? binds(samples[0], samples.at(-1)) : "" };
}

function take(event) {
  now = event;
  const at = performance.now();
  samples.push({ at, stall_seconds: event.stall_seconds ?? 0 });
  if (!(event.running > 0)) samples = samples.slice(-1);
  while (samples.length > 2 && at - samples[0].at > WINDOW) samples.shift();
  blocks.update(event, state().binds);
}

function headline(title, words) {
  $("model").textContent = title;
  $("plan").textContent = words;
}

/** Listens for ever; `tick()` is called with every event, `told(status)` when the server says what it has. */
export async function watch({ tick, status: told }) {
  for (;;) {
    try {
      again = new AbortController();
      await offer();
      status = await get(forModel("/api/airrun/status"), again.signal);
      accepted();
      lasting("model", (status.warnings ?? []).join(" "));
      now = status.now ?? null;
      blocks.show(status);
      experts.show(status, forModel("/api/airrun/experts"));
      $("plan").dataset.live = "yes";
      headline(status.title || status.model, blocks.planInWords());
      $("model").title = [status.architecture, status.quantisation, status.bytes && size(status.bytes)].filter(Boolean).join(", ");
      $("welcome").textContent = welcome();
      document.body.classList.remove("away");
      told(status);
      for await (const { event } of stream(forModel("/api/airrun/events"), { endless: true, signal: again.signal })) {
        take(event);
        tick();
        if (document.hidden) break;
      }
    } catch (error) {
      if (again.signal.aborted) continue;
      tick();
      await away(error);
    }
    await pause(document.hidden ? 0 : AGAIN / 3);
    if (document.hidden) await seen();
  }
}

function welcome() {
  const streams = (status.plan?.units ?? []).length > 0;
  const runs = streams
    ? "It is larger than the memory it may use, so its blocks stream from disk while it answers. The strip above shows how."
    : "It runs on this machine and nowhere else.";
  return `${status.title || status.model} is ready. ${runs}`;
}

async function away(error) {
  $("plan").dataset.live = "no";
  document.body.classList.add("away");
  if (error.status === 401) {
    headline("airrun", "needs a key");
    if (!isDeclined()) await askKey(false);
    if (isDeclined()) await untilGiven();
    return;
  }
  const loading = error.status === 503;
  if (loading && chosen) {
    // It is loaded for the first question.
    [status, now] = [null, null];
    document.body.classList.remove("away");
    $("blocks").hidden = true;
    headline(chosen, "is loaded when you ask");
    $("welcome").textContent = `${chosen} is loaded with your first question.`;
    await pause(AGAIN);
    return;
  }
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
