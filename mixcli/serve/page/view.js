// The shown branch of a conversation: an element for each message, changed in place, and kept at its end while it grows.

import { MessageElement } from "./message.js";
import { openCalls, shownMessages } from "./tree.js";

/**
 * @typedef {import("./tree.js").Conversation} Conversation
 * @typedef {import("./run.js").Run} Run
 */

const NEAR = 60; // pixels from the end within which the view follows it
const MAX_SPOKEN = 4000; // characters of an answer that a screen reader is given

export class ConversationView {
  /** @param {string} tab  id of this tab @param {(action: string, id: string, element: MessageElement) => void} onAction */
  constructor(tab, onAction) {
    this.tab = tab;
    this.onAction = onAction;
    this.main = /** @type {HTMLElement} */ (document.getElementById("main"));
    this.place = /** @type {HTMLElement} */ (document.getElementById("messages"));
    this.toEnd = /** @type {HTMLElement} */ (document.getElementById("to-end"));
    this.announcer = /** @type {HTMLElement} */ (document.getElementById("announcer"));
    /** @type {Map<string, MessageElement>} */
    this.elements = new Map();
    this.follows = true;
    this.main.addEventListener("scroll", () => this.scrolled());
    new ResizeObserver(() => this.follows && this.scrollToEnd()).observe(this.main);
    this.toEnd.addEventListener("click", () => this.scrollToEnd());
    this.place.addEventListener("click", (event) => this.clicked(event));
  }

  /** Show a conversation. @param {Conversation} tree @param {Run | undefined} run @param {string} health */
  show(tree, run, health) {
    const path = shownMessages(tree);
    const open = run ? [] : openCalls(tree);
    /** @type {HTMLElement} */ (document.getElementById("welcome")).hidden = path.length > 0;
    const shown = new Set(path.map((message) => message.id));
    for (const [id, one] of this.elements) {
      if (shown.has(id)) continue;
      one.element.remove();
      this.elements.delete(id);
    }
    path.forEach((message, i) => {
      let one = this.elements.get(message.id);
      if (!one) {
        one = new MessageElement(message);
        this.elements.set(message.id, one);
      }
      if (this.place.children[i] !== one.element) this.place.insertBefore(one.element, this.place.children[i] ?? null);
      const isOwn = message.writer === this.tab;
      one.show(tree, message, run?.message === message ? run : undefined, { isOwn, openCalls: open, isBusy: Boolean(run), health });
    });
    if (this.follows) this.scrollToEnd();
  }

  /** Show only what has changed while an answer arrives. @param {Conversation} tree @param {Run} run @param {string} health */
  showRun(tree, run, health) {
    const one = this.elements.get(run.message.id);
    one?.show(tree, run.message, run, { isOwn: true, openCalls: [], isBusy: true, health });
    if (this.follows) this.scrollToEnd();
  }

  /** Leave the focus on the switch by which a branch was chosen. @param {Conversation} tree @param {string} parent @param {string} action */
  focusBranch(tree, parent, action) {
    const message = shownMessages(tree).find((one) => one.parent === parent);
    const one = this.elements.get(message?.id ?? "");
    const button = one?.part(`[data-action=${action}]`);
    const other = one?.part(`[data-action=${action === "next" ? "previous" : "next"}]`);
    (button?.disabled ? other : button)?.focus();
  }

  /** Forget all elements, before another conversation is shown. */
  clear() {
    this.elements.clear();
    this.place.replaceChildren();
    this.follows = true;
  }

  /** Let a screen reader say something. @param {string} text */
  announce(text) {
    this.announcer.textContent = text.slice(0, MAX_SPOKEN);
  }

  scrollToEnd() {
    this.follows = true;
    this.toEnd.hidden = true;
    this.main.scrollTop = this.main.scrollHeight;
  }

  scrolled() {
    const left = this.main.scrollHeight - this.main.scrollTop - this.main.clientHeight;
    this.follows = left < NEAR;
    this.toEnd.hidden = left < 4 * NEAR;
  }

  /** @param {Event} event */
  clicked(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const button = /** @type {HTMLElement | null} */ (target.closest("button[data-action]"));
    const id = /** @type {HTMLElement | null} */ (target.closest(".message"))?.dataset.id ?? "";
    const one = this.elements.get(id);
    if (!button || !one) return;
    if (button.dataset.action === "copy-code") copy(button.closest(".code")?.querySelector("code")?.textContent ?? "", button);
    else this.onAction(button.dataset.action ?? "", id, one);
  }

  /** Copy a message's text. @param {string} text @param {MessageElement} one */
  copyMessage(text, one) {
    copy(text, one.part("[data-action=copy]"));
  }
}

/** Copy a text, and show so on the button; where a page without https has no clipboard, by a selection. @param {string} text @param {HTMLElement} button */
async function copy(text, button) {
  let isCopied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    button.after(area);
    area.select();
    isCopied = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = isCopied ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}
