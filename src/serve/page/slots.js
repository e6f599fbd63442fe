// The slots through which blocks stream, as boxes that fill and empty, and the sum that says how fast a token can be. It draws; what
// goes on comes from `blocks.js`.

import { size } from "./size.js";

const $ = (id) => document.getElementById(id);

/** More boxes than this would not be read. */
const MOST = 8;

let plan = null;
/** The unit in each slot, or -1. */
let held = [];
let boxes = [];
/** When the pass under way began, and how it stood then. */
let begun = null;
/** Seconds that the last pass computed and waited, the bytes that it read, and the tokens that it brought. */
let last = null;

/** `53 · gate` for `block 53 (ffn_gate_exps.weight)`. */
export function short(name) {
  const found = /^block (\d+)(?: \((.*)\))?$/.exec(name);
  if (!found) return name;
  const part = found[2]?.replace(/\.weight\b/g, "").replace(/ffn_|_exps/g, "").replace(/attn_output/, "output").replace(/attn_/, "");
  return part ? `${found[1]} \u00b7 ${part}` : `block ${found[1]}`;
}

/** Shows the slots that `of` has. */
export function show(of) {
  plan = of;
  const n = (plan.units ?? []).length ? Math.min(plan.n_slots ?? 0, MOST) : 0;
  held = Array(n).fill(-1);
  boxes = held.map((_, at) => {
    const node = document.createElement("li");
    const [name, what] = [document.createElement("span"), document.createElement("b")];
    name.textContent = `slot ${at + 1}`;
    what.textContent = "empty";
    node.className = "slot";
    node.append(name, what);
    return node;
  });
  $("slots").replaceChildren(...boxes);
  $("slots").hidden = n === 0;
  $("formula").hidden = n === 0;
  [begun, last] = [null, null];
}

/** Shows what the slots hold: a unit stays where it was first seen. */
export function draw(states) {
  held = held.map((unit) => unit >= 0 && states[unit] && states[unit] !== "idle" ? unit : -1);
  states.forEach((state, unit) => {
    if (state === "idle" || held.includes(unit)) return;
    const free = held.indexOf(-1);
    if (free >= 0) held[free] = unit;
  });
  held.forEach((unit, at) => {
    const state = unit < 0 ? "empty" : states[unit];
    const words = unit < 0 ? "empty" : short(plan.units[unit].name);
    if (boxes[at].dataset.state !== state) boxes[at].dataset.state = state;
    if (boxes[at].lastChild.textContent !== words) boxes[at].lastChild.textContent = words;
  });
}

/** Takes what goes on into account: how long passes compute and wait. */
export function take(now, busy, fastest, binds) {
  const at = performance.now();
  if (!busy) begun = null;
  else if (!begun || now.passes !== begun.passes) {
    // Passes of a prompt, of which the last one brings a token, too, are longer than those of tokens.
    const writes = Boolean(begun) && now.tokens > begun.tokens;
    if (writes && begun.writes && now.passes === begun.passes + 1) {
      last = { seconds: (at - begun.at) / 1000, waited: now.stall_seconds - begun.stall, bytes: now.streamed_bytes - begun.bytes, tokens: now.tokens - begun.tokens };
    }
    begun = { passes: now.passes, at, stall: now.stall_seconds, bytes: now.streamed_bytes, tokens: now.tokens, writes };
  }
  if (!plan || $("formula").hidden || $("blocks-more").hidden) return;
  const words = formula(now, fastest, binds);
  if ($("formula").textContent !== words) $("formula").textContent = words;
}

/**
 * `3.3 GB a token ÷ 1.6 GB/s = 2.0 s to read; 0.5 s to compute → 0.5 tokens/s, limited by the disk`; where it is not, the disk reads no
 * faster than is computed, and its rate says nothing: `3.3 GB a token, read in time; 2.5 s to compute → 0.4 tokens/s, limited by computing`.
 */
function formula(now, fastest, binds) {
  // Of a mixture, a token reads those experts that it uses and that are not there.
  const all = plan.streamed_bytes ?? plan.units.reduce((sum, unit) => sum + unit.bytes, 0);
  const bytes = plan.experts ? last?.bytes ?? 0 : all;
  if (!bytes) return "";
  const read = fastest > 0 ? bytes / fastest : 0;
  const inTime = binds === "computing" ? ", read in time" : read ? ` \u00f7 ${size(fastest, "/s")} = ${seconds(read)} to read` : "";
  // With drafts, or for several requests, a pass brings more than one.
  const tokens = last?.tokens > 1 ? `pass of ${last.tokens} tokens` : "token";
  const parts = [`${size(bytes)} a ${tokens}${inTime}`];
  const compute = last ? Math.max(0, last.seconds - last.waited) : 0;
  if (compute > 0) parts.push(`${seconds(compute)} to compute`);
  // The same pass, so that the sum comes out; a fast one is over between two looks at it.
  const rate = last?.seconds > 0.5 ? Math.max(1, last.tokens) / last.seconds : now.tokens_per_second ?? 0;
  const speed = rate > 0 ? ` \u2192 ${rate >= 9.95 ? Math.round(rate) : rate.toPrecision(2)} tokens/s` : "";
  const limit = speed && binds ? `, limited by ${binds === "computing" ? "computing" : "the disk"}` : "";
  return `${parts.join("; ")}${speed}${limit}`;
}

function seconds(value) {
  return value >= 0.995 ? `${value.toFixed(1)} s` : `${Math.round(1000 * value)} ms`;
}
