// The page: it holds the open conversation and the answers that arrive, and connects the parts.

import { Api } from "./api.js";
import { Composer, sends } from "./composer.js";
import { askKey, askTitle, confirmed, watchDialogs } from "./dialogs.js";
import { Files } from "./files.js";
import { Run } from "./run.js";
import { Server } from "./server.js";
import { SettingsDialog, startSettings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { NO_RESULT } from "./transfer.js";
import { addMessage, merged, newConversation, newId, openCalls, shownMessages, switchBranch, titleOf } from "./tree.js";
import { ConversationView } from "./view.js";

/**
 * @typedef {import("./tree.js").Conversation} Conversation
 * @typedef {import("./message.js").MessageElement} MessageElement
 */

const NEW = "new"; // the draft of a conversation without a message
const SAVE_PAUSE = 1000; // milliseconds between two saves of an answer that arrives
const LEAST_PAUSE = 40; // milliseconds between two drawings of it
const HEALTH_PAUSE = 2; // seconds between two looks at a server that has not answered

/** @param {string} id @returns {any} */
const part = (id) => document.getElementById(id);

class App {
  constructor() {
    this.tab = tabId();
    this.api = new Api(askKey);
    this.server = new Server(this.api, () => this.render());
    this.store = new Store((id, isGone) => this.changedElsewhere(id, isGone));
    this.view = new ConversationView(this.tab, (action, id, one) => this.act(action, id, one));
    this.sidebar = new Sidebar(this.store, (id) => this.open(id));
    this.settings = new SettingsDialog(part("settings-dialog"), (settings) => this.set({ settings }));
    this.files = new Files(this.store, (text) => this.say(text), (id) => this.open(id));
    this.composer = new Composer({
      onSend: (text) => this.send(text), onStop: () => this.run?.stop(), onUp: () => this.editLast(),
    });
    /** @type {Map<string, Run>} */
    this.runs = new Map(); // by conversation
    this.deleted = new Set(); // conversations that were deleted in this tab
    this.said = ""; // a notice until the next action
    this.fault = ""; // what the browser could not keep
    this.tree = newConversation(startSettings(), "");
    this.drawing = 0;
    this.pause = LEAST_PAUSE;
    this.saved = 0;
  }

  /** Return the run of the open conversation. @returns {Run | undefined} */
  get run() {
    return this.runs.get(this.tree.id);
  }

  async start() {
    watchDialogs();
    this.watchControls();
    try {
      await this.store.open();
    } catch (error) {
      this.fault = /** @type {Error} */ (error).message;
    }
    await this.open(idInAddress());
    setInterval(() => this.tick(), 1000);
    await this.server.watch();
  }

  watchControls() {
    part("new").addEventListener("click", () => this.open(""));
    part("settings-button").addEventListener("click", () => this.settings.open(this.tree.settings, this.server.model?.efforts ?? []));
    part("model").addEventListener("change", () => this.set({ model: this.server.model?.id ?? "" }));
    document.addEventListener("click", (event) => {
      const button = /** @type {HTMLElement} */ (event.target).closest("[data-menu]");
      if (button) this.choose(/** @type {HTMLElement} */ (button).dataset.menu ?? "");
    });
    document.addEventListener("keydown", (event) => this.pressed(event));
    addEventListener("hashchange", () => idInAddress() !== this.tree.id && this.open(idInAddress()));
  }

  // conversations

  /** Open a conversation; "" or one that does not exist is a new one. @param {string} id */
  async open(id) {
    const found = this.runs.get(id)?.tree ?? (id ? await this.store.load(id) : null);
    this.tree = found ?? newConversation(startSettings(), "");
    this.said = "";
    history.replaceState(null, "", found ? `#c=${id}` : location.pathname + location.search);
    this.server.choose(this.tree.model);
    this.view.clear();
    this.composer.show(found ? id : NEW);
    this.sidebar.close();
    this.render();
    this.composer.input.focus();
    await this.sidebar.refresh(this.tree.id);
  }

  /** Change the title, the model or the settings. @param {Partial<Conversation>} change */
  async set(change) {
    Object.assign(this.tree, change, { changed: Date.now() });
    if (this.tree.children.length > 0) await this.save(this.tree);
    this.render();
  }

  /** @param {Conversation} tree */
  async save(tree) {
    if (this.deleted.has(tree.id)) return;
    try {
      if (await this.store.save(tree)) this.fault = this.store.database ? "" : this.fault;
      else this.lost(tree.id);
    } catch (error) {
      this.fault = /** @type {Error} */ (error).message;
    }
    this.showNotice();
    await this.sidebar.refresh(this.tree.id);
  }

  /** Take in what another tab did with a conversation. @param {string} id @param {boolean} isGone */
  async changedElsewhere(id, isGone) {
    if (isGone) this.lost(id);
    await this.sidebar.refresh(this.tree.id);
    const stored = id === this.tree.id && !isGone ? await this.store.load(id) : null;
    if (stored === null || stored.revision <= this.tree.revision || id !== this.tree.id) return;
    Object.assign(this.tree, merged(this.tree, stored));
    this.render();
  }

  /** Go away from a conversation that another tab has deleted. @param {string} id */
  async lost(id) {
    this.deleted.add(id);
    this.runs.get(id)?.stop();
    if (id !== this.tree.id) return;
    const typed = this.composer.input.value;
    await this.open("");
    this.composer.input.value ||= typed;
    this.say("The conversation was deleted in another tab.");
  }

  // messages

  /** Send a message; false while an answer arrives. @param {string} text @returns {boolean} */
  send(text) {
    const { tree } = this;
    if (this.run) return false;
    let parent = shownMessages(tree).at(-1)?.id ?? "";
    for (const call of openCalls(tree)) parent = addMessage(tree, parent, "tool", NO_RESULT, { call: call.id }).id;
    if (parent === "" && !tree.named) tree.title = titleOf(text);
    const { id } = addMessage(tree, parent, "user", text);
    history.replaceState(null, "", `#c=${tree.id}`);
    this.composer.draft = tree.id;
    this.answer(id);
    return true;
  }

  /** Ask for an answer to a message. @param {string} parent  id of the message */
  async answer(parent) {
    const { tree, server } = this;
    const { model } = server;
    if (model) tree.model = model.id;
    const message = addMessage(tree, parent, "assistant", "", { status: "writing", model: model?.id ?? "", writer: this.tab });
    const run = new Run(this.api, tree, message, model, () => this.arrived(run));
    this.runs.set(tree.id, run);
    this.said = "";
    this.view.follows = true;
    this.view.announce("Waiting for the answer.");
    this.render();
    this.save(tree);
    await run.finish();
    this.runs.delete(tree.id);
    if (run.mayBeGone || !model?.contextLength) server.watch(); // a model that was loaded for this is known now
    await this.save(tree); // first: what is shown as ended outlives a reload, and what another tab has added is shown with it
    if (tree === this.tree) {
      this.render();
      this.view.announce(message.text || message.error || "The answer has ended.");
    }
  }

  /** Draw an answer that grows, at most as often as takes a fifth of the time; and save it. @param {Run} run */
  arrived(run) {
    const now = performance.now();
    if (now - this.saved > SAVE_PAUSE) {
      this.saved = now;
      this.save(run.tree);
    }
    if (run.tree !== this.tree || this.drawing) return;
    this.drawing = setTimeout(() => {
      this.drawing = 0;
      const begin = performance.now();
      if (this.run === run) this.view.showRun(run.tree, run, this.server.loading);
      this.pause = Math.max(LEAST_PAUSE, 4 * (performance.now() - begin));
    }, this.pause);
  }

  /** Count the seconds of an answer that has not begun. */
  async tick() {
    const { run } = this;
    if (!run || run.isWriting) return;
    if (!run.heard && Math.round(run.seconds) % HEALTH_PAUSE === 0) await this.server.glance();
    if (this.run === run) this.view.showRun(run.tree, run, this.server.loading);
  }

  /** Do what a button of a message asks for. @param {string} action @param {string} id @param {MessageElement} one */
  act(action, id, one) {
    const { tree } = this;
    const message = tree.messages[id];
    if (action === "previous" || action === "next") {
      switchBranch(tree, message, action === "next" ? 1 : -1);
      this.view.follows = false;
      this.render();
      this.save(tree);
      this.view.focusBranch(tree, message.parent, action);
    } else if (action === "copy") {
      this.view.copyMessage(message.text, one);
    } else if (action === "edit" && !this.run) {
      this.edit(id, one);
    } else if (action === "cancel-edit") {
      one.endEdit();
      this.render();
    } else if (action === "send-edit") {
      this.sendEdit(id, one);
    } else if (action === "retry" && !this.run) {
      this.answer(message.parent);
    } else if (action === "results" && !this.run) {
      let parent = id;
      for (const [call, text] of one.results()) parent = addMessage(tree, parent, "tool", text, { call }).id;
      this.answer(parent);
    }
  }

  /** @param {string} id @param {MessageElement} one */
  edit(id, one) {
    const area = one.edit(this.tree.messages[id].text);
    area.addEventListener("keydown", (event) => {
      if (sends(event)) {
        event.preventDefault();
        this.sendEdit(id, one);
      } else if (event.key === "Escape" && !event.isComposing) {
        event.stopPropagation();
        this.act("cancel-edit", id, one);
        one.part("[data-action=edit]").focus();
      }
    });
  }

  /** Send an edited message as a branch beside the old one. @param {string} id @param {MessageElement} one */
  sendEdit(id, one) {
    const text = one.part(".edit textarea")?.value ?? "";
    if (!text.trim() || this.run) return;
    one.endEdit();
    const { parent } = this.tree.messages[id];
    this.answer(addMessage(this.tree, parent, "user", text).id);
    this.composer.input.focus();
  }

  /** Edit the last message of the person; false where there is none. @returns {boolean} */
  editLast() {
    const last = shownMessages(this.tree).findLast((message) => message.role === "user");
    const one = last && this.view.elements.get(last.id);
    if (!last || !one || this.run) return false;
    this.edit(last.id, one);
    return true;
  }

  // controls

  /** Do what an entry of the menu says. @param {string} entry */
  async choose(entry) {
    part("menu").hidePopover();
    const { tree } = this;
    if (entry === "rename") {
      const title = await askTitle("Rename the conversation", tree.title);
      if (title && tree === this.tree) await this.set({ title, named: true });
    } else if (entry === "delete") {
      await this.remove(tree);
    } else if (entry === "key") {
      if ((await askKey(false)) !== null) this.server.watch();
    } else if (entry === "shortcuts") {
      part("shortcuts-dialog").showModal();
    } else {
      this.files.save(tree, entry);
    }
  }

  /** @param {Conversation} tree */
  async remove(tree) {
    if (!(await confirmed("Delete the conversation?", `“${tree.title}” is deleted from this browser for good.`, "Delete"))) return;
    this.deleted.add(tree.id);
    this.runs.get(tree.id)?.stop();
    await this.store.remove(tree.id);
    await this.open("");
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    const isCommand = (event.ctrlKey || event.metaKey) && !event.altKey;
    if (event.key === "Escape" && !event.isComposing) {
      if (document.querySelector("dialog[open], #menu:popover-open")) return; // the browser closes them
      if (this.sidebar.isOpen) this.sidebar.close();
      else this.run?.stop();
    } else if (isCommand && event.key === "k") {
      event.preventDefault();
      this.sidebar.find();
    } else if (isCommand && event.key === "/") {
      event.preventDefault();
      part("shortcuts-dialog").showModal();
    } else if (isCommand && event.shiftKey && event.code === "KeyO") {
      event.preventDefault();
      this.open("");
    }
  }

  /** Show a notice until the next action. @param {string} text */
  say(text) {
    this.said = text;
    this.showNotice();
  }

  showNotice() {
    const text = [this.said, this.server.notice, this.fault].filter(Boolean).join(" ");
    if (part("notice").textContent !== text) part("notice").textContent = text;
  }

  render() {
    const { tree, run } = this;
    this.showContext(); // before the messages: it takes a line from their height
    this.view.show(tree, run, this.server.loading);
    this.composer.setBusy(Boolean(run));
    part("title").textContent = tree.title;
    document.title = tree.children.length > 0 ? `${tree.title} · mixcli` : "mixcli";
    this.showNotice();
  }

  /** Show how much of the context the conversation takes, as the server counted it. */
  showContext() {
    const counts = shownMessages(this.tree).findLast((message) => message.counts?.prompt)?.counts;
    const size = this.server.model?.contextLength ?? 0;
    part("context").hidden = !counts || !size;
    if (!counts || !size) return;
    const used = counts.prompt + counts.answer;
    part("context-meter").value = Math.min(1, used / size);
    const full = used / size >= 0.8 ? "; it is nearly full" : "";
    part("context-text").textContent =
      `${used.toLocaleString("en")} of ${size.toLocaleString("en")} tokens of the context (${Math.round((used / size) * 100)}\u00a0%)${full}`;
  }
}

/** Return the id of this tab, the same after a reload. @returns {string} */
function tabId() {
  try {
    const id = sessionStorage.getItem("mixcli.tab") ?? newId();
    sessionStorage.setItem("mixcli.tab", id);
    return id;
  } catch {
    return newId();
  }
}

/** @returns {string} */
function idInAddress() {
  return /^#c=([0-9a-f]+)$/.exec(location.hash)?.[1] ?? "";
}

new App().start();
