// The colours of code. highlight.js, which is fetched with the first code, reads it; what it finds is built with createElement and
// text nodes only.

/** Longer code stays plain. */
const MAX_LENGTH = 60_000;

let highlighter = null;
let coming = null;
const waiting = [];

/** What highlight.js tells of a text, as a tree. Its own emitter makes HTML. */
class Tree {
  constructor() {
    this.root = { children: [] };
    this.stack = [this.root];
  }

  addText(text) { if (text) this.stack.at(-1).children.push(text); }

  startScope(scope) {
    const node = { scope, children: [] };
    this.stack.at(-1).children.push(node);
    this.stack.push(node);
  }

  openNode(scope) { this.startScope(scope); }

  endScope() { if (this.stack.length > 1) this.stack.pop(); }

  closeNode() { this.endScope(); }

  closeAllNodes() { this.stack.length = 1; }

  finalize() { this.closeAllNodes(); }

  __addSublanguage({ root }) { this.stack.at(-1).children.push(...root.children); }

  toHTML() { return ""; }
}

/** Gives `node`, which shows `text`, its colours, if its language is known. */
export function colour(node, text, language) {
  if (!language || text.length > MAX_LENGTH) return;
  if (highlighter) return draw(node, text, language);
  waiting.push([node, text, language]);
  coming ??= import("./vendor/highlight.js").then(({ default: found }) => {
    found.configure({ __emitter: Tree });
    highlighter = found;
    for (const one of waiting.splice(0)) draw(...one);
  }, () => { coming = null; });
}

function draw(node, text, language) {
  const name = language.toLowerCase();
  if (!highlighter.getLanguage(name)) return;
  try {
    const { _emitter: tree } = highlighter.highlight(text, { language: name, ignoreIllegals: true });
    node.replaceChildren(...tree.root.children.map(build));
  } catch { /* it stays plain */ }
}

function build(of) {
  if (typeof of === "string") return document.createTextNode(of);
  const node = document.createElement("span");
  node.className = `hl-${of.scope.split(".")[0].replace(/[^a-z-]/gi, "")}`;
  node.append(...of.children.map(build));
  return node;
}
