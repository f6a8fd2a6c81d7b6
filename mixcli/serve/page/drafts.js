// What was typed and not yet sent, by conversation: kept for this tab, and for the next one that opens the conversation.

const PREFIX = "mixcli.draft.";
const MAX_CHARACTERS = 200_000;

/** Return the draft of a conversation. @param {string} id @returns {string} */
export function draftOf(id) {
  try {
    return sessionStorage.getItem(PREFIX + id) ?? localStorage.getItem(PREFIX + id) ?? "";
  } catch {
    return "";
  }
}

/** Keep a draft; "" removes it. @param {string} id @param {string} text */
export function keepDraft(id, text) {
  for (const place of ["sessionStorage", "localStorage"]) {
    try {
      const storage = /** @type {any} */ (window)[place];
      if (text && text.length <= MAX_CHARACTERS) storage.setItem(PREFIX + id, text);
      else storage.removeItem(PREFIX + id);
    } catch {
      // the text stays in the box
    }
  }
}
