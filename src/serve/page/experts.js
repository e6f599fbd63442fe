// The map of a mixture's experts: a row for each block, in it a cell for each expert, or for a few where there is no room for all.
// Below it the experts of one block, each in a cell of its own, and all of it as a table for those who cannot see it. It draws; the
// server is asked while somebody looks.

import { get } from "./api.js";
import { size } from "./size.js";

const $ = (id) => document.getElementById(id);

/** How often the server is asked. (milliseconds) */
const EVERY = 700;

/** The least that is seen of a cell, and what is comfortable for those of one block. (pixels) */
const LEAST = 2;
const ROOMY = 9;

/** What the map cannot show smaller, and need not show larger. (pixels) */
const ROW = [5, 14];

const ABSENT = -1;
const COMING = 10;

/** For each block: its name, what was counted, and the state of each expert: absent, 0 to 9, or being read. */
let blocks = [];
/** What was there when it was looked at last. */
let before = new Map();
let chosen = 0;
/** Experts of a block that a token uses. */
let usedOfBlock = 0;
let path = "";
let timer = 0;

/** `.`, `0` to `9` and `+` as numbers. */
const stateOf = (letter) => letter === "." ? ABSENT : letter === "+" ? COMING : Number(letter);

/** Shows the map of the model that `status` describes, if its experts stream one by one; `from` is where they are asked for. */
export function show({ experts = [], plan }, from) {
  usedOfBlock = plan?.experts?.used ?? 0;
  path = from;
  before = new Map();
  blocks = [];
  chosen = Math.min(chosen, Math.max(0, experts.length - 1));
  $("experts").hidden = experts.length === 0;
  $("expert-block").max = String(Math.max(0, experts.length - 1));
  $("expert-block").value = String(chosen);
  if (experts.length) take(experts);
}

/** Somebody looks at it, or does not any more. */
export function look(open) {
  clearTimeout(timer);
  if (open && !$("experts").hidden) ask();
}

async function ask() {
  clearTimeout(timer);
  const from = path;
  try {
    const found = document.hidden ? [] : await get(from);
    if (from === path && found.length) take(found);
  } catch { /* whoever watches the server says it */ }
  if (!$("blocks-more").hidden && !$("experts").hidden) timer = setTimeout(ask, EVERY);
}

function take(found) {
  blocks = found.map(({ name, uses, misses, copied, bytes, experts }) => {
    const states = [...experts].map(stateOf);
    const old = before.get(name);
    // Most are read faster than anybody looks: what was not there a moment ago has just been read.
    const shown = states.map((state, e) => state >= 0 && old && old[e] === ABSENT ? COMING : state);
    before.set(name, states);
    return { name, uses, misses, copied, bytes, states, shown };
  });
  draw();
}

/** The colours that the page gives to the legend's cells. */
function colours() {
  return Object.fromEntries([...$("expert-legend").querySelectorAll("i")].map((node) => [node.className, rgb(getComputedStyle(node).backgroundColor)]));
}

const rgb = (text) => text.match(/[\d.]+/g).slice(0, 3).map(Number);
const mix = (a, b, part) => a.map((x, i) => Math.round(x + (b[i] - x) * part));

/** The colour of some experts together. */
function colourOf(states, { idle, cool, hot, reading }) {
  const there = states.filter((state) => state !== ABSENT);
  if (there.length === 0) return idle;
  if (there.includes(COMING)) return mix(idle, reading, 0.35 + 0.65 * there.length / states.length);
  const heat = Math.max(...there) / 9;
  return mix(idle, mix(cool, hot, heat), 0.3 + 0.7 * there.length / states.length);
}

/** Makes a canvas as sharp as the screen; returns what draws in CSS pixels. */
function paper(canvas, width, height) {
  const scale = Math.min(3, devicePixelRatio || 1);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return context;
}

function draw() {
  if ($("experts").hidden || $("blocks-more").hidden || blocks.length === 0) return;
  const width = $("expert-map").clientWidth;
  if (width < 20) return;
  const palette = colours();
  drawMap(width, palette);
  drawBlock(width, palette);
  tell();
}

/** Experts that share a cell of the map. */
const perCell = (n, width) => Math.max(1, Math.ceil(n / Math.floor(width / LEAST)));

function drawMap(width, palette) {
  const row = Math.max(ROW[0], Math.min(ROW[1], Math.floor(320 / blocks.length)));
  const context = paper($("expert-map"), width, row * blocks.length);
  blocks.forEach(({ shown }, y) => {
    const each = perCell(shown.length, width);
    const cells = Math.ceil(shown.length / each);
    for (let x = 0; x < cells; x++) {
      const [from, to] = [Math.round(width * x / cells), Math.round(width * (x + 1) / cells)];
      context.fillStyle = `rgb(${colourOf(shown.slice(x * each, (x + 1) * each), palette)})`;
      context.fillRect(from, y * row, to - from - (to - from > 3 ? 1 : 0), row - 1);
    }
  });
  context.strokeStyle = `rgb(${palette.mark})`;
  context.lineWidth = 1.5;
  context.strokeRect(0.75, chosen * row - 0.25, width - 1.5, row - 0.5);
}

function drawBlock(width, palette) {
  const { shown } = blocks[chosen];
  const columns = Math.max(1, Math.min(shown.length, Math.floor(width / ROOMY)));
  const cell = Math.min(18, width / columns);
  const context = paper($("expert-cells"), width, Math.ceil(shown.length / columns) * cell);
  shown.forEach((state, e) => {
    context.fillStyle = `rgb(${colourOf([state], palette)})`;
    context.fillRect(e % columns * cell, Math.floor(e / columns) * cell, cell - 1, cell - 1);
  });
}

const share = (part, all) => `${Math.round(100 * part / all)} %`;
const isThere = (state) => state >= 0 && state !== COMING;

/** What share of uses found their experts in memory, and in the GPU's own, where there is one. */
function hitsInWords(uses, misses, copied) {
  if (!uses) return "";
  const above = copied ? `, ${share(Math.max(uses - copied, 0), uses)} on the GPU` : "";
  return `; ${share(uses - misses, uses)} of uses found theirs there${above}`;
}

/** `block 12: 96 of 512 experts in memory; 83 % of uses found theirs there; used most: 17, 203, 44`. */
function inWords({ name, uses, misses, copied, states }) {
  const most = states.map((state, e) => [state, e]).filter(([state]) => isThere(state) && state > 0).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const used = most.length ? `; used most: ${most.map(([, e]) => e).join(", ")}` : "";
  return `${name}: ${states.filter(isThere).length} of ${states.length} experts in memory${hitsInWords(uses, misses, copied)}${used}`;
}

function tell() {
  const [all, there] = [blocks.flatMap(({ states }) => states), blocks.flatMap(({ states }) => states.filter(isThere))];
  const [uses, misses, copied] = ["uses", "misses", "copied"].map((what) => blocks.reduce((sum, b) => sum + b[what], 0));
  const each = usedOfBlock ? `A token uses ${usedOfBlock} of the ${blocks[0].states.length} experts of each block, which are read one by one. ` : "";
  const words = `${each}${there.length} of ${all.length} experts are in memory, in ${blocks.length} blocks${hitsInWords(uses, misses, copied)}.`;
  put("expert-words", words);
  put("expert-one", `${inWords(blocks[chosen])}.`);
  $("expert-block").setAttribute("aria-valuetext", blocks[chosen].name);
  const label = `Map of experts: ${words}`;
  if ($("expert-map").getAttribute("aria-label") !== label) $("expert-map").setAttribute("aria-label", label);
  if ($("expert-table").parentNode.parentNode.open) table();
}

function put(id, words) {
  if ($(id).textContent !== words) $(id).textContent = words;
}

/** All of it in words and numbers. */
function table() {
  const rows = blocks.map(({ name, uses, misses, bytes, states }) => [
    name, String(states.filter(isThere).length), uses ? share(uses - misses, uses) : "\u2013", size(bytes),
  ]);
  $("expert-table").replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((words, i) => {
      const cell = document.createElement(i === 0 ? "th" : "td");
      if (i === 0) cell.scope = "row";
      cell.textContent = words;
      return cell;
    }));
    return row;
  }));
}

function choose(at) {
  if (!blocks.length) return;
  chosen = Math.max(0, Math.min(blocks.length - 1, at));
  $("expert-block").value = String(chosen);
  draw();
}

$("expert-block").addEventListener("input", () => choose($("expert-block").valueAsNumber));
$("expert-map").addEventListener("click", ({ offsetY }) => choose(Math.floor(offsetY / $("expert-map").clientHeight * blocks.length)));
$("expert-details").addEventListener("toggle", () => { if (blocks.length) tell(); });
new ResizeObserver(draw).observe($("expert-map").parentNode);
