// Blocks of Markdown: headings, paragraphs, lists, quotes, code, tables and rules, as nodes for render.js.

import { element, inline } from "./inline.js";

/**
 * @typedef {import("./inline.js").Node} Node
 * @typedef {import("./inline.js").VNode} VNode
 * @typedef {{node: VNode, start: number}} Block  `start` is the line at which it begins
 */

const MAX_DEPTH = 8; // of lists and quotes in one another
const MAX_COLUMNS = 50;
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?: (.*))?$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:(\s{1,4})(?=\S)|\s*$)/;
const QUOTE = /^ {0,3}> ?/;
const DELIMITERS = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

/**
 * Return the blocks of a text. While a text grows, all blocks but the last stay as they are.
 * @param {string[]} lines @param {number} [depth] @returns {Block[]}
 */
export function blocks(lines, depth = 0) {
  /** @type {Block[]} */
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (lines[at].trim() === "") {
      at += 1;
      continue;
    }
    const [node, next] = block(lines, at, depth);
    found.push({ node, start: at });
    at = next;
  }
  return found;
}

/** Return the block that begins at a line, and the line behind it. @param {string[]} lines @param {number} at @param {number} depth @returns {[VNode, number]} */
function block(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [headingOf(heading[1].length, heading[2] ?? ""), at + 1];
  if (RULE.test(line)) return [element("hr", []), at + 1];
  if (depth < MAX_DEPTH) {
    if (QUOTE.test(line)) return quote(lines, at, depth);
    if (ITEM.test(line)) return list(lines, at, depth);
  }
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at, depth);
}

/** @param {number} level  of the text; the page itself has levels 1 and 2 @param {string} text @returns {VNode} */
function headingOf(level, text) {
  const words = text.trim();
  const bare = words.replace(/#+$/, "");
  const isClosed = bare === "" || bare.endsWith(" ");
  return element(`h${Math.min(6, level + 2)}`, inline((isClosed ? bare : words).trim()), { dir: "auto" });
}

/** @param {string[]} lines @param {number} at @param {RegExpExecArray} fence @returns {[VNode, number]} */
function code(lines, at, fence) {
  const indent = spacesOf(lines[at]);
  const inside = [];
  let next = at + 1;
  while (next < lines.length && !closesFence(lines[next], fence[1])) {
    inside.push(lines[next].slice(Math.min(indent, spacesOf(lines[next]))));
    next += 1;
  }
  const language = fence[2].trim().split(/\s/, 1)[0].slice(0, 30);
  const head = element("div", [
    element("span", [language || "text"]),
    element("button", ["Copy"], { type: "button", "data-action": "copy-code", "aria-label": "Copy this code" }),
  ], { class: "code-head" });
  const body = element("pre", [element("code", [inside.join("\n")])], { tabindex: "0", dir: "ltr", "aria-label": "Code", role: "group" });
  return [element("div", [head, body], { class: "code" }), Math.min(next + 1, lines.length)];
}

/** @param {string} line @param {string} fence @returns {boolean} */
function closesFence(line, fence) {
  const bare = line.trim();
  return bare.startsWith(fence) && spacesOf(line) < 4 && [...bare].every((character) => character === fence[0]);
}

/** @param {string} line @returns {number} */
const spacesOf = (line) => line.length - line.trimStart().length;

/** @param {string[]} lines @param {number} at @param {number} depth @returns {[VNode, number]} */
function quote(lines, at, depth) {
  const inside = [];
  let next = at;
  while (next < lines.length && (QUOTE.test(lines[next]) || isContinued(lines[next], inside.at(-1) ?? ""))) {
    inside.push(lines[next++].replace(QUOTE, ""));
  }
  return [element("blockquote", nodesOf(inside, depth + 1), { dir: "auto" }), next];
}

/** Return whether a line continues the paragraph before it. @param {string} line @param {string} before @returns {boolean} */
function isContinued(line, before) {
  return line.trim() !== "" && before.trim() !== "" && !startsBlock(line) && !FENCE.test(before);
}

/** @param {string} line @returns {boolean} */
function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

/** @param {string[]} lines @param {number} at @param {number} depth @returns {[VNode, number]} */
function list(lines, at, depth) {
  const mark = markOf(lines[at]);
  const isOrdered = /\d/.test(mark);
  /** @type {VNode[]} */
  const items = [];
  let next = at;
  while (next < lines.length && !RULE.test(lines[next])) {
    const match = ITEM.exec(lines[next]);
    if (!match || kindOf(markOf(lines[next])) !== kindOf(mark)) break;
    const width = match[0].length + (match[3] ? 0 : 1);
    const [inside, after] = itemLines(lines, next, width, match[0].length);
    items.push(element("li", tight(nodesOf(inside, depth + 1)), { dir: "auto" }));
    next = after;
  }
  /** @type {Object<string, string>} */
  const start = isOrdered && parseInt(mark, 10) !== 1 ? { start: String(parseInt(mark, 10)) } : {};
  return [element(isOrdered ? "ol" : "ul", items, start), next];
}

/** @param {string} line @returns {string} */
const markOf = (line) => ITEM.exec(line)?.[2] ?? "";
/** @param {string} mark @returns {string} */
const kindOf = (mark) => (/\d/.test(mark) ? mark.slice(-1) : mark);

/**
 * Return the lines of a list item without their indent, and the line behind it.
 * @param {string[]} lines @param {number} at @param {number} width  columns of what belongs to the item @param {number} marker
 * @returns {[string[], number]}
 */
function itemLines(lines, at, width, marker) {
  const inside = [lines[at].slice(marker)];
  const least = Math.min(width, 2); // models often indent by less than the marker's width
  let next = at + 1;
  let fence = FENCE.exec(inside[0])?.[1] ?? "";
  for (; next < lines.length; next += 1) {
    const line = lines[next];
    const blank = line.trim() === "";
    const spaces = spacesOf(line);
    if (!blank && spaces < least) {
      const isLazy = !fence && lines[next - 1].trim() !== "" && isContinued(line, inside.at(-1) ?? "");
      if (!isLazy) break;
    }
    const text = line.slice(Math.min(spaces, width));
    if (!fence) fence = FENCE.exec(text)?.[1] ?? "";
    else if (closesFence(text, fence)) fence = "";
    inside.push(text);
  }
  return [inside, next];
}

/** Return an item's nodes, with a single paragraph taken out of its element. @param {VNode[]} nodes @returns {Node[]} */
function tight(nodes) {
  return nodes[0]?.tag === "p" && nodes.slice(1).every((node) => node.tag !== "p") ? [...nodes[0].children, ...nodes.slice(1)] : nodes;
}

/** @param {string[]} lines @param {number} at @returns {boolean} */
function isTable(lines, at) {
  const next = lines[at + 1];
  if (next === undefined || !lines[at].includes("|") || !DELIMITERS.test(next)) return false;
  const n = cellsOf(lines[at]).length;
  return n === cellsOf(next).length && n <= MAX_COLUMNS;
}

/** @param {string[]} lines @param {number} at @returns {[VNode, number]} */
function table(lines, at) {
  const sides = cellsOf(lines[at + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : "start"));
  const row = (/** @type {string} */ line, /** @type {string} */ tag) => {
    const cells = cellsOf(line);
    return element("tr", sides.map((side, i) => element(tag, inline(cells[i] ?? ""), { class: side, dir: "auto" })));
  };
  const rows = [];
  let next = at + 2;
  while (next < lines.length && lines[next].trim() !== "" && lines[next].includes("|")) rows.push(row(lines[next++], "td"));
  const whole = element("table", [element("thead", [row(lines[at], "th")]), element("tbody", rows)]);
  return [element("div", [whole], { class: "table", tabindex: "0", role: "group", "aria-label": "Table" }), next];
}

/** Return the cells of a row; \| is a bar in a cell. @param {string} line @returns {string[]} */
function cellsOf(line) {
  const bare = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return bare.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** @param {string[]} lines @param {number} at @param {number} depth @returns {[VNode, number]} */
function paragraph(lines, at, depth) {
  const inside = [lines[at].trim()];
  let next = at + 1;
  while (next < lines.length && lines[next].trim() !== "" && !(depth < MAX_DEPTH && startsBlock(lines[next])) && !isTable(lines, next)) {
    inside.push(lines[next++].trim());
  }
  return [element("p", inline(inside.join("\n")), { dir: "auto" }), next];
}

/** @param {string[]} lines @param {number} depth @returns {VNode[]} */
function nodesOf(lines, depth) {
  return blocks(lines, depth).map((one) => one.node);
}
