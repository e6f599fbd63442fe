// The live picture of the model's blocks: which are in memory, and what happens to those that stream. It draws what the server
// tells ten times a second, and teaches how streaming works; it asks for nothing itself.

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
  reading: "on its way",
  ready: "there, waiting",
  computing: "computing",
};

/** Rates of the last twelve seconds, ten a second. */
const HISTORY = 120;

/** More cells than this begin a new row. */
const PER_ROW = 96;

let cells = [];
/** What the cells show while nothing happens to their units. */
let rests = [];
let rates = [];
let plan = null;
let fastest = 0;

/** `2.1 GB/s`, `340 MB`. */
export function size(bytes, unit = "") {
  const steps = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 999.5 && at < steps.length - 1) { bytes /= 1000; at++; }
  return `${bytes >= 99.5 || at === 0 ? Math.round(bytes) : bytes.toPrecision(2)} ${steps[at]}${unit}`;
}

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

function place({ tier, partly }) {
  const where = PLACES[tier === "resident" && gpu ? "device" : tier] ?? tier;
  return partly ? `partly ${where}` : where;
}

const streams = (tier) => tier === "host" || tier === "streamed";

/** The plan in words: `12 of 80 blocks in RAM, the rest from disk at 2.1 GB/s`. */
export function planInWords() {
  if (!plan) return "";
  const total = plan.blocks.length;
  const places = counts(plan.blocks);
  const [last] = places.pop() ?? [""];
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
  const units = plan.units ?? [];
  gpu = Boolean(plan.gpu);
  const strip = $("strip");
  strip.replaceChildren();
  cells = units.map(() => cell("idle", ""));
  rests = units.map(() => "idle");
  const rows = Math.max(1, Math.ceil(plan.blocks.length / PER_ROW));
  strip.style.gridTemplateColumns = `repeat(${Math.ceil(plan.blocks.length / rows)}, 1fr)`;
  strip.classList.toggle("dense", plan.blocks.length > 48);
  plan.blocks.forEach((block, at) => {
    const node = document.createElement("span");
    node.className = "block";
    const parts = units.map((unit, i) => [unit, i]).filter(([unit]) => unit.block === at);
    if (parts.length === 0) node.append(cell("resident", block.name, block.bytes));
    if (block.partly && parts.length > 0) stack(node, block);
    for (const [unit, i] of parts) node.append(cells[i] = cell(rests[i] = block.tier === "host" ? "held" : "idle", unit.name, unit.bytes));
    strip.append(node);
  });
  legend();
  teach(units);
  $("blocks").hidden = plan.blocks.length === 0;
  if (status.now) update(status.now);
}

/** Lets what streams of a block lie upon what stays in memory, each as high as its share, but high enough to be seen. */
function stack(node, { name, bytes, streamed_bytes: streamed }) {
  const share = Math.min(0.75, Math.max(0.25, streamed / bytes || 0));
  node.classList.add("partly");
  node.style.setProperty("--streams", `${Math.round(100 * share)}%`);
  node.title = `${name}, ${size(streamed)} of ${size(bytes)} stream`;
}

function cell(state, name, bytes) {
  const node = document.createElement("i");
  node.className = state;
  node.title = bytes ? `${name}, ${size(bytes)}` : name;
  return node;
}

function legend() {
  const here = new Set(plan.blocks.some(({ tier }) => !streams(tier)) ? ["resident"] : []);
  if (plan.blocks.some(({ partly }) => partly)) here.add("partly");
  for (const rest of rests) for (const state of [rest, "reading", "ready", "computing"]) here.add(state);
  const shown = Object.entries(STATES).filter(([state]) => here.has(state));
  $("legend").replaceChildren(...shown.map(([state, words]) => {
    const item = document.createElement("li");
    item.append(cell(state, words), words);
    return item;
  }));
}

function teach(units) {
  const { blocks, n_slots: slots, slot_bytes: slot } = plan;
  const lesson = $("lesson");
  $("stages").hidden = units.length === 0;
  if (units.length === 0) {
    lesson.textContent = `Every token needs all ${blocks.length} blocks, one after the other. This model fits, so its blocks stay in `
      + "memory and nothing streams.";
    return;
  }
  const room = slots && slot ? `one of ${slots} slots of ${size(slot)}` : "memory";
  const tiers = new Set(plan.blocks.map(({ tier }) => tier));
  const from = tiers.has("host") ? tiers.has("streamed") ? "brought from RAM or disk" : "brought from RAM" : "read from disk";
  const parts = plan.blocks.some(({ partly }) => partly);
  const filled = parts ? "What stays in memory is there already. The other parts"
    : tiers.size > 1 ? "Some stay in memory. The others" : "They";
  lesson.textContent = `Every token needs all ${blocks.length} blocks, one after the other, in this order. ${filled} are ${from} into `
    + `${room} just before their turn, while the block before is computing: as long as that keeps up, computing never waits. `
    + "The colours walk from left to right once for each token.";
}

/** Shows what goes on now. */
export function update(now) {
  const states = now.units ?? [];
  let computing = "";
  cells.forEach((node, i) => {
    const state = states[i] !== "idle" && STATES[states[i]] ? states[i] : rests[i];
    if (node.className !== state) node.className = state;
    if (state === "computing") computing = plan.units[i]?.name ?? "";
  });
  const rate = now.bytes_per_second ?? 0;
  if (rate > 0) fastest = Math.max(rate, fastest * 0.98);
  rates.push(rate);
  if (rates.length > HISTORY) rates.shift();
  spark();
  const busy = (now.running ?? 0) > 0;
  $("flow").textContent = flow(now, rate, busy);
  if (!$("blocks-more").hidden) {
    figures(now);
    stages(states, busy);
  }
  const words = planInWords();
  if ($("plan").dataset.live === "yes" && $("plan").textContent !== words) $("plan").textContent = words;
  $("strip").setAttribute("aria-label", `${words}. ${busy ? `Now computing${computing ? `: ${computing}` : ""}.` : "Idle."}`);
}

function flow(now, rate, busy) {
  if (cells.length === 0) return busy ? "computing" : "idle";
  if (rate >= 1e4) return size(rate, "/s");
  return busy ? "waiting" : "idle";
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
function stages(states, busy) {
  const names = (state) => cells.flatMap((node, i) => states[i] === state ? [plan.units[i].name] : []);
  const [reading, ready, computing] = [names("reading"), names("ready"), names("computing")];
  const shown = [reading, ready, computing.length || !busy ? computing : ["a block in memory"]];
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
    ["tokens per second", (now.tokens_per_second ?? 0).toFixed(1)],
    ["requests", now.waiting ? `${now.running} and ${now.waiting} waiting` : String(now.running ?? 0)],
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

/** Which block of the pass is being computed: `[3, 80]`; nothing where nobody knows. */
export function position(now) {
  return now && now.n_runs > 1 ? [Math.min(now.run + 1, now.n_runs), now.n_runs] : null;
}

$("blocks-toggle").addEventListener("click", () => {
  const more = $("blocks-more");
  more.hidden = !more.hidden;
  $("blocks-toggle").setAttribute("aria-expanded", String(!more.hidden));
});
