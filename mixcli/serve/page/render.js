// Markdown into the page: nodes become elements and texts, and what is already shown is changed in place while an answer grows.

import { blocks } from "./markdown.js";

/**
 * @typedef {import("./inline.js").Node} Node
 * @typedef {import("./inline.js").VNode} VNode
 */

// the only elements and attributes that ever come of a model's text
const TAGS = new Set([
  "a", "blockquote", "br", "button", "code", "div", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "span", "strong",
  "table", "tbody", "td", "th", "thead", "tr", "ul",
]);
const ATTRIBUTES = new Set(["aria-label", "class", "data-action", "dir", "href", "rel", "role", "start", "tabindex", "target", "type"]);

/** Shows a growing text as Markdown in an element: only its last block is read again. */
export class MarkdownView {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    this.text = "";
    this.settled = 0; // characters of the blocks that no longer change
    this.n = 0; // elements of those blocks
  }

  /** Show a text. @param {string} text */
  show(text) {
    if (text === this.text) return;
    if (!text.startsWith(this.text)) this.settled = this.n = 0;
    this.text = text;
    const lines = text.slice(this.settled).split("\n");
    const found = blocks(lines.map((line) => line.replace(/\r$/, "").replaceAll("\t", "    ")));
    patchChildren(this.place, found.map((block) => block.node), this.n);
    const last = found.at(-1);
    // "-" alone may become a list or more of the paragraph before it: blocks are settled once the next one has a whole line
    if (last === undefined || found.length < 2 || last.start === lines.length - 1) return;
    this.settled += lines.slice(0, last.start).reduce((n, line) => n + line.length + 1, 0);
    this.n += found.length - 1;
  }
}

/** Make the children of an element, from the `from`-th on, those that nodes describe. @param {Element} parent @param {Node[]} nodes @param {number} [from] */
function patchChildren(parent, nodes, from = 0) {
  nodes.forEach((node, i) => {
    const present = parent.childNodes[from + i];
    const next = patched(present, node);
    if (present === undefined) parent.append(next);
    else if (next !== present) present.replaceWith(next);
  });
  while (parent.childNodes.length > from + nodes.length) parent.lastChild?.remove();
}

/** Return what is present, changed to what a node describes, or something new. @param {ChildNode | undefined} present @param {Node} node @returns {ChildNode} */
function patched(present, node) {
  if (typeof node === "string") return patchedText(present, node);
  if (!TAGS.has(node.tag)) throw new Error(`unexpected element ${node.tag}`);
  const is = present instanceof Element && present.localName === node.tag;
  const shown = is ? present : document.createElement(node.tag);
  for (const { name } of [...shown.attributes]) if (!(name in node.attributes)) shown.removeAttribute(name);
  for (const [name, value] of Object.entries(node.attributes)) {
    if (ATTRIBUTES.has(name) && shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
  patchChildren(shown, node.children);
  return shown;
}

/** @param {ChildNode | undefined} present @param {string} text @returns {ChildNode} */
function patchedText(present, text) {
  if (!(present instanceof Text)) return document.createTextNode(text);
  if (present.data !== text) {
    if (text.startsWith(present.data)) present.appendData(text.slice(present.data.length));
    else present.data = text;
  }
  return present;
}
