// How good is the time left that the page tells while a prompt is read? It asks a long question in a Chromium without a window, notes each
// promise, and compares it with what was left in fact, from a third of the way on. Prints one line of JSON.
//
//   AIRRUN_CLIENT=target/browser node bench/time_left.mjs target/release/airrun MODEL SENTENCES [FLAGS...]

import { spawn } from "node:child_process";
import { createRequire } from "node:module";

const client = createRequire(`${process.env.AIRRUN_CLIENT ?? `${process.cwd()}/target/browser`}/`);
const { chromium } = client("playwright-core");
const [binary, model, sentences, ...flags] = process.argv.slice(2);
const PATIENCE = 900_000;

const server = spawn(binary, ["serve", model, "--port", "0", ...flags], { stdio: ["ignore", "pipe", "pipe"] });
let said = "";
for (const out of [server.stdout, server.stderr]) out.on("data", (data) => { said += data; });
while (!/ready/.test(said)) await new Promise((resume) => { setTimeout(resume, 50); });

const browser = await chromium.launch({ executablePath: process.env.AIRRUN_BROWSER ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage();
  await page.goto(/http:\/\/[\d.]+:\d+/.exec(said)[0]);
  await page.waitForFunction(() => document.getElementById("plan").dataset.live === "yes", null, { timeout: PATIENCE });
  await page.evaluate(() => {
    window.told = [];
    new MutationObserver(() => {
      const words = [...document.querySelectorAll(".wait-words")].at(-1)?.textContent ?? "";
      if (words !== window.told.at(-1)?.[1]) window.told.push([performance.now(), words]);
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  const begin = await page.evaluate(() => performance.now());
  await page.fill("#question", Array.from({ length: Number(sentences) }, (_, i) => `Tell me about the fox and the hen, number ${i}.`).join(" "));
  await page.press("#question", "Enter");
  await page.waitForFunction(() => (document.querySelector(".answer > .prose")?.textContent.length ?? 0) > 0, null, { timeout: PATIENCE });
  const [end, told] = await page.evaluate(() => [performance.now(), window.told]);
  console.log(JSON.stringify(judge(told, begin, end)));
} finally {
  await browser.close();
  server.kill();
}

/** As `time_left.py` judges. */
function judge(told, begin, end) {
  const all = (end - begin) / 1000;
  const late = told.flatMap(([at, words]) => {
    const found = /, (?:(\d+) h ?)?(?:(\d+) min ?)?(?:(\d+) s )?left/.exec(words);
    const [hours, minutes, seconds] = (found ?? []).slice(1).map((n) => Number(n ?? 0));
    return found && (at - begin) / 1000 > all / 3 ? [[3600 * hours + 60 * minutes + seconds, (end - at) / 1000]] : [];
  });
  const ofWhole = late.map(([left, real]) => Math.abs(left - real) / all);
  const ofLeft = late.filter(([, real]) => real > Math.max(4, all / 20)).map(([left, real]) => Math.abs(left - real) / real);
  const figures = (errors) => {
    const sorted = [...errors].sort((a, b) => a - b);
    return { median: sorted[sorted.length >> 1], worst: sorted.at(-1) };
  };
  return { seconds: all, promises: late.length, of_whole: figures(ofWhole), of_what_was_left: figures(ofLeft),
    within_25_percent: ofLeft.filter((error) => error <= 0.25).length / ofLeft.length };
}
