// The message box: its keys, its height, its draft, and the buttons that send and stop.

import { draftOf, keepDraft } from "./drafts.js";

const PAUSE = 250; // milliseconds after the last key before a draft is kept

/** Return whether Enter was pressed to send, and not to choose a word of an input method. @param {KeyboardEvent} event @returns {boolean} */
export function sends(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}

export class Composer {
  /** @param {{onSend: (text: string) => boolean, onStop: () => void, onUp: () => boolean}} actions  `onSend` returns whether it was sent */
  constructor(actions) {
    this.actions = actions;
    this.form = /** @type {HTMLFormElement} */ (document.getElementById("composer"));
    this.input = /** @type {HTMLTextAreaElement} */ (document.getElementById("input"));
    this.send = /** @type {HTMLButtonElement} */ (document.getElementById("send"));
    this.stop = /** @type {HTMLButtonElement} */ (document.getElementById("stop"));
    this.draft = ""; // id of the conversation whose draft is in the box
    this.timer = 0;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.input.addEventListener("keydown", (event) => this.pressed(event));
    this.input.addEventListener("input", () => this.typed());
    this.stop.addEventListener("click", () => actions.onStop());
    addEventListener("pagehide", () => this.keep());
    document.querySelector(".skip")?.addEventListener("click", (event) => {
      event.preventDefault();
      this.input.focus();
    });
  }

  /** Show the draft of a conversation. @param {string} id */
  show(id) {
    if (this.draft) this.keep();
    this.draft = id;
    this.input.value = draftOf(id);
    this.fit();
  }

  /** Offer to stop, or to send. @param {boolean} isBusy */
  setBusy(isBusy) {
    const hadFocus = document.activeElement === this.stop || document.activeElement === this.send;
    this.send.hidden = isBusy;
    this.stop.hidden = !isBusy;
    if (hadFocus) (isBusy ? this.stop : this.input).focus();
  }

  submit() {
    const text = this.input.value;
    const draft = this.draft; // the first message gives a conversation a draft of its own
    if (!text.trim() || !this.actions.onSend(text)) return;
    clearTimeout(this.timer);
    this.input.value = "";
    keepDraft(draft, "");
    this.fit();
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (sends(event)) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && this.input.value === "" && this.actions.onUp()) {
      event.preventDefault();
    }
  }

  typed() {
    this.fit();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.keep(), PAUSE);
  }

  keep() {
    clearTimeout(this.timer);
    keepDraft(this.draft, this.input.value);
  }

  fit() {
    this.input.style.height = "auto";
    this.input.style.height = `${this.input.scrollHeight + 2}px`;
  }
}
