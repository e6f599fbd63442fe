// Formulas: where they are in a text, and how they look. Temml, which is fetched when the first formula comes, reads TeX; what it
// finds is built with createElement and text nodes only. A formula that cannot be read is shown as it was written.

/** Longer ones are shown as they were written: a text of nothing but marks must not take for ever. */
const MAX_LENGTH = 4000;

const MATHML = "http://www.w3.org/1998/Math/MathML";

const token = (raw, text, display) => ({ type: "formula", raw, text: text.trim(), display });

/** `$$ … $$`, `\[ … \]` and environments that stand alone. */
const BLOCKS = [
  /^ {0,3}\$\$((?:[^$\\]|\\[\s\S]|\$(?!\$))+?)\$\$[ \t]*(?:\n|$)/,
  /^ {0,3}\\\[((?:[^\\]|\\(?!\])[\s\S])+?)\\\][ \t]*(?:\n|$)/,
  /^ {0,3}(\\begin\{((?:align|aligned|equation|gather|multline|alignat|eqnarray|cases|matrix|pmatrix|bmatrix)\*?)\}[\s\S]+?\\end\{\2\})[ \t]*(?:\n|$)/,
];

/** The same in a line, and `$ … $` as Pandoc has it: no blank inside of its ends, and no digit behind it, which is for prices. */
const INLINE = [
  [/^\$\$((?:[^$\\]|\\[\s\S]|\$(?!\$))+?)\$\$/, true],
  [/^\\\[((?:[^\\]|\\(?!\])[\s\S])+?)\\\]/, true],
  [/^\\\(((?:[^\\]|\\(?!\))[\s\S])+?)\\\)/, false],
  [/^\$(?![\s$])((?:[^$\\\n]|\\[^\n]|\n(?!\n))*?[^\s$\\]|(?:[^$\\\n]|\\[^\n])*?\\[^\s\n])\$(?![\d$])/, false],
];

/** What marked needs to find formulas before it finds anything else in them. */
export const RULES = [
  {
    name: "formula",
    level: "block",
    start: (source) => at(/^ {0,3}(?:\$\$|\\\[|\\begin\{)/m, source),
    tokenizer(source) {
      const near = source.slice(0, 2 * MAX_LENGTH);
      for (const rule of BLOCKS) {
        const found = rule.exec(near);
        if (found) return token(found[0], found[1], true);
      }
    },
  },
  {
    name: "formula",
    level: "inline",
    start: (source) => at(/\$|\\[([\])]/, source),
    tokenizer(source) {
      const near = source.slice(0, MAX_LENGTH);
      for (const [rule, display] of INLINE) {
        const found = rule.exec(near);
        if (found) return token(found[0], found[1], display);
      }
      // One that has no end, or none yet, keeps its mark.
      const mark = /^\\[([\])]/.exec(source);
      if (mark) return { type: "escape", raw: mark[0], text: mark[0] };
    },
  },
];

/** Where `rule` is found in `source`. */
function at(rule, source) {
  const found = rule.exec(source);
  return found ? found.index : undefined;
}

let temml = null;
let coming = null;
/** Formulas that wait for it. */
const waiting = [];

/** The node of a formula. */
export function formula({ raw, text, display }) {
  const node = document.createElement(display ? "div" : "span");
  node.className = display ? "formula display" : "formula";
  node.textContent = raw.trim();
  if (display) {
    node.tabIndex = 0;
    node.setAttribute("role", "group");
    node.setAttribute("aria-label", "Formula");
  }
  if (text.length > MAX_LENGTH) return node;
  if (temml) draw(node, text, display);
  else {
    waiting.push([node, text, display]);
    coming ??= import("./vendor/temml.js").then(({ default: found }) => {
      temml = found;
      for (const one of waiting.splice(0)) draw(...one);
    }, () => { coming = null; });
  }
  return node;
}

function draw(node, text, display) {
  try {
    const tree = temml.__renderToMathMLTree(text, { displayMode: display, throwOnError: true, trust: false, maxExpand: 500, maxSize: [20, 20] });
    node.replaceChildren(build(tree));
    node.title = text;
    node.classList.add("drawn");
  } catch {
    node.classList.add("unread");
  }
}

/** Attributes that a formula may have; none of them leads anywhere. */
const PLAIN = /^(?:class|display|displaystyle|scriptlevel|mathvariant|stretchy|symmetric|fence|separator|form|lspace|rspace|width|height|depth|voffset|linethickness|accent|accentunder|largeop|movablelimits|minsize|maxsize|columnalign|rowspacing|columnspacing|columnlines|rowlines|notation|mathcolor|mathbackground|mathsize|align|side|columnspan|rowspan|movablelimits|encoding)$/;

/** Temml's nodes as the page's. */
function build(of) {
  if (of.text !== undefined && !of.children) return document.createTextNode(of.text);
  const isBare = !of.type && !of.classes?.length && Object.keys(of.attributes ?? {}).length === 0;
  // What is nothing but a list of nodes has no node of its own.
  const node = of.type ? document.createElementNS(MATHML, of.type) : isBare ? document.createDocumentFragment() : document.createElement("span");
  if (isBare) {
    node.append(...of.children.map(build));
    return node;
  }
  for (const [name, value] of Object.entries(of.attributes ?? {})) {
    if (name === "style") applyStyle(node, value);
    else if (PLAIN.test(name)) node.setAttribute(name, value);
  }
  if (of.classes?.length) node.setAttribute("class", of.classes.filter(Boolean).join(" "));
  for (const [name, value] of Object.entries(of.style ?? {})) setStyle(node, name, value);
  node.append(...(of.children ?? []).map(build));
  return node;
}

/** `text-align: left;` by the way that the policy allows. */
function applyStyle(node, text) {
  for (const rule of String(text).split(";")) {
    const [name, value] = rule.split(":");
    if (value) setStyle(node, name.trim(), value.trim());
  }
}

function setStyle(node, name, value) {
  const hyphened = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  if (!/url\(/i.test(value)) node.style.setProperty(hyphened, value);
}
