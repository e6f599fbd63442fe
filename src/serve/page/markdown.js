// Markdown to nodes of the page. marked's lexer reads it; what it finds is built with createElement and text nodes only, so
// nothing that a model says is ever parsed as HTML. It knows nothing of conversations.

import { colour } from "./code.js";
import { formula, RULES } from "./math.js";
import { Marked } from "./vendor/marked.js";

const reader = new Marked({ gfm: true, extensions: RULES });

/** Links may lead here, and nowhere else. */
const SCHEMES = ["http:", "https:", "mailto:"];

/** Lists and quotes deeper than this are shown as text. */
const MAX_DEPTH = 24;

/**
 * Shows `text` in `target`, changing only the blocks that differ from what it shows already: while an answer grows, all but
 * the last stay as they are, with their selection and scroll positions. Code gets its colours when it is complete: all but the
 * last block is, and that too unless the text is `growing`.
 */
export function render(target, text, growing = false) {
  const blocks = read(text);
  const shown = target.shown ?? [];
  const mark = (token, at) => growing && at === blocks.length - 1 ? `${token.raw}\u0000` : token.raw;
  // No level of headings is left out, whatever the model does.
  let level = 2;
  for (const token of blocks) if (token.type === "heading") level = token.level = Math.min(token.depth + 2, level + 1, 6);
  let same = 0;
  while (same < blocks.length && same < shown.length && mark(blocks[same], same) === shown[same]) same++;
  // A last block that has not grown only gets its colours.
  while (target.childNodes.length > same) target.lastChild.remove();
  blocks.slice(same).forEach((token, at) => target.append(block(token, 0, growing && same + at === blocks.length - 1)));
  target.shown = blocks.map(mark);
}

/** The top-level tokens that show something; a text that cannot be read is one paragraph. */
function read(text) {
  try {
    return reader.lexer(text).filter((token) => token.type !== "space" && token.type !== "def");
  } catch {
    return [{ type: "text", raw: text, text }];
  }
}

function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function block(token, depth, growing = false) {
  if (depth > MAX_DEPTH) return element("p", "", token.raw ?? "");
  switch (token.type) {
    case "heading": return element(`h${token.level ?? 6}`, "", ...inline(token.tokens));
    case "paragraph": return element("p", "", ...inline(token.tokens));
    case "code": return code(token, growing);
    case "formula": return formula(token);
    case "blockquote": return element("blockquote", "", ...blocks(token.tokens, depth + 1));
    case "list": return list(token, depth + 1);
    case "table": return table(token);
    case "hr": return element("hr");
    case "text": return element("p", "", ...(token.tokens ? inline(token.tokens) : [token.text]));
    // HTML in an answer is text that the model wrote.
    default: return element("p", "literal", token.raw ?? "");
  }
}

function blocks(tokens = [], depth) {
  return tokens.filter((token) => token.type !== "space" && token.type !== "def").map((token) => block(token, depth));
}

function list(token, depth) {
  const node = element(token.ordered ? "ol" : "ul");
  if (token.ordered && Number.isInteger(token.start) && token.start !== 1) node.start = token.start;
  for (const item of token.items) node.append(listItem(item, token.loose, depth));
  return node;
}

function listItem(item, loose, depth) {
  const node = element("li");
  if (item.task) {
    const box = element("input");
    Object.assign(box, { type: "checkbox", checked: Boolean(item.checked), disabled: true });
    box.setAttribute("aria-label", item.checked ? "done" : "to do");
    node.classList.add("task");
    node.append(box);
  }
  for (const part of item.tokens ?? []) {
    if (part.type === "space" || part.type === "def" || part.type === "checkbox") continue;
    // The items of a tight list are lines, not paragraphs.
    if (part.type === "text" && !loose) node.append(...(part.tokens ? inline(part.tokens) : [part.text]));
    else node.append(block(part, depth));
  }
  return node;
}

function table(token) {
  const cell = (name, of) => {
    const node = element(name, of.align ? `to-${of.align}` : "", ...inline(of.tokens));
    if (name === "th") node.scope = "col";
    return node;
  };
  const row = (name, cells) => element("tr", "", ...cells.map((of) => cell(name, of)));
  const head = element("thead", "", row("th", token.header));
  const body = element("tbody", "", ...token.rows.map((cells) => row("td", cells)));
  const frame = element("div", "table-frame", element("table", "", head, body));
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", "Table");
  return frame;
}

function code(token, growing) {
  const language = (token.lang ?? "").trim().split(/\s/)[0].slice(0, 24);
  const copy = element("button", "copy", "Copy");
  copy.type = "button";
  copy.addEventListener("click", () => copyText(token.text, copy));
  const letters = element("code", "", token.text);
  if (!growing) colour(letters, token.text, language);
  const text = element("pre", "", letters);
  text.tabIndex = 0;
  text.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const head = element("div", "code-head", element("span", "", language || "code"), copy);
  return element("div", "code", head, text);
}

/** Puts `text` on the clipboard, and says so on the button for a moment. */
export async function copyText(text, button) {
  const label = button.textContent;
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = copyBySelection(text) ? "Copied" : "Not allowed";
  }
  button.textContent = said;
  setTimeout(() => { button.textContent = label; }, 1500);
}

/** For pages that are not served securely, which have no clipboard. */
function copyBySelection(text) {
  const area = element("textarea", "sr");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

function inline(tokens = []) {
  return tokens.map((token) => {
    switch (token.type) {
      case "strong": return element("strong", "", ...inline(token.tokens));
      case "em": return element("em", "", ...inline(token.tokens));
      case "del": return element("del", "", ...inline(token.tokens));
      case "formula": return formula(token);
      case "codespan": return element("code", "", token.text);
      case "br": return element("br");
      case "link": return link(token.href, inline(token.tokens));
      // Pictures would be fetched from elsewhere: the page shows where they are.
      case "image": return link(token.href, [token.text || token.href]);
      case "html": return /^<br\s*\/?>$/i.test(token.raw) ? element("br") : document.createTextNode(token.raw);
      case "escape": return document.createTextNode(token.text);
      case "text": return token.tokens ? element("span", "", ...inline(token.tokens)) : document.createTextNode(plain(token.text));
      default: return document.createTextNode(token.raw ?? "");
    }
  });
}

/** marked leaves character references in text as they are. */
const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

function plain(text) {
  return text.replace(/&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|(\w{2,6}));/g, (all, decimal, hex, name) => {
    if (name) return NAMED[name] ?? all;
    const point = decimal ? parseInt(decimal, 10) : parseInt(hex, 16);
    return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : all;
  });
}

/** A link that opens elsewhere, if it leads where links may lead; otherwise only its text. */
function link(href, children) {
  let url;
  try {
    url = new URL(href);
  } catch {
    return element("span", "", ...children);
  }
  if (!SCHEMES.includes(url.protocol)) return element("span", "", ...children);
  const node = element("a", "", ...children);
  node.href = url.href;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  node.title = url.href;
  return node;
}
