// The list of conversations, its search, and the sidebar that lies over a narrow page.

/** @typedef {import("./store.js").Entry} Entry */

const PAUSE = 200; // milliseconds after the last key before conversations are searched

export class Sidebar {
  /** @param {import("./store.js").Store} store @param {(id: string) => void} onOpen */
  constructor(store, onOpen) {
    this.store = store;
    this.place = /** @type {HTMLElement} */ (document.getElementById("sidebar"));
    this.list = /** @type {HTMLElement} */ (document.getElementById("list"));
    this.note = /** @type {HTMLElement} */ (document.getElementById("list-note"));
    this.search = /** @type {HTMLInputElement} */ (document.getElementById("search"));
    this.opener = /** @type {HTMLElement} */ (document.getElementById("open-sidebar"));
    this.shown = "";
    this.timer = 0;
    this.search.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.refresh(this.shown), PAUSE);
    });
    this.list.addEventListener("click", (event) => {
      const button = /** @type {HTMLElement} */ (event.target).closest("button");
      if (!button) return;
      this.close();
      onOpen(button.dataset.id ?? "");
    });
    this.opener.addEventListener("click", () => this.open());
    document.getElementById("close-sidebar")?.addEventListener("click", () => this.close());
  }

  /** Show the list again. @param {string} shown  id of the conversation that is open */
  async refresh(shown) {
    this.shown = shown;
    const words = this.search.value.trim();
    const found = words ? await this.store.search(words) : null;
    const entries = (await this.store.list()).filter((entry) => found === null || found.has(entry.id));
    if (words !== this.search.value.trim()) return; // a later search shows its own
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.id;
    this.list.replaceChildren(...entries.map((entry) => item(entry, entry.id === this.shown)));
    if (focused) /** @type {HTMLElement | null} */ (this.list.querySelector(`[data-id="${CSS.escape(focused)}"]`))?.focus();
    this.note.textContent = note(entries.length, words);
  }

  get isOpen() {
    return this.place.classList.contains("open");
  }

  open() {
    this.place.classList.add("open");
    this.opener.setAttribute("aria-expanded", "true");
    this.search.focus();
  }

  /** Close it, where it lies over the page. */
  close() {
    if (!this.isOpen) return;
    this.place.classList.remove("open");
    this.opener.setAttribute("aria-expanded", "false");
    this.opener.focus();
  }

  /** Go to the search. */
  find() {
    if (getComputedStyle(this.opener).display !== "none") this.open();
    this.search.focus();
    this.search.select();
  }
}

/** @param {number} n @param {string} words @returns {string} */
function note(n, words) {
  if (words) return n === 0 ? "No conversation contains this." : `${n} found`;
  return n === 0 ? "No conversations yet." : "";
}

/** @param {Entry} entry @param {boolean} isShown @returns {HTMLElement} */
function item(entry, isShown) {
  const li = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.id = entry.id;
  button.textContent = entry.title;
  button.title = entry.title;
  button.dir = "auto";
  if (isShown) button.setAttribute("aria-current", "true");
  li.append(button);
  return li;
}
