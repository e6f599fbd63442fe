// The live picture of the model's blocks: which are in memory, and what happens to those that stream. It draws what the server
// tells ten times a second, and teaches how streaming works; it asks for nothing itself.

import { look } from "./experts.js";
import { size } from "./size.js";
import * as slots from "./slots.js";

const $ = (id) => document.getElementById(id);

/** How the tiers are called, in the order in which they are counted. */
const TIERS = ["resident", "cpu", "host", "streamed"];
const PLACES = {
  resident: "in RAM",
  device: "in GPU memory",
  cpu: "in RAM, for the CPU",
  host: "from RAM",
  streamed: "from disk",
};

/** What a cell of the strip can show. */
const STATES = {
  resident: "in memory, always",
  partly: "partly in memory",
  held: "in RAM",
  idle: "on disk",
  reading: "being read",
  ready: "waiting in a slot",
  computing: "computing",
};
/** Of a block whose parts do different things, this is shown: the last that applies. */
const RANKS = ["idle", "held", "ready", "reading", "computing"];

/** Rates of the last twelve seconds, ten a second. */
const HISTORY = 120;

/** More blocks than this begin a new row, and what a block needs at least, with the gap. (pixels) */
const PER_ROW = 96;
const LEAST = 4;

/** A cell for each streamed unit; where there is no room for those, all units of a block share one. */
let cells = [];
/** Whether they do. */
let coarse = false;
/** The block that was computed last in this pass. */
let reached = 0;
/** What the cells show while nothing happens to their units. */
let rests = [];
let rates = [];
let plan = null;
let fastest = 0;

/** How many experts each block of a mixture has, if they come one by one. */
let nExperts = 0;

/** Whether a GPU computes: then what is resident is in its memory. */
let gpu = false;

/** How many of the model's blocks live where: `[["in RAM", 12], ["partly from disk", 20], ["from disk", 48]]`. */
function counts(blocks) {
  const found = new Map();
  const rank = ({ tier, partly }) => 2 * ((TIERS.indexOf(tier) + TIERS.length + 1) % (TIERS.length + 1)) - (partly ? 1 : 0);
  for (const block of [...blocks].sort((a, b) => rank(a) - rank(b))) {
    const where = place(block);
    found.set(where, (found.get(where) ?? 0) + 1);
  }
  return [...found];
}

function place({ tier, partly, device }) {
  if (device) return `on ${device}`;
  const where = PLACES[tier === "resident" && gpu ? "device" : tier] ?? tier;
  return partly ? `partly ${where}` : where;
}

const streams = (tier) => tier === "host" || tier === "streamed";

/** The plan in words: `12 of 80 blocks in RAM, the rest from disk at 2.1 GB/s`. */
export function planInWords() {
  if (!plan) return "";
  const total = plan.blocks.length;
  const places = counts(plan.blocks);
  let [last] = places.pop() ?? [""];
  // Of a mixture, what is read of a block are the experts that a token uses.
  if (plan.experts && last === PLACES.streamed) last = "with experts from disk";
  const rate = plan.blocks.some(({ tier }) => streams(tier)) ? atRate() : "";
  if (places.length === 0) return `all ${total} blocks ${last}${rate}`;
  const parts = places.map(([where, n], i) => i === 0 ? `${n} of ${total} blocks ${where}` : `${n} ${where}`);
  return `${parts.join(", ")}, the rest ${last}${rate}`;
}

function atRate() {
  return fastest > 0 ? ` at ${size(fastest, "/s")}` : "";
}

/** Shows the model's blocks as `status` has them. */
export function show(status) {
  plan = status.plan;
  nExperts = plan.experts ? status.experts?.[0]?.experts.length ?? 0 : 0;
  const units = plan.units ?? [];
  gpu = Boolean(plan.gpu);
  rests = units.map(({ block }) => plan.blocks[block]?.tier === "host" ? "held" : "idle");
  $("blocks").hidden = plan.blocks.length === 0;
  layOut();
  legend();
  teach(units);
  slots.show(plan);
  if (status.now) update(status.now);
}

/** As many rows as blocks need to be seen; their parts are drawn where these can be seen, too. */
function layOut() {
  const { blocks } = plan;
  const units = plan.units ?? [];
  const strip = $("strip");
  const width = strip.clientWidth || 600;
  const perRow = Math.max(8, Math.min(PER_ROW, blocks.length > 48 && width < 480 ? Math.ceil(blocks.length / 2) : blocks.length, Math.floor(width / LEAST)));
  const rows = Math.max(1, Math.ceil(blocks.length / perRow));
  const columns = Math.ceil(blocks.length / rows);
  const parts = Math.max(1, ...blocks.map((_, at) => units.filter((unit) => unit.block === at).length));
  coarse = width / columns / parts < 3;
  strip.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
  strip.classList.toggle("dense", columns > 48 || width < 400);
  cells = units.map(() => cell("idle", ""));
  strip.replaceChildren(...blocks.map((block, at) => drawBlock(block, units.flatMap((unit, i) => unit.block === at ? [i] : []))));
}

function drawBlock(block, units) {
  const node = document.createElement("span");
  node.className = "block";
  if (units.length === 0) node.append(cell("resident", block.name, block.bytes));
  const kept = nExperts ? plan.experts.kept_of_each_block : 0;
  if (kept && units.length > 0) stack(node, 1 - kept / nExperts, `${block.name}, ${kept} of ${nExperts} experts in memory`);
  else if (block.partly && units.length > 0) stack(node, block.streamed_bytes / block.bytes, `${block.name}, ${size(block.streamed_bytes)} of ${size(block.bytes)} stream`);
  if (coarse && units.length > 0) {
    const shared = cell(rests[units[0]], block.name, block.bytes);
    for (const i of units) cells[i] = shared;
    node.append(shared);
  } else {
    for (const i of units) node.append(cells[i] = cell(rests[i], plan.units[i].name, plan.units[i].bytes));
  }
  return node;
}

new ResizeObserver(() => { if (plan) layOut(); }).observe($("strip"));

/** Lets the `share` that streams of a block lie upon what stays in memory, each high enough to be seen. */
function stack(node, share, title) {
  node.classList.add("partly");
  node.style.setProperty("--streams", `${Math.round(100 * Math.min(0.75, Math.max(0.25, share || 0)))}%`);
  node.title = title;
}

function cell(state, name, bytes) {
  const node = document.createElement("i");
  node.className = state;
  node.title = bytes ? `${name}, ${size(bytes)}` : name;
  return node;
}

function legend() {
  const here = new Set(plan.blocks.some(({ tier }) => !streams(tier)) ? ["resident"] : []);
  if (nExperts || plan.blocks.some(({ partly }) => partly)) here.add("partly");
  for (const rest of rests) for (const state of [rest, "reading", "ready", "computing"]) here.add(state);
  const shown = Object.entries(STATES).filter(([state]) => here.has(state));
  $("legend").replaceChildren(...shown.map(([state, words]) => {
    const item = document.createElement("li");
    item.append(cell(state, words), words);
    return item;
  }));
}

function teach(units) {
  const { blocks, n_slots: n, slot_bytes: slot } = plan;
  const lesson = $("lesson");
  $("stages").hidden = units.length === 0;
  if (units.length === 0) {
    lesson.textContent = `Every token needs all ${blocks.length} blocks, one after the other. This model fits, so its blocks stay in `
      + "memory and nothing streams.";
    return;
  }
  const room = n && slot ? `one of ${n} slots of ${size(slot)}` : "memory";
  const tiers = new Set(plan.blocks.map(({ tier }) => tier));
  const from = tiers.has("host") ? tiers.has("streamed") ? "brought from RAM or disk" : "brought from RAM" : "read from disk";
  if (nExperts) {
    const { used, kept_of_each_block: kept } = plan.experts;
    lesson.textContent = `Every token needs all ${blocks.length} blocks, one after the other, and of each ${used} of its ${nExperts} experts. ${kept} of them are in `
      + "memory; others are read from disk as soon as the block has chosen them. A prompt has many tokens, which need nearly all experts: for it, blocks are read "
      + `whole, into ${room}, while the block before is computing. The colours walk from left to right once for each pass.`;
    return;
  }
  const [filled, its] = inMemory() ? [`${inMemory()} The rest is`, "its"] : ["They are", "their"];
  lesson.textContent = `Every token needs all ${blocks.length} blocks, one after the other, in this order. ${filled} ${from} into `
    + `${room} just before ${its} turn, while the block before is computing: as long as that keeps up, computing never waits. `
    + "The colours walk from left to right once for each token.";
}

/** `22 of them are in memory, in whole or in part: 6 % of the weights.` */
function inMemory() {
  const whole = plan.blocks.reduce((sum, { bytes }) => sum + (bytes ?? 0), 0);
  const moves = (plan.streamed_bytes ?? (plan.units ?? []).reduce((sum, { bytes }) => sum + bytes, 0)) - (plan.experts?.bytes ?? 0);
  const stays = plan.blocks.filter(({ tier, partly }) => partly || !streams(tier)).length;
  if (!stays || !whole) return "";
  const share = Math.round(100 * Math.max(0, 1 - moves / whole));
  const parts = plan.blocks.some(({ partly }) => partly);
  return `${stays} of them ${stays === 1 ? "is" : "are"} in memory${parts ? ", in whole or in part" : ""}: ${share < 1 ? "less than 1" : share} % of the weights.`;
}

/** Shows what goes on now; `binds` is what holds the model back. */
export function update(now, binds = "") {
  const states = now.units ?? [];
  const shown = new Map();
  cells.forEach((node, i) => {
    const state = states[i] !== "idle" && STATES[states[i]] ? states[i] : rests[i];
    if (!shown.has(node) || RANKS.indexOf(state) > RANKS.indexOf(shown.get(node))) shown.set(node, state);
  });
  const busy = (now.running ?? 0) > 0;
  const place = position(now);
  // Where experts come one by one, no block is in a slot; what computes shows nevertheless.
  const chosen = nExperts && place && !states.includes("computing") ? plan.units.findIndex(({ block }) => block === place[0] - 1) : -1;
  if (chosen >= 0) shown.set(cells[chosen], "computing");
  for (const [node, state] of shown) if (node.className !== state) node.className = state;
  const rate = now.bytes_per_second ?? 0;
  if (rate > 0) fastest = Math.max(rate, fastest * 0.98);
  rates.push(rate);
  if (rates.length > HISTORY) rates.shift();
  spark();
  $("flow").textContent = flow(rate, busy, binds);
  slots.take(now, busy, fastest, binds);
  if (!$("blocks-more").hidden) {
    figures(now);
    stages(states, busy, place);
    slots.draw(states);
  }
  const words = planInWords();
  if ($("plan").dataset.live === "yes" && $("plan").textContent !== words) $("plan").textContent = words;
  // Not ten times a second: those who hear the page may read it at any time.
  const label = `${words}. ${busy ? `Computing${place ? ` block ${place[0]} of ${place[1]}` : ""}.` : "Idle."}`;
  if ($("strip").getAttribute("aria-label") !== label) $("strip").setAttribute("aria-label", label);
}

function flow(rate, busy, binds) {
  if (!busy) return "idle";
  if (cells.length === 0) return "computing";
  return binds === "waiting for the disk" || rate >= 1e4 ? size(rate, "/s") : "computing";
}

function spark() {
  const top = Math.max(...rates, 1);
  // The newest is at the right end.
  const at = (i) => (60 * (HISTORY - rates.length + i) / (HISTORY - 1)).toFixed(1);
  const points = rates.map((rate, i) => `${at(i)} ${(16 - 15 * rate / top).toFixed(1)}`);
  $("spark").hidden = cells.length === 0;
  $("spark").firstElementChild.setAttribute("d", `M${at(0)} 16L${points.join("L")}L60 16Z`);
}

/** The three places that a streamed block passes through, and which blocks are there. */
function stages(states, busy, place) {
  const names = (state) => (plan.units ?? []).flatMap((unit, i) => states[i] === state ? [slots.short(unit.name)] : []);
  const [reading, ready, computing] = [names("reading"), names("ready"), names("computing")];
  const other = nExperts && place ? `block ${place[0] - 1}` : "a block in memory";
  const shown = [reading, ready, computing.length || !busy ? computing : [other]];
  const list = $("stages");
  shown.forEach((there, i) => {
    const words = there.join(", ") || "\u2013";
    const place = list.children[i].lastElementChild;
    if (place.textContent !== words) place.textContent = words;
  });
}

function figures(now) {
  const pairs = [
    ["streamed so far", size(now.streamed_bytes ?? 0)],
    ["passes over the weights", String(now.passes ?? 0)],
    ["waited for blocks", `${(now.stall_seconds ?? 0).toFixed(1)} s`],
    ["tokens per second", rateInWords(now.tokens_per_second ?? 0)],
    ["requests running", now.waiting ? `${now.running} and ${now.waiting} waiting` : String(now.running ?? 0)],
  ];
  $("figures").replaceChildren(...pairs.map(([name, value]) => {
    const pair = document.createElement("div");
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    text.textContent = value;
    pair.append(term, text);
    return pair;
  }));
}

function rateInWords(rate) {
  return rate >= 9.95 ? String(Math.round(rate)) : rate.toFixed(rate < 1 ? 2 : 1);
}

/** Which of the model's blocks is being computed: `[3, 80]`; nothing where nobody knows. */
export function position(now) {
  if (!plan || !(now?.n_runs > 1) || !(now.running > 0)) return null;
  const n = plan.blocks.length;
  const computing = (now.units ?? []).indexOf("computing");
  const part = Math.min(n, 1 + Math.floor(n * now.run / now.n_runs));
  const block = computing >= 0 ? (plan.units[computing]?.block ?? part - 1) + 1 : part;
  // Between two parts it does not go back.
  reached = now.run > 0 && block < reached && reached - block < 3 ? reached : block;
  return [reached, n];
}

$("blocks-toggle").addEventListener("click", () => {
  const more = $("blocks-more");
  more.hidden = !more.hidden;
  $("blocks-toggle").setAttribute("aria-expanded", String(!more.hidden));
  layOut();
  look(!more.hidden);
});
