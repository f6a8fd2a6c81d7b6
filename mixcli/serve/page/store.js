// Conversations in the browser's database, shared by all tabs of this origin: a save is a union with what another tab has saved.

import { merged } from "./tree.js";

/**
 * @typedef {import("./tree.js").Conversation} Conversation
 * @typedef {{id: string, title: string, updated: number}} Entry  a line of the list
 */

const NAME = "mixcli";
const TREES = "conversations";
const LIST = "list";
export const MAX_CONVERSATIONS = 2000;

/** Why something could not be kept, as a sentence for the page. */
export class StoreError extends Error {}

const FULL = "The browser's storage for conversations is full. Export some of them, delete them, and send again; what you see is not saved.";
const CLOSED = "The browser stores nothing for this page (private window, or storage is turned off). Export what you want to keep.";

export class Store {
  /** @param {(id: string, isGone: boolean) => void} onOther  called when another tab has saved or deleted a conversation */
  constructor(onOther) {
    /** @type {IDBDatabase | null} */
    this.database = null;
    /** @type {Map<string, Conversation>} */
    this.memory = new Map(); // in place of a database that cannot be opened
    /** @type {Promise<unknown>} */
    this.last = Promise.resolve(); // the save before, which the next one waits for
    this.channel = new BroadcastChannel(NAME);
    this.channel.onmessage = ({ data }) => onOther(data.id, data.isGone);
  }

  /** Open the database; without one conversations last until the page is closed, and a StoreError says so. */
  async open() {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore(TREES, { keyPath: "id" });
        request.result.createObjectStore(LIST, { keyPath: "id" });
      };
      this.database = await result(request);
      this.database.onversionchange = () => this.database?.close();
    } catch {
      throw new StoreError(CLOSED);
    }
  }

  /** Return the list, the newest first. @returns {Promise<Entry[]>} */
  async list() {
    /** @type {Entry[]} */
    const entries = this.database ? await result(this.reading(LIST).getAll()) : [...this.memory.values()].map(entryOf);
    return entries.sort((one, other) => other.updated - one.updated);
  }

  /** Return a conversation, null if there is none. @param {string} id @returns {Promise<Conversation | null>} */
  async load(id) {
    if (!this.database) return this.memory.get(id) ?? null;
    return (await result(this.reading(TREES).get(id))) ?? null;
  }

  /** Return the ids of the conversations that contain a text, in any case. @param {string} words @returns {Promise<Set<string>>} */
  async search(words) {
    const wanted = words.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    const found = new Set();
    await this.each((tree) => {
      const text = [tree.title, ...Object.values(tree.messages).map((message) => message.text)].join("\n").toLocaleLowerCase();
      if (wanted.every((word) => text.includes(word))) found.add(tree.id);
    });
    return found;
  }

  /** Return all conversations. @returns {Promise<Conversation[]>} */
  async all() {
    /** @type {Conversation[]} */
    const trees = [];
    await this.each((tree) => trees.push(tree));
    return trees;
  }

  /** @param {(tree: Conversation) => void} visit */
  async each(visit) {
    if (!this.database) {
      this.memory.forEach(visit);
      return;
    }
    const request = this.reading(TREES).openCursor();
    await new Promise((resolve, reject) => {
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        if (!request.result) return resolve(undefined);
        visit(request.result.value);
        request.result.continue();
      };
    });
  }

  /**
   * Save a conversation, after what another tab has added to it was taken in; false where another tab has deleted it. Throws StoreError
   * where there is no room.
   * @param {Conversation} tree @returns {Promise<boolean>}
   */
  save(tree) {
    const saved = this.last.then(() => this.saveNow(tree));
    this.last = saved.catch(() => undefined);
    return saved;
  }

  /** @param {Conversation} tree @returns {Promise<boolean>} */
  async saveNow(tree) {
    if (!this.database) {
      this.memory.set(tree.id, tree);
      return true;
    }
    const isKnown = tree.revision > 0;
    const transaction = this.database.transaction([TREES, LIST], "readwrite");
    const trees = transaction.objectStore(TREES);
    const stored = await result(trees.get(tree.id));
    if (!stored && isKnown) return false;
    if (!stored && (await result(trees.count())) >= MAX_CONVERSATIONS) throw new StoreError(FULL);
    if (stored && stored.revision > tree.revision) Object.assign(tree, merged(tree, stored));
    const before = tree.revision;
    tree.revision += 1;
    try {
      trees.put(tree);
      transaction.objectStore(LIST).put(entryOf(tree));
      await done(transaction);
    } catch {
      tree.revision = before;
      throw new StoreError(FULL);
    }
    this.channel.postMessage({ id: tree.id, isGone: false });
    return true;
  }

  /** Delete a conversation. @param {string} id */
  async remove(id) {
    this.memory.delete(id);
    if (!this.database) return;
    const transaction = this.database.transaction([TREES, LIST], "readwrite");
    transaction.objectStore(TREES).delete(id);
    transaction.objectStore(LIST).delete(id);
    await done(transaction);
    this.channel.postMessage({ id, isGone: true });
  }

  /** @param {string} name @returns {IDBObjectStore} */
  reading(name) {
    return /** @type {IDBDatabase} */ (this.database).transaction(name).objectStore(name);
  }
}

/** @param {Conversation} tree @returns {Entry} */
function entryOf(tree) {
  const last = Object.values(tree.messages).reduce((latest, message) => Math.max(latest, message.changed), tree.created);
  return { id: tree.id, title: tree.title, updated: last };
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBTransaction} transaction @returns {Promise<void>} */
function done(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}
