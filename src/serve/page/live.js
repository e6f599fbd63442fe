// What the server is doing, as it tells ten times a second: for the header, the strip of blocks, and whoever waits for an answer.

import { get, stream } from "./api.js";
import * as blocks from "./blocks.js";
import { size } from "./size.js";
import { accepted, askKey, isDeclined, untilGiven } from "./key.js";
import { binds } from "./time.js";

const $ = (id) => document.getElementById(id);

/** How long the page waits before it asks again for a server that is not there. (milliseconds) */
const AGAIN = 1500;

/** What binds is told from what happened for so long. (milliseconds) */
const WINDOW = 6000;

let status = null;
let now = null;
let samples = [];

export const model = () => status?.model ?? "";

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
      status = await get("/api/airrun/status");
      accepted();
      now = status.now ?? null;
      blocks.show(status);
      $("plan").dataset.live = "yes";
      headline(status.title || status.model, blocks.planInWords());
      $("model").title = [status.architecture, status.quantisation, status.bytes && size(status.bytes)].filter(Boolean).join(", ");
      $("welcome").textContent = welcome();
      document.body.classList.remove("away");
      told(status);
      for await (const { event } of stream("/api/airrun/events", { endless: true })) {
        take(event);
        tick();
        if (document.hidden) break;
      }
    } catch (error) {
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
