// Inline Markdown: code, emphasis, links and line breaks, as nodes for render.js. Text of a model never becomes HTML.

/**
 * @typedef {string | VNode} Node
 * @typedef {{tag: string, attributes: Object<string, string>, children: Node[]}} VNode
 */

const MAX_PARSED = 20_000; // characters of one paragraph; what is longer is shown as plain text
const MAX_DEPTH = 12; // of emphasis and links in one another
const SCHEMES = ["http:", "https:", "mailto:"];
const URL_START = /(?:https?:\/\/|mailto:)[^\s<>"'`]{1,2000}/y;
const ANGLE = /<((?:https?:\/\/|mailto:)[^\s<>]+)>/y;
const DESTINATION = /\(\s*(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.)*\))*))(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?\s*\)/y;
const ESCAPED = /[!-/:-@[-`{-~]/;
const SPACE = /^\s?$/;
const PUNCTUATION = /[\p{P}\p{S}]/u;

/** Return a node. @param {string} tag @param {Node[]} children @param {Object<string, string>} [attributes] @returns {VNode} */
export function element(tag, children, attributes = {}) {
  return { tag, attributes, children };
}

/** Return the nodes of a paragraph's text. @param {string} text @param {number} [depth] @returns {Node[]} */
export function inline(text, depth = 0) {
  if (text.length > MAX_PARSED || depth > MAX_DEPTH) return [text];
  return emphasized(new Scanner(text, depth).pieces());
}

/** Return the address of a link, "" where it is none that may be opened. @param {string} address @returns {string} */
export function safeAddress(address) {
  try {
    const url = new URL(address.trim());
    return SCHEMES.includes(url.protocol) ? url.href : "";
  } catch {
    return "";
  }
}

/** @param {Node[]} children @param {string} address @returns {VNode} */
function link(children, address) {
  return element("a", children, { href: address, rel: "noopener noreferrer", target: "_blank" });
}

/**
 * @typedef {{node: Node}} Done  a piece that is finished
 * @typedef {{mark: string, n: number, canOpen: boolean, canClose: boolean}} Run  delimiters: *, _ or ~
 * @typedef {Done | Run} Piece
 */

/** Cuts a text into finished nodes and runs of delimiters. */
class Scanner {
  /** @param {string} text @param {number} depth */
  constructor(text, depth) {
    this.text = text;
    this.depth = depth;
    this.at = 0;
    this.plain = "";
    /** @type {Piece[]} */
    this.found = [];
  }

  /** @returns {Piece[]} */
  pieces() {
    while (this.at < this.text.length) {
      if (!this.special()) this.plain += this.text[this.at++];
    }
    this.flush();
    return this.found;
  }

  /** Take what begins here, if it is not plain text. @returns {boolean} */
  special() {
    const { text, at } = this;
    const character = text[at];
    if (character === "\\") return this.escape();
    if (character === "`") return this.code();
    if (character === "\n") return this.add(element("br", []), 1);
    if (character === "[" || (character === "!" && text[at + 1] === "[")) return this.link(character === "!" ? at + 1 : at);
    if (character === "<") return this.address(ANGLE, 1);
    if ((character === "h" || character === "m") && !/\w/.test(text[at - 1] ?? "")) return this.address(URL_START, 0);
    if (character === "*" || character === "_" || (character === "~" && text[at + 1] === "~")) return this.run(character);
    return false;
  }

  /** @param {Node} node @param {number} n @returns {true} */
  add(node, n) {
    this.flush();
    this.found.push({ node });
    this.at += n;
    return true;
  }

  flush() {
    if (this.plain) this.found.push({ node: this.plain });
    this.plain = "";
  }

  escape() {
    const next = this.text[this.at + 1] ?? "";
    if (next === "\n") return this.add(element("br", []), 2);
    if (!ESCAPED.test(next)) return false;
    this.plain += next;
    this.at += 2;
    return true;
  }

  code() {
    const { text, at } = this;
    let n = 1;
    while (text[at + n] === "`") n += 1;
    const fence = "`".repeat(n);
    let end = text.indexOf(fence, at + n);
    while (end >= 0 && text[end + n] === "`") {
      while (text[end] === "`") end += 1;
      end = text.indexOf(fence, end);
    }
    if (end < 0) {
      this.plain += fence;
      this.at += n;
      return true;
    }
    let code = text.slice(at + n, end).replaceAll("\n", " ");
    if (code.startsWith(" ") && code.endsWith(" ") && code.trim()) code = code.slice(1, -1);
    return this.add(element("code", [code]), end + n - at);
  }

  /** Take [label](address), or an image, which is shown as a link. @param {number} open @returns {boolean} */
  link(open) {
    const close = closing(this.text, open);
    if (close < 0) return false;
    DESTINATION.lastIndex = close + 1;
    const match = DESTINATION.exec(this.text);
    if (!match) return false;
    const address = safeAddress((match[1] ?? match[2] ?? "").replace(/\\([!-/:-@[-`{-~])/g, "$1"));
    const label = this.text.slice(open + 1, close);
    const shown = inline(label || address, this.depth + 1);
    // what may not be opened stays readable
    return this.add(address ? link(withoutLinks(shown), address) : element("span", shown), DESTINATION.lastIndex - this.at);
  }

  /** @param {RegExp} pattern @param {number} group @returns {boolean} */
  address(pattern, group) {
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.text);
    if (!match) return false;
    const whole = group ? match[0] : trimmed(match[0]);
    const shown = group ? match[group] : whole;
    const address = safeAddress(shown);
    return address ? this.add(link([shown], address), whole.length) : false;
  }

  /** @param {string} mark @returns {boolean} */
  run(mark) {
    const { text, at } = this;
    let n = 1;
    while (text[at + n] === mark) n += 1;
    const before = text[at - 1] ?? "";
    const after = text[at + n] ?? "";
    const opens = !SPACE.test(after) && (!PUNCTUATION.test(after) || SPACE.test(before) || PUNCTUATION.test(before));
    const closes = !SPACE.test(before) && (!PUNCTUATION.test(before) || SPACE.test(after) || PUNCTUATION.test(after));
    const isInWord = mark === "_" && opens && closes;
    this.flush();
    this.found.push({
      mark, n, canOpen: opens && (!isInWord || PUNCTUATION.test(before)), canClose: closes && (!isInWord || PUNCTUATION.test(after)),
    });
    this.at += n;
    return true;
  }
}

/** Return the place of the bracket that closes one, -1 if none does. @param {string} text @param {number} open @returns {number} */
function closing(text, open) {
  let depth = 0;
  const last = Math.min(text.length, open + 1000);
  for (let at = open; at < last; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "[") depth += 1;
    else if (text[at] === "]" && --depth === 0) return at;
  }
  return -1;
}

/** Return a bare address without the punctuation of the sentence around it. @param {string} address @returns {string} */
function trimmed(address) {
  let end = address.length;
  for (;;) {
    const last = address[end - 1];
    const isOpen = last === ")" && address.slice(0, end).split("(").length >= address.slice(0, end).split(")").length;
    if (!/[.,:;!?*_~)\]]/.test(last) || isOpen) return address.slice(0, end);
    end -= 1;
  }
}

/** Return nodes with links replaced by what they show; a link has no link in it. @param {Node[]} nodes @returns {Node[]} */
function withoutLinks(nodes) {
  return nodes.map((node) => {
    if (typeof node === "string") return node;
    return element(node.tag === "a" ? "span" : node.tag, withoutLinks(node.children));
  });
}

/**
 * Return the nodes that pieces stand for: each run that can close is paired with the nearest run before it that can open.
 * @param {Piece[]} pieces @returns {Node[]}
 */
function emphasized(pieces) {
  /** @type {(Run & {at: number})[]} */
  let open = [];
  /** @type {Node[]} */
  const out = [];
  for (const piece of pieces) {
    if ("node" in piece) {
      out.push(piece.node);
      continue;
    }
    let left = piece.n;
    while (piece.canClose && left > 0) {
      const i = open.findLastIndex((one) => one.mark === piece.mark && (piece.mark !== "~" || one.n === left));
      if (i < 0) break;
      const opener = open[i];
      const n = piece.mark === "~" ? left : Math.min(2, opener.n, left);
      const inner = out.splice(opener.at + 1);
      out[opener.at] = opener.mark.repeat(opener.n - n);
      out.push(element(piece.mark === "~" ? "s" : n === 2 ? "strong" : "em", inner));
      opener.n -= n;
      left -= n;
      open = open.slice(0, opener.n > 0 ? i + 1 : i);
    }
    if (left === 0) continue;
    if (piece.canOpen) open.push({ ...piece, n: left, at: out.length });
    if (open.length > 200) open = open.slice(-100); // hostile text stays linear
    out.push(piece.mark.repeat(left));
  }
  return joined(out);
}

/** Return nodes with neighboring texts joined. @param {Node[]} nodes @returns {Node[]} */
function joined(nodes) {
  /** @type {Node[]} */
  const out = [];
  for (const node of nodes) {
    const last = out.at(-1);
    if (node === "") continue;
    if (typeof node === "string" && typeof last === "string") out[out.length - 1] = last + node;
    else out.push(typeof node === "string" ? node : { ...node, children: joined(node.children) });
  }
  return out;
}
