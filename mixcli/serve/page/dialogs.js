// Dialogs: the API key, one question with or without a text, and the closing of all of them.

import { storeKey, storedKey } from "./api.js";

/** @param {string} id @returns {any} */
const part = (id) => document.getElementById(id);

/** Let the buttons that close dialogs do so. */
export function watchDialogs() {
  document.addEventListener("click", (event) => {
    const button = /** @type {HTMLElement} */ (event.target).closest("[data-close]");
    button?.closest("dialog")?.close();
  });
  part("key-forget").addEventListener("click", () => storeKey("", false));
}

/**
 * Open a dialog, and return what it was sent with, null if it was closed otherwise.
 * @template T @param {HTMLDialogElement} dialog @param {() => T | null} onSubmit  returns null to stay open @returns {Promise<T | null>}
 */
function answerOf(dialog, onSubmit) {
  const form = /** @type {HTMLFormElement} */ (dialog.querySelector("form"));
  return new Promise((resolve) => {
    /** @type {T | null} */
    let value = null;
    form.onsubmit = (event) => {
      event.preventDefault();
      value = onSubmit();
      if (value !== null) dialog.close();
    };
    dialog.onclose = () => resolve(value);
    dialog.showModal();
  });
}

/** Ask for the API key and keep it; null if none was entered. @param {boolean} wasRefused  whether the server did not accept one @returns {Promise<string | null>} */
export function askKey(wasRefused) {
  const field = part("key");
  const fault = part("key-fault");
  field.value = "";
  fault.textContent = wasRefused ? "The server did not accept this key." : "";
  part("key-forget").hidden = storedKey() === "";
  const answer = answerOf(part("key-dialog"), () => {
    const key = field.value.trim();
    fault.textContent = key ? "" : "Enter a key.";
    if (!key) return null;
    storeKey(key, part("key-remember").checked);
    return key;
  });
  field.focus();
  return answer;
}

/** Ask whether to do something. @param {string} title @param {string} text @param {string} ok @returns {Promise<boolean>} */
export async function confirmed(title, text, ok) {
  part("ask-title").textContent = title;
  part("ask-text").textContent = text;
  part("ask-field").hidden = true;
  part("ask-ok").textContent = ok;
  return (await answerOf(part("ask-dialog"), () => true)) !== null;
}

/** Ask for a title; null where it stays. @param {string} title @param {string} present @returns {Promise<string | null>} */
export function askTitle(title, present) {
  part("ask-title").textContent = title;
  part("ask-text").textContent = "";
  part("ask-field").hidden = false;
  part("ask-ok").textContent = "Rename";
  const field = part("ask-input");
  field.value = present;
  const answer = answerOf(part("ask-dialog"), () => field.value.trim() || null);
  field.select();
  return answer;
}
