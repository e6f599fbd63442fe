// Tests of what is done to single messages, and of the keys that do what buttons do.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

/** Adds the tests; `tools` are the runner's. */
export function add({ test, ask, rest, ready, lastAnswer, PHONE }) {
  const shown = (page) => page.locator("article").evaluateAll((nodes) => nodes.map((node) => (node.querySelector(":scope > .bubble, :scope > .prose") ?? node).innerText.trim()));
  const contents = (body) => body.messages.map(({ role, content }) => `${role}: ${content}`);
  const question = (page, at) => page.getByRole("article", { name: "You" }).nth(at);
  const answer = (page, at) => page.getByRole("article", { name: "Answer" }).nth(at);
  const press = async (message, name) => {
    await message.hover();
    await message.getByRole("button", { name, exact: true }).click();
  };
  const talk = async (page, ...questions) => {
    for (const text of questions) {
      await ask(page, text);
      await rest(page);
    }
  };
  /** Everything that the browser keeps of messages. */
  const kept = (page) => page.evaluate(() => new Promise((resolve) => {
    indexedDB.open("airrun").onsuccess = ({ target: { result } }) => {
      const all = result.transaction("chats").objectStore("chats").getAll();
      all.onsuccess = () => resolve(all.result.flatMap(({ title, nodes }) => [title, ...Object.values(nodes).map(({ text }) => text)]));
    };
  }));

  test("an answer is edited, and the old one stays beside it", async ({ page, fake }) => {
    await talk(page, "hello", "think");
    // Esc discards, also what a reload would find.
    await press(answer(page, 0), "Edit");
    assert.equal(await page.inputValue(".rewrite"), "Hello there.");
    await page.keyboard.type(" More.");
    await page.keyboard.press("Escape");
    await page.reload();
    await ready(page);
    assert.deepEqual(await shown(page), ["hello", "Hello there.", "think", "Forty-two."]);
    // Nothing to keep: no button for it.
    await press(answer(page, 0), "Edit");
    await page.fill(".rewrite", " ");
    assert.ok(await page.getByRole("button", { name: "Save", exact: true }).isDisabled());
    // A line break is one; the keys for saving save.
    await page.fill(".rewrite", "Good day");
    await page.press(".rewrite", "Enter");
    await page.keyboard.type("to you");
    await page.keyboard.press("Control+Enter");
    await page.waitForFunction(() => document.querySelectorAll("article").length === 2);
    assert.deepEqual(await shown(page), ["hello", "Good day to you"]);
    assert.equal(await answer(page, 0).locator(".which").innerText(), "2/2");
    assert.match(await page.locator(".note-line:visible").innerText(), /You edited/);
    assert.equal(fake.state.requests.length, 2);
    // What comes next is asked behind it.
    await talk(page, "code");
    assert.deepEqual(contents(fake.state.requests.at(-1)), ["user: hello", "assistant: Good day\nto you", "user: code"]);
    await press(answer(page, 0), "Previous version");
    assert.deepEqual(await shown(page), ["hello", "Hello there.", "think", "Forty-two."]);
    await kept(page);
    await page.reload();
    await ready(page);
    await press(answer(page, 0), "Next version");
    assert.equal((await shown(page)).length, 4);
    assert.equal((await shown(page))[1], "Good day to you");
  });

  test("an edited answer is continued from its text, and keeps its thoughts", async ({ page, fake }) => {
    await talk(page, "hello");
    await press(answer(page, 0), "Edit");
    await page.fill(".rewrite", "Well met");
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await press(answer(page, 0), "Continue");
    await page.waitForFunction(() => /to the end/.test(document.querySelector(".answer > .prose").innerText));
    await rest(page);
    const body = fake.state.requests.at(-1);
    assert.deepEqual([contents(body), body.continue_final_message], [["user: hello", "assistant: Well met"], true]);
    for (const text of ["think", "reason"]) {
      await talk(page, text);
      const last = (await page.locator(".answer").count()) - 1;
      await press(answer(page, last), "Edit");
      await page.fill(".rewrite", "Forty-three.");
      await page.getByRole("button", { name: "Save", exact: true }).click();
      await page.waitForFunction(() => /Forty-three/.test([...document.querySelectorAll(".answer > .prose")].at(-1).innerText));
      assert.equal(await lastAnswer(page), "Forty-three.");
      await answer(page, last).locator(".thought summary").click();
      assert.match(await answer(page, last).locator(".thought").innerText(), /Let me see/);
    }
  });

  test("nothing is lost when an answer comes while another is edited", async ({ page }) => {
    await talk(page, "hello");
    await press(answer(page, 0), "Edit");
    await page.fill(".rewrite", "My own words");
    await ask(page, "endless");
    await page.waitForFunction(() => /word 1 /.test([...document.querySelectorAll(".answer > .prose")].at(-1)?.textContent));
    await page.press(".rewrite", "Control+Enter");
    assert.equal(await page.inputValue(".rewrite"), "My own words");
    await page.click("#send");
    await rest(page);
    await page.press(".rewrite", "Control+Enter");
    await page.waitForFunction(() => document.querySelectorAll("article").length === 2);
    assert.deepEqual(await shown(page), ["hello", "My own words"]);
  });

  test("one message is deleted, and brought back", async ({ page, fake }) => {
    await talk(page, "hello", "think", "code");
    const all = await shown(page);
    await press(question(page, 1), "Delete");
    assert.deepEqual(await shown(page), all.filter((_, at) => at !== 2));
    // By then nothing of it is kept; who undoes it gets it back as it was.
    await page.waitForFunction(() => document.activeElement.textContent === "Undo");
    for (let i = 0; (await kept(page)).includes("think"); i++) assert.ok(i < 1000);
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelectorAll("article").length === 6);
    assert.deepEqual(await shown(page), all);
    for (let i = 0; !(await kept(page)).includes("think"); i++) assert.ok(i < 1000);
    // Without the question: two answers become one; without the answer: two questions do.
    await press(question(page, 1), "Delete");
    await press(answer(page, 2), "Delete");
    // A reload within the same moment would come before what is kept.
    for (let i = 0; (await kept(page)).includes("Here is a function"); i++) assert.ok(i < 1000);
    await page.reload();
    await ready(page);
    assert.deepEqual(await shown(page), [all[0], all[1], all[3], all[4]]);
    await talk(page, "hello");
    const sent = fake.state.requests.at(-1).messages;
    assert.deepEqual(sent.map(({ role }) => role), ["user", "assistant", "user"]);
    assert.match(sent[1].content, /^Hello there\.\n\n<think>[^]*Forty-two\.$/);
    assert.equal(sent[2].content, "code\n\nhello");
    assert.ok(!(await kept(page)).includes("think"));
  });

  test("what is left when a question or its answer is deleted can be used", async ({ page, fake }) => {
    await talk(page, "hello");
    await press(answer(page, 0), "Delete");
    assert.deepEqual(await shown(page), ["hello"]);
    await press(question(page, 0), "Answer");
    await page.waitForFunction(() => document.querySelectorAll(".answer").length === 1);
    await rest(page);
    // The old one is back as another version of it.
    await page.getByRole("button", { name: "Undo" }).click();
    await page.waitForFunction(() => document.querySelector(".answer .which")?.innerText === "2/2");
    await press(question(page, 0), "Delete");
    assert.match(await page.locator(".alone:visible").innerText(), /was deleted: the answer is left out/);
    for (const name of ["Try again", "Continue"]) assert.equal(await page.getByRole("button", { name, exact: true }).count(), 0);
    await talk(page, "code");
    assert.deepEqual(contents(fake.state.requests.at(-1)), ["user: code"]);
    // Its words are not the conversation's name any more.
    assert.ok(!(await kept(page)).includes("hello"));
    assert.match(await page.title(), /^code/);
    for (const message of [answer(page, 1), question(page, 0), answer(page, 0)]) await press(message, "Delete");
    assert.ok(await page.locator("#empty").isHidden(), "the other version is there");
    await press(answer(page, 0), "Delete");
    assert.ok(await page.locator("#empty").isVisible());
    await page.click("#open-chats");
    await page.waitForFunction(() => /No conversations/.test(document.getElementById("chat-none").innerText));
  });

  test("a version is deleted, and the others can be reached", async ({ page }) => {
    await talk(page, "hello");
    for (const text of ["markdown", "code"]) {
      await press(question(page, 0), "Edit");
      await page.fill(".rewrite", text);
      await page.keyboard.press("Enter");
      await page.waitForFunction((want) => document.querySelector(".bubble")?.innerText === want, text);
      await rest(page);
    }
    assert.equal(await question(page, 0).locator(".which").innerText(), "3/3");
    // What was answered to the deleted question, and the other questions, are versions of each other.
    await press(question(page, 0), "Delete");
    assert.equal(await answer(page, 0).locator(".which").innerText(), "3/3");
    await press(answer(page, 0), "Delete");
    assert.equal((await shown(page))[0], "markdown");
    assert.equal(await question(page, 0).locator(".which").innerText(), "2/2");
    await press(question(page, 0), "Previous version");
    assert.deepEqual(await shown(page), ["hello", "Hello there."]);
  });

  test("a deletion is one in another tab, and in what is exported and imported", async ({ page, context, quiet }) => {
    // A page that is loaded while another one's answer ends may ask for a stream that is over by then.
    quiet(/404.*\/streams\//);
    await talk(page, "hello", "think");
    const other = await context.newPage();
    await other.goto(page.url());
    await ready(other);
    await other.waitForFunction(() => document.querySelectorAll("article").length === 4);
    await press(answer(page, 0), "Delete");
    await other.waitForFunction(() => document.querySelectorAll("article").length === 3);
    // What the other tab writes does not bring it back.
    await talk(other, "code");
    await page.waitForFunction(() => document.querySelectorAll("article").length === 5);
    await page.reload();
    await ready(page);
    assert.deepEqual((await shown(page)).slice(0, 3), ["hello", "think", "Forty-two."]);
    await page.click("#open-chats");
    const row = page.locator(".chat-row").first();
    const get = async (button) => JSON.parse(readFileSync(await (await Promise.all([page.waitForEvent("download"), button.click()]))[0].path(), "utf8"));
    await row.hover();
    const one = await get(row.getByRole("button", { name: /^Export hello/ }));
    assert.deepEqual(one.messages.map(({ role }) => role), ["user", "assistant", "user", "assistant"]);
    assert.equal(one.messages[0].content, "hello\n\nthink");
    const all = await get(page.getByRole("button", { name: "Export all" }));
    assert.ok(!JSON.stringify(all).includes("Hello there."));
    await row.hover();
    await row.getByRole("button", { name: /^Delete/ }).click();
    await page.setInputFiles("#import-file", { name: "all.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(all)) });
    await page.waitForFunction(() => document.querySelectorAll("article").length === 5);
    assert.deepEqual((await shown(page)).slice(0, 3), ["hello", "think", "Forty-two."]);
  });

  test("messages are edited and deleted on a phone", async ({ page }) => {
    await talk(page, "hello", "think");
    await answer(page, 1).getByRole("button", { name: "Edit" }).tap();
    const field = await page.locator(".rewrite").boundingBox();
    assert.ok(field.x >= 0 && field.x + field.width <= 320, JSON.stringify(field));
    await page.fill(".rewrite", "Forty-three.");
    await page.getByRole("button", { name: "Save", exact: true }).tap();
    await page.waitForFunction(() => document.querySelector(".answer:last-child .which")?.innerText === "2/2");
    await question(page, 1).getByRole("button", { name: "Delete" }).tap();
    await page.waitForFunction(() => document.querySelectorAll("article").length === 3);
    for (const box of await page.locator("article .actions button:visible").evaluateAll((nodes) => nodes.map((node) => node.getBoundingClientRect().toJSON()))) {
      assert.ok(box.left >= 0 && box.right <= 320, JSON.stringify(box));
    }
    await page.getByRole("button", { name: "Undo" }).tap();
    await page.waitForFunction(() => document.querySelectorAll("article").length === 4);
  }, { options: PHONE });

  test("keys do what buttons do, and are told", async ({ page }) => {
    await talk(page, "hello");
    await page.keyboard.press("Control+,");
    await page.waitForSelector("#settings[open]");
    // In a dialog, they are the dialog's.
    await page.keyboard.press("Control+Shift+O");
    assert.equal(await page.locator(".answer").count(), 1);
    await page.keyboard.press("Escape");
    await page.keyboard.press("Control+K");
    await page.waitForSelector("#chat-search:focus");
    await page.keyboard.press("Control+K");
    await page.waitForSelector("#chats", { state: "hidden" });
    await page.keyboard.press("Control+/");
    await page.waitForSelector("#keys[open]");
    assert.match(await page.locator("#keys").innerText(), /New conversation\s+Ctrl Shift O/);
    await page.keyboard.press("Escape");
    await page.keyboard.press("Control+Shift+O");
    await page.waitForSelector("#empty:not([hidden])");
    assert.equal(await page.evaluate(() => document.activeElement.id), "question");
  });
}
