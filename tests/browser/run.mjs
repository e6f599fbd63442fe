// The page in a real browser: a Chromium without a window, driven by playwright-core. Each test gets a fresh browser profile and a
// fresh server. Whatever the test, the page must say nothing on the console, break no policy and scroll nowhere sideways.
//
//   node tests/browser/run.mjs [WORD]     runs the tests whose name has WORD
//
// AIRRUN_BROWSER names the browser, AIRRUN_CLIENT the folder with node_modules, AIRRUN_BIN and AIRRUN_MODEL the real program for the
// tests that want one.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { start } from "./fake.mjs";
import * as messages from "./messages.mjs";

const client = createRequire(`${process.env.AIRRUN_CLIENT ?? process.cwd()}/`);
const { chromium } = client("playwright-core");

const DESK = { viewport: { width: 1200, height: 800 } };
const PHONE = { viewport: { width: 320, height: 640 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };

/** Generous: a loaded machine is no failure. (milliseconds) */
const PATIENCE = 60_000;

const tests = [];
const test = (name, body, options = {}) => tests.push({ name, body, ...options });

// --- what tests do with a page

const ask = async (page, text) => {
  await page.fill("#question", text);
  await page.press("#question", "Enter");
};
const rest = (page) => page.waitForFunction(() => !document.body.classList.contains("busy"));
const answers = (page) => page.locator(".answer .prose").allInnerTexts();
const lastAnswer = async (page) => (await page.locator(".answer > .prose").last().innerText()).trim();
const ready = (page) => page.waitForFunction(() => document.getElementById("plan").dataset.live === "yes");

// --- tests

test("an answer streams in, and its speed is told", async ({ page }) => {
  await ask(page, "endless");
  await page.waitForFunction(() => /word 3 /.test(document.querySelector(".answer > .prose")?.textContent));
  assert.equal(await page.locator("#send").getAttribute("aria-label"), "Stop");
  await page.click("#send");
  await rest(page);
  await ask(page, "hello");
  await rest(page);
  assert.equal(await lastAnswer(page), "Hello there.");
  assert.match(await page.locator(".rate").last().innerText(), /^4 tokens · [\d.]+ tokens\/s · first token [\d.]+ s$/);
  assert.match(await page.locator("#status").textContent(), /Hello there/);
});

test("the model and its plan are told in words", async ({ page }) => {
  assert.equal(await page.locator("#model").innerText(), "Fake 70B Instruct");
  assert.equal(await page.locator("#plan").innerText(), "8 of 40 blocks in RAM, the rest from disk");
  await ask(page, "endless");
  await page.waitForFunction(() => /8 of 40 blocks in RAM, the rest from disk at [12]\.\d GB\/s/.test(document.getElementById("plan").innerText));
  await page.keyboard.press("Escape");
});

test("of several models, one is chosen", async ({ page, fake, quiet }) => {
  quiet(/503/);
  fake.state.models = ["small", "large"];
  await page.reload();
  await page.waitForFunction(() => /loaded when you ask/.test(document.getElementById("plan").innerText));
  await page.selectOption("#models", "large");
  await ask(page, "hello");
  await rest(page);
  assert.equal(fake.state.requests.at(-1).model, "large");
  await ready(page);
  assert.match(await page.locator("#plan").innerText(), /40 blocks/);
  await page.reload();
  await ready(page);
  assert.equal(await page.inputValue("#models"), "large");
});

test("a GPU's plan is told, too", async ({ page, fake }) => {
  fake.state.gpu = true;
  await page.reload();
  await ready(page);
  assert.equal(await page.locator("#plan").innerText(), "8 of 40 blocks in GPU memory, 24 from RAM, the rest from disk");
  assert.equal(await page.locator("#strip i.held").count(), 24);
  await page.click("#blocks-toggle");
  assert.match(await page.locator("#lesson").innerText(), /brought from RAM or disk/);
  assert.equal(await page.locator("#legend li").count(), 6);
});

test("blocks of which parts stream are told from those that stream whole", async ({ page, fake }) => {
  fake.state.parts = true;
  await page.reload();
  await ready(page);
  assert.equal(await page.locator("#plan").innerText(), "8 of 40 blocks in RAM, 8 partly from disk, the rest from disk");
  await page.click("#blocks-toggle");
  assert.match(await page.locator("#legend").innerText(), /partly in memory/);
  assert.match(await page.locator("#lesson").innerText(), /16 of them are in memory, in whole or in part: \d+ % of the weights. The rest is read from disk/);
  const block = page.locator("#strip .block.partly").first();
  assert.equal(await page.locator("#strip .block.partly").count(), 8);
  assert.equal(await block.getAttribute("title"), "block 1, 70 MB of 210 MB stream");
  // A third of it streams, and shows so; below that is what stays.
  const heights = await block.evaluate((node) => [node, node.firstElementChild].map((n) => n.getBoundingClientRect().height));
  assert.ok(Math.abs(heights[1] / heights[0] - 0.33) < 0.05, heights);
  assert.match(await block.evaluate((node) => getComputedStyle(node).backgroundImage), /gradient/);
});

test("while nothing is printed, it is told how far the prompt is", async ({ page }) => {
  await ask(page, "slow");
  await page.waitForFunction(() => /Reading the prompt: \d+ %.*\(block \d+ of 40\)/.test(document.querySelector(".wait")?.innerText));
  await page.keyboard.press("Escape");
  await rest(page);
  assert.match(await page.locator(".note-line").innerText(), /You stopped/);
});

test("time left is that of the whole prompt", async ({ page }) => {
  const [told, words] = await page.evaluate(async () => {
    const { prompt, duration } = await import("/assets/time.js");
    const at = (progress, done, next, seconds, seen = {}) => prompt({ time_ms: 0, at: 0, ...progress }, { pass_done: done, pass_next: next }, 1000 * seconds, seen);
    // Two passes, of which the second is shorter: by what was predicted, whatever that is worth.
    const first = { passes: { pass: 1, of: 2, measured: false, before_ms: 0, pass_ms: 2000, after_ms: 1000 } };
    const second = { time_ms: 100_000, passes: { pass: 2, of: 2, measured: false, before_ms: 2000, pass_ms: 1000, after_ms: 0 } };
    // Between two places that can be seen, time goes on; what takes longer than it should is waited for.
    const seen = {};
    at(first, 0.5, 1, 50, seen);
    // At the end of a pass the next one may be told already, and at the beginning still the last one.
    const ends = {};
    at(first, 0.9, 1, 90, ends);
    const stale = {};
    prompt({ at: 0, ...second }, { pass_done: 0.98, pass_next: 1, pass_seconds: 100 }, 400, stale);
    return [[
      at(first, 0.5, 0.5, 50), at(second, 0.5, 0.5, 25), at(first, 0.5, 1, 65, seen), at(first, 0.5, 1, 400, seen),
      at(first, 0, 0.01, 101, ends), at(second, 0.1, 0.1, 5, stale),
      at({ passes: { pass_ms: 60_000, measured: true } }, 0, 0.1, 0.4), at({ passes: { pass_ms: 60_000 } }, 0, 0.1, 0.4),
    ].map(({ part, left, pass, passes }) => [part.toFixed(2), Math.round(left), pass, passes]), [1, 12, 59, 80, 125, 3600, 7300].map(duration)];
  });
  assert.deepEqual(told, [["0.33", 100, 1, 2], ["0.83", 25, 2, 2], ["0.43", 85, 1, 2], ["0.67", 200, 1, 2], ["0.60", 67, 1, 2], ["0.70", 45, 2, 2], ["0.01", 60, 1, 1], ["0.00", 0, 1, 1]]);
  assert.deepEqual(words, ["1 s", "10 s", "1 min", "1 min 20 s", "2 min 10 s", "1 h", "2 h 2 min"]);
});

test("between slow tokens, and in thoughts, there are signs of life", async ({ page, fake }) => {
  fake.state.rate = 0.35;
  await ask(page, "hesitate");
  await page.waitForFunction(() => /Next token: block \d+ of 40, 2.9 s each/.test([...document.querySelectorAll(".wait")].at(-1)?.innerText));
  await page.keyboard.press("Escape");
  await rest(page);
  fake.state.pace = 400;
  await ask(page, "reason");
  await page.waitForFunction(() => /Thinking · \d+ words · .*six/.test(document.querySelector(".answer:last-child .thought summary")?.innerText));
  await rest(page);
  assert.equal(await lastAnswer(page), "Forty-two.");
  assert.equal(await page.locator(".thought summary").last().innerText(), "Thoughts");
});

test("of a mixture whose experts come one by one, the block that computes is shown", async ({ page, fake }) => {
  Object.assign(fake.state, { mixture: true, byExpert: true });
  await page.reload();
  await ready(page);
  assert.equal(await page.locator("#plan").innerText(), "all 60 blocks with experts from disk");
  assert.equal(await page.locator("#strip .block.partly").count(), 60);
  assert.equal(await page.locator("#strip .block").first().getAttribute("title"), "block 0, 96 of 512 experts in memory");
  await page.click("#blocks-toggle");
  assert.match(await page.locator("#lesson").innerText(), /of each 10 of its 512 experts. 96 of them are in memory/);
  await ask(page, "endless");
  await page.waitForSelector("#strip i.computing", { state: "attached" });
  await page.waitForFunction(() => /^block \d+$/.test(document.querySelector(".at-work b").innerText));
  assert.equal(await page.locator("#strip i.computing").count(), 1);
  await page.keyboard.press("Escape");
  await rest(page);
  await page.waitForFunction(() => document.querySelectorAll("#strip i.computing").length === 0);
});

test("blocks change their colours as they stream", async ({ page }) => {
  assert.equal(await page.locator("#strip .block").count(), 40);
  assert.equal(await page.locator("#strip i.resident").count(), 8);
  await ask(page, "endless");
  for (const state of ["reading", "ready", "computing"]) await page.waitForSelector(`#strip i.${state}`, { state: "attached" });
  await page.click("#blocks-toggle");
  await page.waitForFunction(() => /block \d+/.test(document.querySelector(".from-disk b").innerText));
  assert.match(await page.locator("#figures").innerText(), /tokens per second/);
  await page.keyboard.press("Escape");
  await rest(page);
  await page.waitForFunction(() => document.querySelectorAll("#strip i.computing").length === 0);
});

test("stopping ends the request at the server", async ({ page, fake }) => {
  await ask(page, "endless");
  await page.waitForFunction(() => /word 1 /.test(document.querySelector(".answer > .prose")?.textContent));
  await page.keyboard.press("Escape");
  await rest(page);
  await until(() => fake.state.aborted === 1);
  assert.match(await lastAnswer(page), /^word 0 word 1/);
  // It can be drawn again.
  await page.getByRole("button", { name: "Try again" }).click();
  // A request that has not left yet is never sent.
  await until(() => fake.state.requests.length === 2);
  await page.keyboard.press("Escape");
  assert.deepEqual(fake.state.requests[0].messages, fake.state.requests[1].messages);
});

test("a conversation outlives a reload, and a new one begins", async ({ page, fake }) => {
  await ask(page, "hello");
  await rest(page);
  await page.reload();
  await ready(page);
  assert.equal(await lastAnswer(page), "Hello there.");
  await ask(page, "think");
  await rest(page);
  assert.deepEqual(fake.state.requests[1].messages.map((m) => m.role), ["user", "assistant", "user"]);
  await page.click("#fresh");
  assert.equal(await page.locator(".answer").count(), 0);
  assert.ok(await page.locator("#empty").isVisible());
  // It can be taken back, and nothing was lost.
  await page.getByRole("button", { name: "Undo" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".answer").length === 2);
  await page.click("#fresh");
  await page.reload();
  await ready(page);
  assert.equal(await page.locator(".answer").count(), 0);
  await page.click("#open-chats");
  await page.locator("#chat-list .chat").first().click();
  await page.waitForFunction(() => document.querySelectorAll(".answer").length === 2);
});

test("an edit cuts nothing before it is sent, and then makes a branch", async ({ page, fake }) => {
  await ask(page, "hello");
  await rest(page);
  await ask(page, "code");
  await rest(page);
  const first = page.getByRole("article", { name: "You" }).first();
  await first.hover();
  await first.getByRole("button", { name: "Edit" }).click();
  await page.keyboard.type(" changed");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator(".answer").count(), 2);
  await page.reload();
  await ready(page);
  assert.equal(await page.locator(".answer").count(), 2);
  await first.hover();
  await first.getByRole("button", { name: "Edit" }).click();
  await page.fill(".rewrite", "markdown");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll(".question").length === 1);
  await rest(page);
  assert.deepEqual(fake.state.requests.at(-1).messages.map((m) => m.content), ["markdown"]);
  assert.equal(await first.locator(".which").innerText(), "2/2");
  await first.getByRole("button", { name: "Previous version" }).click();
  assert.equal(await page.locator(".answer").count(), 2);
  assert.match(await page.locator(".bubble").first().innerText(), /hello/);
  await page.reload();
  await ready(page);
  assert.equal(await page.locator(".answer").count(), 2);
  // Trying again keeps the old answer, too.
  await page.getByRole("button", { name: "Try again" }).last().click();
  await page.waitForFunction(() => document.body.classList.contains("busy"));
  await rest(page);
  assert.equal(await page.locator(".answer").last().locator(".which").innerText(), "2/2");
});

test("two tabs do not take each other's conversations away", async ({ page, context }) => {
  const other = await context.newPage();
  await other.goto(page.url());
  await ready(other);
  await ask(page, "hello");
  await rest(page);
  const address = page.url();
  await other.reload();
  await ready(other);
  await ask(other, "think");
  await rest(other);
  await page.goto("about:blank");
  await other.reload();
  await ready(other);
  await other.click("#open-chats");
  await other.waitForFunction(() => document.querySelectorAll("#chat-list .chat").length === 2);
  // Both in the same one: what each says is kept.
  const third = await context.newPage();
  for (const tab of [other, third]) {
    await tab.goto(address);
    await tab.reload();
    await ready(tab);
    await tab.waitForFunction(() => document.querySelectorAll(".answer").length === 1);
  }
  await ask(other, "code");
  await ask(third, "markdown");
  await rest(other);
  await rest(third);
  await third.reload();
  await ready(third);
  await third.waitForFunction(() => document.querySelectorAll(".answer").length >= 2);
  const texts = await third.evaluate(() => new Promise((resolve) => {
    indexedDB.open("airrun").onsuccess = ({ target: { result } }) => {
      const all = result.transaction("chats").objectStore("chats").getAll();
      all.onsuccess = () => resolve(all.result.flatMap((chat) => Object.values(chat.nodes).map((node) => node.text)));
    };
  }));
  for (const text of ["hello", "Hello there.", "code", "markdown"]) assert.ok(texts.includes(text), `${text} in ${texts}`);
});

test("the list finds, names, deletes, brings back, exports and imports", async ({ page }) => {
  for (const text of ["hello", "code"]) {
    await ask(page, text);
    await rest(page);
    await page.click("#fresh");
  }
  await page.click("#open-chats");
  const titles = () => page.locator("#chat-list .chat-title").allInnerTexts();
  assert.deepEqual(await titles(), ["code", "hello"]);
  await page.fill("#chat-search", "println");
  await page.waitForFunction(() => document.querySelectorAll("#chat-list .chat").length === 1);
  await page.fill("#chat-search", "");
  await page.waitForFunction(() => document.querySelectorAll("#chat-list .chat").length === 2);
  const row = page.locator(".chat-row", { hasText: "hello" });
  await row.hover();
  await row.getByRole("button", { name: "Rename hello" }).click();
  await page.keyboard.type("A greeting");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /A greeting/.test(document.getElementById("chat-list").innerText));
  const greeting = page.locator(".chat-row", { hasText: "A greeting" });
  await greeting.hover();
  const [file] = await Promise.all([page.waitForEvent("download"), greeting.getByRole("button", { name: "Export A greeting" }).click()]);
  const saved = JSON.parse(readFileSync(await file.path(), "utf8"));
  assert.deepEqual(saved, { system: null, messages: [{ role: "user", content: "hello" }, { role: "assistant", content: "Hello there." }] });
  await greeting.getByRole("button", { name: "Delete A greeting" }).click();
  await page.waitForFunction(() => document.querySelectorAll("#chat-list .chat").length === 1);
  await page.getByRole("button", { name: "Undo" }).click();
  await page.waitForFunction(() => document.querySelectorAll("#chat-list .chat").length === 2);
  await page.setInputFiles("#import-file", { name: "talk.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(saved)) });
  await page.waitForFunction(() => document.querySelectorAll("#chat-list .chat").length === 3);
  assert.equal(await lastAnswer(page), "Hello there.");
  for (const rubbish of ["{", "[]", '{"messages":[{"role":"wizard","content":"x"}]}', '{"conversations":[{"nodes":5}]}']) {
    await page.setInputFiles("#import-file", { name: "bad.json", mimeType: "application/json", buffer: Buffer.from(rubbish) });
    await page.waitForSelector("#chats-why:not([hidden])");
    assert.match(await page.locator("#chats-why").innerText(), /^bad.json: /);
  }
});

test("on a phone, what was deleted is brought back from inside of the drawer", async ({ page }) => {
  await ask(page, "hello");
  await rest(page);
  await page.tap("#open-chats");
  await page.waitForSelector("#chats[open]");
  await page.getByRole("button", { name: "Delete hello" }).tap();
  await page.waitForFunction(() => document.querySelectorAll("#chat-list .chat").length === 0);
  await page.getByRole("button", { name: "Undo" }).tap();
  await page.waitForFunction(() => document.querySelectorAll("#chat-list .chat").length === 1);
  await page.tap("#close-chats");
  await page.waitForFunction(() => !document.querySelector("#chats #notices"));
}, { options: PHONE });

test("a store that is full is said, and the conversation goes on", async ({ page }) => {
  await page.evaluate(() => { IDBObjectStore.prototype.put = () => { throw new DOMException("no more room", "QuotaExceededError"); }; });
  await ask(page, "hello");
  await rest(page);
  assert.equal(await lastAnswer(page), "Hello there.");
  assert.match(await page.locator(".notice.lasting").innerText(), /storage is full/);
});

test("no two questions follow each other in a request", async ({ page, fake }) => {
  await ask(page, "slow");
  await page.waitForFunction(() => document.body.classList.contains("busy"));
  await page.keyboard.press("Escape");
  await rest(page);
  await ask(page, "too long");
  await rest(page);
  await ask(page, "hello");
  await rest(page);
  assert.deepEqual(fake.state.requests.at(-1).messages.map((m) => m.role), ["user"]);
  assert.match(fake.state.requests.at(-1).messages[0].content, /slow\n\ntoo long\n\nhello/);
}, { quiet: /400/ });

test("an answer that was cut can be continued", async ({ page, fake }) => {
  await ask(page, "short");
  await rest(page);
  assert.match(await page.locator(".note-line").innerText(), /longest length/);
  await page.getByRole("button", { name: "Continue" }).click();
  await page.waitForFunction(() => /to the end/.test(document.querySelector(".answer > .prose").innerText));
  await rest(page);
  assert.equal(await lastAnswer(page), "It ends here and on to the end.");
  const body = fake.state.requests.at(-1);
  assert.deepEqual([body.messages.at(-1), body.continue_final_message], [{ role: "assistant", content: "It ends here " }, true]);
  assert.equal(await page.getByRole("button", { name: "Continue" }).count(), 0);
});

test("a full context goes on, and says what is left out", async ({ page, fake }) => {
  for (const text of ["hello", "think", "code"]) {
    await ask(page, text);
    await rest(page);
  }
  fake.state.drops = 4;
  await ask(page, "hello");
  await page.waitForFunction(() => /oldest 4 messages are left out/.test([...document.querySelectorAll(".left-out")].at(-1)?.innerText));
  await rest(page);
  // One line marks where the prompt begins; it goes down as more is left out.
  assert.equal(await page.locator(".divider").count(), 1);
  const below = () => page.evaluate(() => document.querySelector(".divider").nextElementSibling.innerText);
  assert.match(await below(), /^code/);
  assert.equal(fake.state.requests.at(-1).truncation, "auto");
  // What was left out stays left out: the prompt begins the same from now on.
  await ask(page, "think");
  await rest(page);
  assert.deepEqual(fake.state.requests.at(-1).messages.map((m) => m.content).slice(0, 3).filter((_, i) => i % 2 === 0), ["code", "hello"]);
  fake.state.drops = 2;
  await ask(page, "markdown");
  await rest(page);
  assert.match(await below(), /^hello/);
  await page.reload();
  await ready(page);
  assert.equal(await page.locator(".left-out:visible").count(), 2);
  assert.match(await below(), /^hello/);
  assert.match(await page.locator(".divider").innerText(), /left out of the prompt/);
  assert.match(await page.locator("#gauge-words").innerText(), /^Context: \d+ of 4096 tokens \(\d+ %\)$/);
});

test("formulas are drawn, and what is none stays", async ({ page }) => {
  await ask(page, "maths");
  await rest(page);
  await page.waitForFunction(() => document.querySelectorAll(".formula.drawn").length === 4);
  assert.equal(await page.locator("math").count(), 4);
  assert.equal(await page.locator("math msup").first().textContent(), "c2");
  assert.equal(await page.locator("mtable").count(), 1);
  const text = await lastAnswer(page);
  assert.match(text, /priced \$5 or \$10, and/);
  assert.match(text, /Broken: \\\(\\frac\{1\\\) and open: \\\(x\./);
  // Each is as high as it needs.
  const cut = await page.locator(".formula.display").evaluateAll((nodes) => nodes.filter((node) => node.scrollHeight > node.clientHeight + 2).length);
  assert.equal(cut, 0);
});

test("code gets its colours, and stays the same text", async ({ page }) => {
  await ask(page, "code");
  await rest(page);
  await page.waitForSelector("pre .hl-keyword");
  assert.equal(await page.locator("pre .hl-keyword").first().innerText(), "fn");
  assert.match(await page.locator("pre").innerText(), /^fn main\(\) \{\n {4}println!\("a line.*frame"\);\n\}$/);
});

test("text files go with the question, if they fit", async ({ page, fake }) => {
  const file = (name, text) => ({ name, mimeType: "text/plain", buffer: Buffer.from(text) });
  await page.setInputFiles("#file", file("notes.txt", "line\n```\nend"));
  await page.waitForSelector("#files .file");
  // By drop, too.
  await page.evaluate(() => {
    const data = new DataTransfer();
    data.items.add(new File(["dropped text"], "dropped.md"));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
  });
  await page.waitForFunction(() => document.querySelectorAll("#files .file").length === 2);
  await page.setInputFiles("#file", file("long.txt", "word ".repeat(10_000)));
  await page.waitForFunction(() => /long.txt does not fit: it makes \d+ tokens/.test(document.getElementById("files-why").innerText));
  await page.setInputFiles("#file", { name: "picture.png", mimeType: "image/png", buffer: Buffer.from([0x89, 0x50, 0, 1, 0xff]) });
  await page.waitForFunction(() => /picture.png is not a text file/.test(document.getElementById("files-why").innerText));
  await ask(page, "hello");
  await rest(page);
  const said = fake.state.requests.at(-1).messages[0].content;
  assert.equal(said, "File notes.txt:\n````\nline\n```\nend\n````\n\nFile dropped.md:\n```\ndropped text\n```\n\nhello");
  assert.equal(await page.locator(".question .file").count(), 2);
  assert.equal(await page.locator("#files .file").count(), 0);
});

test("what is sent during an answer waits for its end", async ({ page, fake }) => {
  await ask(page, "story");
  await page.waitForFunction(() => document.body.classList.contains("busy"));
  await page.fill("#question", "hello");
  await page.press("#question", "Enter");
  assert.match(await page.locator("#queued").innerText(), /Next: hello/);
  await page.waitForFunction(() => /Hello there/.test([...document.querySelectorAll(".answer > .prose")].at(-1)?.innerText));
  await rest(page);
  assert.equal(fake.state.requests.length, 2);
});

test("an answer goes on while the page is reloaded, and nothing is missing", async ({ page, fake }) => {
  fake.state.pace = 60;
  await ask(page, "story");
  await page.waitForFunction(() => /part 5,/.test(document.querySelector(".answer > .prose")?.textContent));
  await page.reload();
  await ready(page);
  await page.waitForFunction(() => /part 39,/.test(document.querySelector(".answer > .prose")?.textContent));
  await rest(page);
  assert.equal(await lastAnswer(page), Array.from({ length: 40 }, (_, i) => `part ${i},`).join(" "));
  assert.equal(fake.state.requests.length, 1);
  assert.equal(await page.locator(".note-line:visible").count(), 0);
});

test("the server forgets an answer when the page has kept it, and not before", async ({ page }) => {
  await page.evaluate(() => new Promise((resolve) => {
    const plain = window.fetch;
    window.asked = [];
    indexedDB.open("airrun").onsuccess = ({ target: { result } }) => {
      window.fetch = (url, options) => {
        if (options?.method === "DELETE") {
          // What is read from here on does not see what is written later.
          const all = result.transaction("chats").objectStore("chats").getAll();
          window.asked.push(new Promise((found) => { all.onsuccess = () => found(all.result.flatMap((chat) => Object.values(chat.nodes))); }));
        }
        return plain(url, options);
      };
      resolve();
    };
  }));
  await ask(page, "hello");
  await rest(page);
  await page.waitForFunction(() => window.asked.length === 1);
  const nodes = await page.evaluate(() => window.asked[0]);
  const answer = nodes.find(({ role }) => role === "assistant");
  assert.deepEqual([answer.text, answer.note, answer.stream], ["Hello there.", "", null]);
});

test("a line that breaks is taken up where it was", async ({ page, fake, quiet }) => {
  quiet(/ERR_|Failed to load/);
  await ask(page, "break");
  await page.waitForFunction(() => /and the rest/.test(document.querySelector(".answer > .prose")?.textContent));
  await rest(page);
  assert.equal(await lastAnswer(page), "I heard: breakand the rest.");
  assert.equal(fake.state.requests.length, 1);
});

test("an answer of a server that was started anew is kept as far as it came", async ({ page, fake, quiet }) => {
  quiet(/ERR_|Failed to load|404/);
  await ask(page, "endless");
  await page.waitForFunction(() => /word 5 /.test(document.querySelector(".answer > .prose")?.textContent));
  const port = Number(new URL(fake.url).port);
  fake.stop();
  await page.waitForFunction(() => /connection broke/.test(document.querySelector(".wait")?.innerText));
  const again = await start({ port });
  try {
    await rest(page);
    assert.match(await lastAnswer(page), /^word 0/);
    assert.match(await page.locator(".note-line").innerText(), /interrupted/);
    await page.getByRole("button", { name: "Continue" }).click();
    await page.waitForFunction(() => /to the end/.test(document.querySelector(".answer > .prose").innerText));
  } finally {
    again.stop();
  }
});

test("what is kept and makes no sense is not shown", async ({ page }) => {
  for (const rubbish of ["{", "5", "[1,{\"role\":\"system\",\"content\":\"x\"}]", "[{\"role\":\"user\",\"content\":7}]"]) {
    await page.evaluate((text) => { localStorage.setItem("airrun.talk", text); localStorage.setItem("airrun.settings", text); }, rubbish);
    await page.reload();
    await ready(page);
    assert.equal(await page.locator("article").count(), 0);
  }
});

test("the conversation of an older page is taken over", async ({ page }) => {
  const talk = [{ role: "user", content: "old question" }, { role: "assistant", content: "old answer" }];
  await page.evaluate((kept) => localStorage.setItem("airrun.talk", JSON.stringify(kept)), talk);
  await page.reload();
  await ready(page);
  await page.click("#open-chats");
  await page.locator("#chat-list .chat", { hasText: "old question" }).click();
  assert.equal(await lastAnswer(page), "old answer");
});

test("settings are sent, kept, and left out where they are empty", async ({ page, fake }) => {
  await page.click("#open-settings");
  await page.fill("[name=system]", "Be brief.");
  await page.fill("[name=temperature]", "0.25");
  await page.fill("[name=top_k]", "-4");
  await page.getByRole("button", { name: "Done" }).click();
  // A value that its field refuses keeps the drawer open.
  assert.ok(await page.locator("#settings").isVisible());
  await page.fill("[name=top_k]", "7");
  await page.check("[name=always]");
  await page.getByRole("button", { name: "Done" }).click();
  // Closing it otherwise keeps nothing.
  await page.click("#open-settings");
  assert.equal(await page.locator("[name=top_p]").getAttribute("placeholder"), "0.95");
  assert.equal(await page.locator("[name=temperature]").getAttribute("placeholder"), "0.6");
  await page.fill("[name=temperature]", "99");
  await page.keyboard.press("Escape");
  await ask(page, "hello");
  await rest(page);
  await page.reload();
  await ready(page);
  await ask(page, "hello");
  await rest(page);
  for (const body of fake.state.requests) {
    assert.deepEqual(body.messages[0], { role: "system", content: "Be brief." });
    assert.deepEqual([body.temperature, body.top_k, "top_p" in body, body.model, body.stream], [0.25, 7, false, "fake-70b", true]);
    assert.ok(!("think" in body) && !("stop" in body));
  }
  // What is folded away is found when it is wrong, and shown when it is set.
  await page.click("#open-settings");
  await page.click("#settings summary");
  await page.fill("[name=presence_penalty]", "7");
  await page.fill("[name=stop]", "\nEND\n\n  two words\n");
  await page.selectOption("[name=think]", "off");
  await page.click("#settings summary");
  await page.getByRole("button", { name: "Done" }).click();
  assert.ok(await page.locator("[name=presence_penalty]").isVisible());
  await page.fill("[name=presence_penalty]", "0.5");
  await page.getByRole("button", { name: "Done" }).click();
  await page.reload();
  await ready(page);
  await ask(page, "hello");
  await rest(page);
  const { presence_penalty: penalty, stop, think } = fake.state.requests.at(-1);
  assert.deepEqual([penalty, stop, think], [0.5, ["END", "  two words"], false]);
  await page.click("#open-settings");
  assert.ok(await page.locator("[name=stop]").isVisible());
});

test("colours are the system's until others are chosen", async ({ page, context }) => {
  const paper = (color) => page.waitForFunction((want) => getComputedStyle(document.body).backgroundColor === want, color);
  const [light, dark] = ["rgb(250, 249, 247)", "rgb(25, 24, 22)"];
  await paper(light);
  const other = await context.newPage();
  await other.goto(page.url());
  await page.click("#open-settings");
  await page.selectOption("[name=theme]", "dark");
  await page.getByRole("button", { name: "Done" }).click();
  await paper(dark);
  await other.waitForFunction(() => document.documentElement.dataset.theme === "dark");
  await page.reload();
  await ready(page);
  await paper(dark);
  await page.emulateMedia({ colorScheme: "dark" });
  await page.click("#open-settings");
  await page.selectOption("[name=theme]", "light");
  await page.getByRole("button", { name: "Done" }).click();
  await paper(light);
  await page.click("#open-settings");
  await page.selectOption("[name=theme]", "");
  await page.getByRole("button", { name: "Done" }).click();
  await paper(dark);
});

test("errors are told where they happen, and can be tried again", async ({ page, fake, quiet }) => {
  quiet(/500|400/);
  fake.state.fails = 1;
  await ask(page, "error");
  await rest(page);
  assert.equal(await page.locator(".failure").innerText(), "The disk went away.");
  await page.getByRole("button", { name: "Try again" }).click();
  await page.waitForFunction(() => /I heard/.test(document.querySelector(".answer > .prose")?.textContent));
  await rest(page);
  assert.equal(await page.locator(".failure:visible").count(), 0);
  await ask(page, "too long");
  await rest(page);
  assert.match(await page.locator(".failure:visible").innerText(), /too long: 5000 of 4096 tokens.*-c 8192/);
  await page.click("#fresh");
  await ask(page, "error later");
  await rest(page);
  assert.match(await lastAnswer(page), /I heard/);
  assert.match(await page.locator(".failure:visible").innerText(), /changed while it was read/);
});

test("a connection that breaks keeps what has come", async ({ page, quiet }) => {
  quiet(/ERR_|Failed to load|404/);
  await ask(page, "cut off");
  await rest(page);
  assert.match(await lastAnswer(page), /I heard/);
  assert.match(await page.locator(".note-line").innerText(), /interrupted before it was complete/);
  assert.ok(await page.getByRole("button", { name: "Continue" }).isVisible());
});

test("a server that goes away and comes back is noticed", async ({ page, fake, quiet }) => {
  quiet(/ERR_|Failed to load|50[03]/);
  const port = Number(new URL(fake.url).port);
  fake.stop();
  await page.waitForFunction(() => /does not answer/.test(document.getElementById("plan").innerText));
  await ask(page, "hello");
  await rest(page);
  assert.match(await page.locator(".failure").innerText(), /does not answer/);
  const again = await start({ port, loading: true });
  try {
    await page.waitForFunction(() => /being loaded/.test(document.getElementById("plan").innerText));
    again.state.loading = false;
    await ready(page);
    await page.getByRole("button", { name: "Try again" }).click();
    await page.waitForFunction(() => /Hello there/.test(document.querySelector(".answer > .prose")?.textContent));
  } finally {
    again.stop();
  }
});

test("a key is asked for, kept for the tab, and sent", async ({ page, fake, quiet }) => {
  quiet(/401/);
  fake.state.key = "secret";
  await page.reload();
  await page.waitForSelector("#key[open]");
  await page.fill("#key-value", "wrong");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#key[open] #key-wrong:not([hidden])");
  assert.equal(await page.locator("#key-wrong").innerText(), "That key is not the one.");
  await page.fill("#key-value", "secret");
  await page.keyboard.press("Enter");
  await ready(page);
  await ask(page, "hello");
  await rest(page);
  assert.equal(await lastAnswer(page), "Hello there.");
  await page.reload();
  await ready(page);
  assert.equal(await page.locator("#key[open]").count(), 0);
  assert.equal(await page.evaluate(() => Object.values(localStorage).join().includes("secret")), false);
});

test("who gives no key is asked again only for an answer", async ({ page, fake, quiet }) => {
  quiet(/401/);
  fake.state.key = "secret";
  await page.reload();
  await page.waitForSelector("#key[open]");
  await page.keyboard.press("Escape");
  await page.waitForTimeout(1500);
  assert.equal(await page.locator("#key[open]").count(), 0);
  await ask(page, "hello");
  await page.waitForSelector("#key[open]");
  await page.fill("#key-value", "secret");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /Hello there/.test(document.querySelector(".answer > .prose")?.textContent));
  await ready(page);
});

test("Markdown becomes headings, lists, tables and code", async ({ page }) => {
  await ask(page, "markdown");
  await rest(page);
  const count = (selector) => page.locator(`.answer ${selector}`).count();
  for (const [selector, n] of [["h3", 1], ["em", 1], ["strong", 1], ["del", 1], ["ol > li", 2], ["ol ul > li", 1], ["li.task input", 2],
    ["blockquote", 1], ["table tbody tr", 2], ["hr", 1], ["pre code", 1], ["a[href='https://example.com/']", 1], ["p br", 1]]) {
    assert.equal(await count(selector), n, selector);
  }
  assert.match(await lastAnswer(page), /text with marks, code & a link/);
  assert.equal(await page.locator(".prose a").first().getAttribute("rel"), "noopener noreferrer nofollow");
  const aligned = await page.locator("td.to-right").first().evaluate((node) => getComputedStyle(node).textAlign);
  assert.equal(aligned, "right");
});

test("code is copied to the letter", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await ask(page, "code");
  await rest(page);
  await page.locator(".copy").click();
  await page.waitForFunction(() => document.querySelector(".copy").innerText === "Copied");
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^fn main\(\) \{\n {4}println!.*\n\}$/);
});

test("a hostile answer stays text", async ({ page }) => {
  for (const way of ["streamed", "reloaded"]) {
    if (way === "streamed") {
      await ask(page, "hostile");
      await rest(page);
    } else {
      await page.reload();
      await ready(page);
    }
    const prose = page.locator(".answer > .prose");
    assert.match(await prose.innerText(), /<img src=x onerror=.*[\s\S]*<script>[\s\S]*The end\./, way);
    assert.equal(await prose.locator("img, script, svg, iframe, [onerror], [onload]").count(), 0, way);
    const links = await prose.locator("a").evaluateAll((nodes) => nodes.map((node) => node.href));
    assert.deepEqual(links, ["https://example.com/a?b=c&d"], way);
    assert.equal(await page.evaluate(() => window.hacked), undefined, way);
  }
  // The question too.
  await ask(page, "<img src=x onerror=window.hacked=12><b>bold</b>");
  await rest(page);
  assert.equal(await page.locator(".bubble img, .bubble b").count(), 0);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
});

test("an answer that is nested without end is shown", async ({ page }) => {
  await ask(page, "deep");
  await rest(page);
  assert.match(await page.locator(".answer").innerText(), /deep/);
});

test("thoughts are folded away from the answer", async ({ page }) => {
  await ask(page, "think");
  await rest(page);
  assert.equal(await lastAnswer(page), "Forty-two.");
  assert.equal(await page.locator(".thought").getAttribute("open"), null);
  await page.locator(".thought summary").click();
  assert.match(await page.locator(".thought").innerText(), /Let me see/);
});

test("everything is done by keyboard", async ({ page, fake }) => {
  const focus = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
  assert.equal(await focus(), "question");
  await page.keyboard.type("hello");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("there");
  assert.equal(await page.inputValue("#question"), "hello\nthere");
  await page.keyboard.press("Enter");
  await rest(page);
  assert.equal(fake.state.requests[0].messages[0].content, "hello\nthere");
  assert.equal(await focus(), "question");
  // Backwards through the answer's buttons to the bar; each is seen to have the focus.
  const seen = [];
  for (let i = 0; i < 20; i++) {
    await page.keyboard.press("Shift+Tab");
    seen.push(await focus());
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    if (document_is_page(seen.at(-1))) assert.notEqual(outline, "none", seen.at(-1));
    if (seen.at(-1) === "Skip to the question") break;
  }
  for (const name of ["attach", "Try again", "Copy", "Edit", "blocks-toggle", "open-settings", "fresh", "open-chats", "Skip to the question"]) assert.ok(seen.includes(name), `${name} in ${seen}`);
  await page.keyboard.press("Enter");
  assert.equal(await focus(), "question");
  assert.equal(await page.locator(".answer").count(), 1);
  // The drawer takes the focus, and gives it back.
  await page.focus("#open-settings");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#settings[open]");
  assert.ok(await page.evaluate(() => document.getElementById("settings").contains(document.activeElement)));
  await page.keyboard.press("Escape");
  assert.equal(await focus(), "open-settings");
  // A question is changed, and given up; a conversation is found, renamed, deleted and brought back.
  await page.focus("#question");
  for (let i = 0; i < 20 && await focus() !== "Edit"; i++) await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".rewrite:focus");
  await page.keyboard.type(" again");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator(".answer").count(), 1);
  await page.focus("#open-chats");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#chats[open]");
  const tabTo = async (name) => {
    for (let i = 0; i < 20; i++) {
      if ((await page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent)).startsWith(name)) return;
      await page.keyboard.press("Tab");
    }
    assert.fail(`no way to ${name}`);
  };
  await tabTo("Rename");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("By keys");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /By keys/.test(document.getElementById("chat-list").innerText));
  await tabTo("Delete By keys");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll("#chat-list .chat").length === 0);
  await tabTo("Undo");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll("#chat-list .chat").length === 1);
  assert.equal(await focus(), "question");
  await page.focus("#open-chats");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#chats[open]").count(), 0);
  // Escape in a dialog closes the dialog and leaves the answer alone.
  await ask(page, "endless");
  await page.focus("#open-settings");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#settings[open]");
  await page.keyboard.press("Escape");
  assert.ok(await page.evaluate(() => document.body.classList.contains("busy")));
  await page.keyboard.press("Escape");
  await rest(page);
});

const document_is_page = (name) => name !== "" && name !== "body";

test("everything has a name, and answers are announced", async ({ page }) => {
  await ask(page, "markdown");
  await rest(page);
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input, textarea, a, summary")].filter((node) => {
    const label = node.labels?.[0]?.textContent ?? "";
    return !(node.getAttribute("aria-label") || node.title || node.textContent.trim() || label.trim());
  }).map((node) => node.outerHTML));
  assert.deepEqual(nameless, []);
  // Once, when it is complete.
  assert.equal(await page.locator("#status").getAttribute("aria-live"), "polite");
  assert.match(await page.locator("#status").textContent(), /^# Title/);
  assert.equal(await page.locator("#messages").getAttribute("aria-live"), "off");
  const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map((node) => node.id));
  assert.equal(new Set(ids).size, ids.length);
});

test("an answer is followed until the reader looks back", async ({ page }) => {
  await page.setViewportSize({ width: 360, height: 420 });
  await ask(page, "endless");
  const fromEnd = () => page.evaluate(() => { const t = document.getElementById("talk"); return t.scrollHeight - t.scrollTop - t.clientHeight; });
  await page.waitForFunction(() => document.getElementById("talk").scrollTop > 300);
  assert.ok(await fromEnd() < 100);
  await page.mouse.move(180, 200);
  await page.mouse.wheel(0, -100000);
  await page.waitForSelector("#down:not([hidden])");
  await page.waitForTimeout(500);
  assert.equal(await page.evaluate(() => document.getElementById("talk").scrollTop), 0);
  await page.click("#down");
  await page.waitForFunction(() => document.getElementById("talk").scrollTop > 300);
  await page.keyboard.press("Escape");
});

test("80 blocks can be told apart on a phone", async ({ page, fake }) => {
  fake.state.deep = true;
  await page.reload();
  await ready(page);
  const cells = await page.locator("#strip .block").evaluateAll((nodes) => nodes.map((node) => {
    const { x, y, width, height } = node.getBoundingClientRect();
    return { x, y, width, height, parts: [...node.children].map((part) => part.getBoundingClientRect().width) };
  }));
  assert.equal(cells.length, 80);
  assert.ok(cells.every(({ width, height, parts }) => width >= 3 && height >= 8 && parts.length === 1 && parts[0] >= 3), JSON.stringify(cells[0]));
  assert.equal(new Set(cells.map(({ y }) => y)).size, 2);
  await ask(page, "endless");
  for (const state of ["reading", "computing"]) await page.waitForSelector(`#strip i.${state}`, { state: "attached" });
  // Where there is room, parts are shown.
  await page.setViewportSize({ width: 1600, height: 800 });
  await page.waitForTimeout(300);
  await page.keyboard.press("Escape");
}, { options: PHONE });

test("slots fill and empty, and the sum is told", async ({ page }) => {
  await page.click("#blocks-toggle");
  assert.equal(await page.locator("#slots .slot").count(), 2);
  await ask(page, "endless");
  await page.waitForFunction(() => [...document.querySelectorAll(".slot")].every((slot) => /block \d+/.test(slot.innerText)));
  await page.waitForFunction(() => /^6.7 GB a token, read in time.* → 3.4 tokens\/s, limited by computing$/.test(document.getElementById("formula").innerText));
  await page.keyboard.press("Escape");
});

for (const [name, options] of [["a desk", DESK], ["a phone", PHONE]]) {
  test(`60 blocks of 512 experts can be told apart on ${name}`, async ({ page, fake, quiet }) => {
    // That is about this test, which reads canvases.
    quiet(/willReadFrequently/);
    fake.state.mixture = true;
    await page.reload();
    await ready(page);
    assert.equal(fake.state.looks, undefined);
    await page.click("#blocks-toggle");
    await page.waitForFunction(() => /uses 10 of the 512 experts of each block.*5760 of 30720 experts are in memory, in 60 blocks; 80 % of uses/
      .test(document.getElementById("expert-words").innerText));
    // Colours at a place of a canvas: (x, y) in shares of its size.
    const at = (id, x, y) => page.evaluate(([name, left, top]) => {
      const canvas = document.getElementById(name);
      return [...canvas.getContext("2d").getImageData(left * canvas.width, top * canvas.height, 1, 1).data].join();
    }, [id, x, y]);
    const map = await page.locator("#expert-map").evaluate(({ clientWidth, clientHeight }) => [clientWidth, clientHeight]);
    assert.ok(map[1] >= 300 && map[0] >= 200, map);
    // Each expert of one block is seen; the first ones are used most, not there, and so on.
    const grid = await page.locator("#expert-cells").evaluate(({ clientWidth, clientHeight }) => {
      const columns = Math.floor(clientWidth / 9);
      return { columns, side: Math.min(18, clientWidth / columns), rows: Math.ceil(512 / columns), width: clientWidth, height: clientHeight };
    });
    assert.ok(grid.side >= 9 && Math.abs(grid.height - grid.rows * grid.side) < 2, JSON.stringify(grid));
    const cell = (e) => at("expert-cells", (e % grid.columns + 0.4) * grid.side / grid.width, (Math.floor(e / grid.columns) + 0.4) * grid.side / grid.height);
    const colours = [await cell(0), await cell(1), await cell(3), await cell(11)];
    assert.equal(new Set(colours).size, 4, colours);
    assert.equal(await cell(7), colours[1]);
    assert.equal(await cell(16), colours[0]);
    // What has come since the last look is shown as read, and then as there.
    await page.waitForFunction(() => /7680 of 30720/.test(document.getElementById("expert-words").innerText));
    // By keyboard and by pointer another block is chosen.
    await page.focus("#expert-block");
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction(() => /^block 1: 128 of 512 experts in memory; 83 % of uses found theirs there; used most: 15, 31, 47\.$/.test(document.getElementById("expert-one").innerText));
    assert.equal(await page.locator("#expert-block").getAttribute("aria-valuetext"), "block 1");
    await page.locator("#expert-map").click({ position: { x: 40, y: map[1] * 30.5 / 60 } });
    assert.match(await page.locator("#expert-one").innerText(), /^block 30:/);
    await page.click("#expert-details summary");
    await page.waitForFunction(() => document.querySelectorAll("#expert-table tr").length === 60);
    assert.equal(await page.locator("#expert-table tr").nth(2).innerText(), "block 2\t128\t83 %\t1.0 GB");
    // Nobody looks any more, and nothing is asked.
    await page.click("#blocks-toggle");
    await page.waitForTimeout(300);
    const { looks } = fake.state;
    await page.waitForTimeout(1500);
    assert.equal(fake.state.looks, looks);
  }, { options });
}

for (const [name, options] of [["a desk", DESK], ["a phone in the dark", { ...PHONE, colorScheme: "dark" }]]) {
  test(`axe finds nothing on ${name}`, async ({ page, context, fake }) => {
    const axe = readFileSync(client.resolve("axe-core/axe.min.js"), "utf8");
    const check = async (where) => {
      await page.waitForTimeout(250);
      // The page's policy lets no other script in; what the driver evaluates is not the page's.
      await page.evaluate(axe);
      const found = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
      assert.deepEqual(found.violations.map(({ id, nodes }) => `${where}: ${id}: ${nodes.map((node) => node.html).join(" ").slice(0, 300)}`), []);
    };
    await context.grantPermissions([]);
    await check("empty");
    for (const text of ["maths", "markdown", "think"]) {
      await ask(page, text);
      await rest(page);
    }
    await page.click("#blocks-toggle");
    await check("a conversation");
    fake.state.mixture = true;
    await page.reload();
    await ready(page);
    await page.click("#blocks-toggle");
    await page.click("#expert-details summary");
    await page.waitForSelector("#expert-table tr");
    await check("a mixture");
    await page.getByRole("article", { name: "You" }).first().getByRole("button", { name: "Edit" }).click({ force: true });
    await check("an edit");
    await page.keyboard.press("Escape");
    await page.getByRole("article", { name: "Answer" }).first().getByRole("button", { name: "Edit" }).click({ force: true });
    await check("an edited answer");
    await page.keyboard.press("Escape");
    await page.getByRole("article", { name: "You" }).first().getByRole("button", { name: "Delete" }).click({ force: true });
    await check("a deleted question");
    await page.keyboard.press("Control+/");
    await check("keys");
    await page.keyboard.press("Escape");
    await page.click("#open-settings");
    await check("settings");
    await page.keyboard.press("Escape");
    await page.click("#open-chats");
    await check("the list");
    await page.keyboard.press("Escape");
  }, { options });
}

test("20,000 pieces are drawn, and the reader's place is kept", async ({ page, fake }) => {
  fake.state.flood = 20_000;
  await ask(page, "flood");
  const begin = Date.now();
  // In the middle of it somebody reads its beginning.
  await page.waitForFunction(() => document.getElementById("talk").scrollHeight > 3 * innerHeight);
  await page.mouse.move(600, 400);
  await page.mouse.wheel(0, -1_000_000);
  await page.waitForSelector("#down:not([hidden])");
  const where = () => page.evaluate(() => document.getElementById("talk").scrollTop);
  await page.waitForTimeout(400);
  const place = await where();
  await page.waitForFunction(() => /piece 19999/.test(document.querySelector(".answer > .prose")?.textContent));
  await rest(page);
  assert.equal(await where(), place);
  console.log(`        (drawn in ${((Date.now() - begin) / 1000).toFixed(1)} s)`);
  assert.ok((await lastAnswer(page)).length > 80_000);
});

test("nothing moves for those who want no motion", async ({ page }) => {
  await ask(page, "slow");
  await page.waitForSelector(".wait");
  const moves = await page.evaluate(() => document.getAnimations().filter((a) => a.playState === "running").length);
  assert.equal(moves, 0);
  await page.keyboard.press("Escape");
}, { options: { ...DESK, reducedMotion: "reduce" } });

for (const colorScheme of ["light", "dark"]) {
  test(`text can be read on a phone, ${colorScheme}`, async ({ page }) => {
    await ask(page, "markdown");
    await rest(page);
    await page.tap("#blocks-toggle");
    const poor = await page.evaluate(contrasts);
    assert.deepEqual(poor, []);
    for (const width of [320, 360, 768]) {
      await page.setViewportSize({ width, height: 640 });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${width}: ${wide} too wide`);
    }
    await page.setViewportSize({ width: 320, height: 640 });
    await page.tap("#open-settings");
    await page.waitForFunction(() => document.getElementById("settings").getAnimations().length === 0);
    const box = await page.locator("#settings").boundingBox();
    assert.ok(box.width <= 320 && box.x >= 0);
    await page.getByRole("button", { name: "Close" }).tap();
    // Fingers are wide.
    for (const id of ["#fresh", "#open-settings", "#open-chats", "#attach", "#send"]) {
      const { width, height } = await page.locator(id).boundingBox();
      assert.ok(width >= 34 && height >= 34, `${id}: ${width} x ${height}`);
    }
  }, { options: { ...PHONE, colorScheme } });
}

/** Runs in the page: texts whose contrast to what is behind them is below 4.5 (WCAG AA). */
function contrasts() {
  const rgb = (text) => text.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0.99) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("p, span, button, li, td, th, dt, dd, b, h1, h3, code, div.bubble, a, summary")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.disabled || !node.checkVisibility() || node.closest(".sr, .skip")) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName} ${node.className} ${ratio.toFixed(2)}: ${node.textContent.trim().slice(0, 30)}`);
  }
  return poor;
}

messages.add({ test, ask, rest, ready, lastAnswer, PHONE });

// --- the real program

test("the real server answers, streams and stops", async ({ page, real }) => {
  assert.match(await page.locator("#plan").innerText(), /blocks/);
  await ask(page, "What is the capital of Mongolia?");
  await rest(page);
  assert.equal(await page.locator(".failure:visible").count(), 0);
  assert.ok((await lastAnswer(page)).length > 0);
  assert.match(await page.locator(".rate").last().innerText(), /\d+ tokens?/);
  await page.reload();
  await ready(page);
  assert.ok((await answers(page)).some((text) => text.trim().length > 0));
  // Whoever does not ask for a page gets none.
  const response = await page.request.get(real.url, { headers: { accept: "text/html" } });
  assert.match(response.headers()["content-security-policy"], /default-src 'none'/);
  assert.equal((await page.request.get(`${real.url}assets/nothing.js`)).status(), 404);
}, { real: true });

test("the real server's answer outlives a reload, and its context goes on", async ({ page }) => {
  await ask(page, "Tell me a story.");
  await page.waitForFunction(() => (document.querySelector(".answer > .prose")?.textContent.length ?? 0) > 10);
  await page.reload();
  await ready(page);
  await rest(page);
  assert.equal(await page.locator(".note-line:visible").count(), 0, await page.locator(".note-line").innerText());
  for (let i = 0; i < 6; i++) {
    await ask(page, "Tell me another story, please, about a fox and a hen.");
    await page.waitForFunction((n) => document.querySelectorAll(".answer").length > n, i + 1);
    await rest(page);
    assert.equal(await page.locator(".failure:visible").count(), 0);
  }
  assert.match(await page.locator(".divider").innerText(), /left out/);
  assert.match(await page.locator(".left-out:visible").last().innerText(), /oldest/);
}, { real: true });

for (const [name, options] of [["a desk", DESK], ["a phone", PHONE]]) {
  test(`the timeline of a run begins with the life of a block, on ${name}`, async ({ context, quiet }) => {
    quiet(/503/);
    const file = join(mkdtempSync(join(tmpdir(), "airrun-")), "run.html");
    const args = ["run", process.env.AIRRUN_MODEL, "Tell me a story.", "-n", "6", "--temp", "0", "--stream", "always", "--draft", "none", "-t", "1", "--trace", file];
    execFileSync(process.env.AIRRUN_BIN, args, { stdio: "ignore", env: { ...process.env, AIRRUN_CONFIG: "" } });
    const page = await context.newPage();
    const wrong = [];
    page.on("pageerror", (error) => wrong.push(error.stack));
    page.on("request", (request) => { if (!request.url().startsWith("file:")) wrong.push(request.url()); });
    await page.goto(`file://${file}`);
    await page.waitForSelector("#main:not([hidden])");
    assert.match(await page.locator("#so").innerText(), /^(Limited by|Computing and reading|Nothing was)[^.]*\d+ % of the time/);
    // A few blocks of the second pass, of which one is told; then the whole run, and back.
    const seen = () => page.evaluate(() => {
      const there = (name) => rows.filter((row) => row.name.startsWith(name)).flatMap((row) => row.events).filter((e) => e.to > view[0] && e.from < view[1]);
      return { titles: rows.map(({ title }) => title), reads: there("reader").length, computed: there("compute").length, told: example?.name ?? "", all: view[1] - view[0] >= end };
    });
    const first = await seen();
    assert.deepEqual(first.titles.filter((title) => title.startsWith("slot")).slice(0, 2), ["slot 1", "slot 2"]);
    for (const title of ["being read", "computing", "processor waits", "passes"]) assert.ok(first.titles.some((one) => one.startsWith(title)), `${title} in ${first.titles}`);
    assert.ok(first.computed >= 2 && first.computed <= 24 && first.reads <= 24, JSON.stringify(first));
    assert.match(first.told, /^block \d+/);
    assert.equal(first.all, false);
    // Where it was drawn, there is something, and each lane has colours of its own.
    const colours = () => page.evaluate(() => rows.map((row, k) => {
      const canvas = document.getElementById("view");
      const scale = canvas.width / canvas.clientWidth;
      const { data } = canvas.getContext("2d").getImageData(118 * scale, (upper(k) + row.height / 2) * scale, canvas.width - 128 * scale, 1);
      return new Set(Array.from({ length: data.length / 4 }, (_, i) => data.slice(4 * i, 4 * i + 3).join())).size;
    }));
    const lanes = await colours();
    first.titles.forEach((title, k) => { if (title.startsWith("slot") || title === "computing") assert.ok(lanes[k] > 2, `${title}: ${lanes}`); });
    const names = await page.evaluate(() => events_of("compute").map((e) => e.name));
    for (const one of names) assert.match(one, /^(block \d+|blocks (\d+|after|before)|embedding|output)/);
    await page.getByRole("button", { name: "Whole run" }).click();
    assert.ok((await seen()).all);
    await page.getByRole("button", { name: "A few blocks" }).click();
    assert.deepEqual(await seen(), first);
    // By keyboard.
    await page.focus("#view");
    const wide = () => page.evaluate(() => view[1] - view[0]);
    const before = await wide();
    await page.keyboard.press("+");
    assert.ok(await wide() < before);
    await page.keyboard.press("0");
    assert.ok((await seen()).all);
    // Without seeing it.
    await page.getByText("As a table").click();
    assert.equal(await page.locator("#table tr").count(), 1 + await page.evaluate(() => passes.length));
    await page.evaluate(readFileSync(client.resolve("axe-core/axe.min.js"), "utf8"));
    const found = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
    assert.deepEqual(found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ").slice(0, 300)}`), []);
    const sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(sideways <= 0, `the timeline scrolls sideways by ${sideways}`);
    assert.deepEqual(wrong, []);
  }, { real: true, options });
}

// --- running them

const until = async (holds) => {
  const end = Date.now() + PATIENCE;
  while (!holds()) {
    assert.ok(Date.now() < end, "it takes too long");
    await new Promise((resume) => { setTimeout(resume, 20); });
  }
};

/** Starts the program, and waits until it says where it listens. */
async function startReal() {
  const args = ["serve", process.env.AIRRUN_MODEL, "--port", "0", "--stream", "always", "-t", "1", "-c", "256"];
  const child = spawn(process.env.AIRRUN_BIN, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, AIRRUN_CONFIG: "" } });
  let said = "";
  for (const out of [child.stdout, child.stderr]) out.on("data", (data) => { said += data; });
  await until(() => child.exitCode !== null || /http:\/\/[\d.]+:\d+/.test(said));
  const url = /http:\/\/[\d.]+:\d+/.exec(said)?.[0];
  assert.ok(url, `airrun serve ended: ${said}`);
  return { url: `${url}/`, stop: () => child.kill() };
}

async function attempt(browser, { body, options = DESK, real: wantsReal, quiet: expected }) {
  const server = wantsReal ? await startReal() : await start();
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const said = [];
  // What is asked while the real one loads its model is refused.
  const quieted = [...(expected ? [expected] : []), ...(wantsReal ? [/503.*\/(status|models)$/] : [])];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) said.push(`${message.text()} ${message.location().url}`); });
  page.on("pageerror", (error) => said.push(error.stack));
  try {
    await page.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => { console.error(`policy: ${event.violatedDirective} ${event.sourceFile}`); });
    });
    await page.goto(server.url);
    await ready(page);
    await body({ page, context, fake: server, real: server, quiet: (pattern) => quieted.push(pattern) });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `the page scrolls sideways by ${wide}`);
    assert.deepEqual(said.filter((text) => !quieted.some((pattern) => pattern.test(text))), []);
  } finally {
    await context.close();
    server.stop();
  }
}

const word = process.argv[2] ?? "";
const browser = await chromium.launch({
  executablePath: process.env.AIRRUN_BROWSER ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
let failed = 0;
for (const one of tests.filter(({ name }) => name.includes(word))) {
  if (one.real && !process.env.AIRRUN_BIN) {
    console.error(`skipped: ${one.name}: AIRRUN_BIN is not set`);
    if (process.env.AIRRUN_TEST_NO_SKIP === "1") failed++;
    continue;
  }
  try {
    await attempt(browser, one);
    console.log(`ok      ${one.name}`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${one.name}\n${error.stack}`);
  }
}
await browser.close();
console.log(failed ? `${failed} failed` : "all well");
process.exitCode = failed ? 1 : 0;
