// What goes over the wire and into files: the messages of a request, exports as JSON and Markdown, and imports.

import { faultOf } from "./settings.js";
import { newId, shownMessages } from "./tree.js";

/**
 * @typedef {import("./tree.js").Conversation} Conversation
 * @typedef {import("./tree.js").Message} Message
 */

export const FORMAT = "mixcli-conversations";
export const NO_RESULT = "(no result was given)";
const MAX_IMPORT = 64 * 1024 * 1024; // bytes

/**
 * Return the messages of a request. Answers without content are left out; two messages of a person in a row are joined, because many
 * chat formats refuse them.
 * @param {Message[]} path @param {string} system @returns {Object[]}
 */
export function requestMessages(path, system) {
  /** @type {any[]} */
  const found = system.trim() ? [{ role: "system", content: system }] : [];
  for (const message of path) {
    const last = found.at(-1);
    if (message.role === "tool") {
      found.push({ role: "tool", tool_call_id: message.call, content: message.text });
    } else if (message.role === "user") {
      if (last?.role === "user") last.content += `\n\n${message.text}`;
      else found.push({ role: "user", content: message.text });
    } else if (message.text || message.calls?.length) {
      found.push({ role: "assistant", content: message.text, ...reasoningOf(message), ...callsOf(message) });
    }
  }
  return found;
}

/** @param {Message} message */
function reasoningOf(message) {
  return message.reasoning ? { reasoning_content: message.reasoning } : {};
}

/** @param {Message} message */
function callsOf(message) {
  if (!message.calls?.length) return {};
  const calls = message.calls.map((call) => ({
    id: call.id, type: "function", function: { name: call.name, arguments: call.arguments },
  }));
  return { tool_calls: calls };
}

/** Return conversations as a JSON file. @param {Conversation[]} trees @returns {string} */
export function toJson(trees) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations: trees }, null, 1);
}

/** Return the shown branch of a conversation as Markdown. @param {Conversation} tree @returns {string} */
export function toMarkdown(tree) {
  const parts = [`# ${tree.title}`];
  if (tree.settings.system.trim()) parts.push("## System", tree.settings.system.trim());
  for (const message of shownMessages(tree)) {
    if (message.role === "user") parts.push("## You");
    else if (message.role === "tool") parts.push("## Result of a tool");
    else parts.push(message.model ? `## ${message.model}` : "## Answer");
    if (message.reasoning) parts.push(`<details><summary>Reasoning</summary>\n\n${message.reasoning.trim()}\n\n</details>`);
    if (message.text) parts.push(message.role === "tool" ? fenced(message.text) : message.text.trim());
    for (const call of message.calls ?? []) parts.push(`Call of \`${call.name}\`:`, fenced(call.arguments, "json"));
  }
  return `${parts.join("\n\n")}\n`;
}

/** @param {string} text @param {string} [info] */
function fenced(text, info = "") {
  let fence = "```";
  while (text.includes(fence)) fence += "`";
  return `${fence}${info}\n${text}\n${fence}`;
}

/** Return a name for a file. @param {string} title @param {string} extension @returns {string} */
export function fileName(title, extension) {
  const plain = title.normalize("NFC").replace(/[^\p{L}\p{M}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 60);
  return `${plain || "conversation"}.${extension}`;
}

/**
 * Read an exported file; each conversation gets an id of its own, so that nothing that exists is changed. Throws an Error that says what
 * is wrong.
 * @param {File} file @param {import("./settings.js").Settings} defaults @returns {Promise<Conversation[]>}
 */
export async function readExport(file, defaults) {
  if (file.size > MAX_IMPORT) throw new Error("The file is larger than 64 MiB.");
  let value;
  try {
    value = JSON.parse(await file.text());
  } catch {
    throw new Error("The file is not JSON; choose one that was exported here.");
  }
  if (value?.format !== FORMAT || !Array.isArray(value.conversations)) {
    throw new Error("The file has no conversations; choose a JSON file that was exported here.");
  }
  return value.conversations.map((/** @type {any} */ one) => checked(one, defaults));
}

/** Return what a file has as a conversation with fields of the right types. @param {any} value @param {any} defaults @returns {Conversation} */
function checked(value, defaults) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("The file has an entry that is not a conversation.");
  /** @type {Object<string, Message>} */
  const messages = {};
  for (const [id, one] of Object.entries(value?.messages ?? {})) {
    const message = /** @type {any} */ (one);
    if (!["user", "assistant", "tool"].includes(message?.role)) throw new Error("The file has a message without a role.");
    messages[id] = {
      id, parent: text(message.parent), role: message.role, text: text(message.text), children: texts(message.children),
      status: message.status === "failed" ? "failed" : message.status === "done" ? "done" : "stopped",
      changed: Date.now(), reasoning: text(message.reasoning), model: text(message.model), error: text(message.error),
      call: text(message.call), finish: text(message.finish), counts: counts(message.counts), calls: calls(message.calls),
    };
  }
  const children = texts(value?.children);
  /** @type {Conversation} */
  const tree = {
    id: newId(), title: text(value?.title).slice(0, 200) || "Imported chat", named: true, created: number(value?.created),
    changed: Date.now(), revision: 0, model: text(value?.model), settings: { ...defaults, ...stringsOf(value?.settings, defaults) },
    messages, children, shown: Object.fromEntries(Object.entries(value?.shown ?? {}).filter(([, id]) => typeof id === "string")),
  };
  checkTree(tree);
  return tree;
}

/** Throw an Error where messages are missing, one is in two places, or one has the top's id "". @param {Conversation} tree */
function checkTree(tree) {
  const seen = new Set();
  const waiting = tree.children.map((id) => ({ id, parent: "" }));
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const message = tree.messages[next.id];
    if (next.id === "" || !Object.hasOwn(tree.messages, next.id) || seen.has(next.id)) throw new Error("The messages of the file do not form a tree.");
    seen.add(next.id);
    message.parent = next.parent;
    for (const id of message.children) waiting.push({ id, parent: message.id });
  }
  for (const id of Object.keys(tree.messages)) if (!seen.has(id)) delete tree.messages[id];
}

/** @param {any} value @returns {string} */
const text = (value) => (typeof value === "string" ? value : "");
/** @param {any} value @returns {number} */
const number = (value) => (Number.isFinite(value) && value <= Date.now() ? value : Date.now());
/** @param {any} value @returns {string[]} */
const texts = (value) => (Array.isArray(value) ? value.filter((one) => typeof one === "string") : []);
/** @param {any} value @returns {import("./tree.js").Call[]} */
const calls = (value) =>
  Array.isArray(value) ? value.map((one) => ({ id: text(one?.id), name: text(one?.name), arguments: text(one?.arguments) })) : [];
/** @param {any} value @returns {import("./tree.js").Counts | undefined} */
function counts(value) {
  if (typeof value !== "object" || value === null) return undefined;
  const of = (/** @type {string} */ name) => (Number.isFinite(value[name]) ? value[name] : 0);
  return {
    prompt: of("prompt"), answer: of("answer"), cached: of("cached"), dropped: of("dropped"), readRate: of("readRate"), writeRate: of("writeRate"),
  };
}
/** Return the settings of a file; throws an Error for one that the dialog would not take. @param {any} value @param {Object} defaults */
function stringsOf(value, defaults) {
  const found = Object.entries(value ?? {}).filter(([name, one]) => Object.hasOwn(defaults, name) && typeof one === "string");
  for (const [name, one] of found) {
    const fault = faultOf(name, /** @type {string} */ (one));
    if (fault) throw new Error(`The file has an invalid setting, ${name}. ${fault}`);
  }
  return Object.fromEntries(found);
}
