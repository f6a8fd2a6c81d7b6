// A conversation as a tree of messages: nothing is overwritten, an edit or another answer begins a branch.

/**
 * @typedef {{id: string, name: string, arguments: string}} Call  a tool call
 * @typedef {"user" | "assistant" | "tool"} Role
 * @typedef {"writing" | "done" | "stopped" | "failed"} Status
 * @typedef {{prompt: number, answer: number, cached: number, dropped: number, readRate: number, writeRate: number}} Counts
 *   tokens of an answer and tok/s; `dropped` messages were left out so that the rest fits in the context
 * @typedef {{
 *   id: string, parent: string, role: Role, text: string, status: Status, changed: number, children: string[],
 *   reasoning?: string, calls?: Call[], call?: string, model?: string, error?: string, finish?: string, counts?: Counts,
 *   writer?: string
 * }} Message  `call` is the id of the call that a tool's message answers; `changed` is when, in milliseconds; `writer` is the tab that
 *   receives it
 * @typedef {import("./settings.js").Settings} Settings
 * @typedef {{
 *   id: string, title: string, named: boolean, created: number, changed: number, revision: number, model: string,
 *   settings: Settings, messages: Object<string, Message>, children: string[], shown: Object<string, string>
 * }} Conversation  `children` are the first messages; `shown` is the chosen child by its parent, "" at the top;
 *   `changed` counts for title, model and settings
 */

/** Return a new id; crypto.randomUUID needs https. @returns {string} */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return an empty conversation. @param {Settings} settings @param {string} model @returns {Conversation} */
export function newConversation(settings, model) {
  const now = Date.now();
  return {
    id: newId(), title: "New chat", named: false, created: now, changed: now, revision: 0, model, settings,
    messages: {}, children: [], shown: {},
  };
}

/** @param {Conversation} tree @param {string} parent @returns {string[]} */
function childrenOf(tree, parent) {
  return parent === "" ? tree.children : tree.messages[parent].children;
}

/**
 * Add a message below `parent` ("" is the top) and show it.
 * @param {Conversation} tree @param {string} parent @param {Role} role @param {string} text @param {Partial<Message>} [more]
 * @returns {Message}
 */
export function addMessage(tree, parent, role, text, more = {}) {
  /** @type {Message} */
  const message = { id: newId(), parent, role, text, status: "done", changed: Date.now(), children: [], ...more };
  tree.messages[message.id] = message;
  childrenOf(tree, parent).push(message.id);
  tree.shown[parent] = message.id;
  return message;
}

/** Return the shown messages from the first to the last. @param {Conversation} tree @returns {Message[]} */
export function shownMessages(tree) {
  const found = [];
  let parent = "";
  for (;;) {
    const ids = childrenOf(tree, parent);
    if (ids.length === 0) return found;
    const chosen = tree.shown[parent];
    parent = ids.includes(chosen) ? chosen : ids[ids.length - 1];
    found.push(tree.messages[parent]);
  }
}

/** Return the messages from the first to this one. @param {Conversation} tree @param {string} id @returns {Message[]} */
export function messagesTo(tree, id) {
  const found = [];
  for (let message = tree.messages[id]; message; message = tree.messages[message.parent]) found.unshift(message);
  return found;
}

/** Return the branches beside a message, itself included. @param {Conversation} tree @param {Message} message @returns {string[]} */
export function branchesAt(tree, message) {
  return childrenOf(tree, message.parent);
}

/** Show another branch at the place of a message. @param {Conversation} tree @param {Message} message @param {number} step */
export function switchBranch(tree, message, step) {
  const ids = branchesAt(tree, message);
  const to = ids[ids.indexOf(message.id) + step];
  if (to) tree.shown[message.parent] = to;
}

/** Return the calls of the last shown answer that have no result. @param {Conversation} tree @returns {Call[]} */
export function openCalls(tree) {
  const path = shownMessages(tree);
  const at = path.findLastIndex((message) => message.role === "assistant");
  if (at < 0) return [];
  const answered = path.slice(at + 1).map((message) => message.call);
  return (path[at].calls ?? []).filter((call) => !answered.includes(call.id));
}

/** Return a title made of the first message. @param {string} text @returns {string} */
export function titleOf(text) {
  const line = text.trim().split("\n", 1)[0].replace(/\s+/g, " ");
  return line.length > 60 ? `${line.slice(0, 59)}…` : line || "New chat";
}

/**
 * Return the union of two states of one conversation, which two tabs may have changed: all messages of both, the later state of each,
 * and what `mine` shows.
 * @param {Conversation} mine @param {Conversation} theirs @returns {Conversation}
 */
export function merged(mine, theirs) {
  const later = theirs.changed > mine.changed ? theirs : mine;
  /** @type {Conversation} */
  const tree = {
    ...mine,
    title: later.title, named: later.named, model: later.model, settings: later.settings, changed: later.changed,
    revision: Math.max(mine.revision, theirs.revision), messages: { ...mine.messages },
    children: union(theirs.children, mine.children), shown: { ...theirs.shown, ...mine.shown },
  };
  for (const message of Object.values(theirs.messages)) {
    const own = mine.messages[message.id];
    if (!own) {
      tree.messages[message.id] = message;
      continue;
    }
    // what a run in this tab writes into stays the same object
    if (message.changed > own.changed) Object.assign(own, message, { children: own.children });
    own.children = union(message.children, own.children);
  }
  return tree;
}

/** @param {string[]} first @param {string[]} second @returns {string[]} */
function union(first, second) {
  return [...new Set([...first, ...second])];
}
