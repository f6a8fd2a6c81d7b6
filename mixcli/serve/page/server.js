// What is known of the server: its models, and whether it answers; asked only while something is missing.

const KEPT = "mixcli.model";
const PAUSE = 1500; // milliseconds between two looks

/**
 * @typedef {import("./api.js").Model} Model
 * @typedef {import("./api.js").Health} Health
 */

export class Server {
  /** @param {import("./api.js").Api} api @param {() => void} onChange */
  constructor(api, onChange) {
    this.api = api;
    this.onChange = onChange;
    /** @type {Model[]} */
    this.models = [];
    /** @type {Health | null} */
    this.health = null; // the last one that was asked for, null while all is well
    this.error = "";
    this.isWatching = false;
    this.select = /** @type {HTMLSelectElement} */ (document.getElementById("model"));
    this.select.addEventListener("change", () => this.chosen());
    this.wanted = keptModel();
  }

  /** Return the chosen model. @returns {Model | undefined} */
  get model() {
    return this.models.find((one) => one.id === this.select.value);
  }

  /** Choose the model of a conversation, if the server has it. @param {string} id */
  choose(id) {
    if (id) this.wanted = id;
    this.fill();
  }

  /** Look until the server answers and has a model. */
  async watch() {
    if (this.isWatching) return;
    this.isWatching = true;
    while (!(await this.look())) await new Promise((resolve) => setTimeout(resolve, PAUSE));
    this.isWatching = false;
  }

  /** Return whether all is well. @returns {Promise<boolean>} */
  async look() {
    let isWell = false;
    try {
      this.models = await this.api.models();
      this.health = null;
      this.error = "";
      isWell = true;
    } catch (error) {
      const { status, message } = /** @type {import("./api.js").ApiError} */ (error);
      const mayPass = status === 0 || status === 503; // another refusal is not mended by waiting
      this.health = mayPass ? await this.api.health() : null;
      this.error = message;
      isWell = !mayPass || this.health?.status === "unloaded"; // the next message loads it
    }
    this.fill();
    this.onChange();
    return isWell;
  }

  /** Return what is missing as a sentence, "" if nothing is. @returns {string} */
  get notice() {
    if (!this.health) return this.error;
    if (!this.health.isUp) return "The server does not respond. The page keeps trying to reach it; what you type is kept.";
    return this.loading ? `${this.loading}. You can write already: a message waits until the model is ready.` : "";
  }

  /** Return how far the load of the model is, "" if none is loaded. @returns {string} */
  get loading() {
    if (this.health?.status !== "loading") return "";
    return `The model is loading (${Math.floor(this.health.progress * 10) * 10}\u00a0%)`; // in tens: a screen reader says each
  }

  /** Ask for the state while an answer has not begun. */
  async glance() {
    const health = await this.api.health();
    if (health.status !== "loading") return;
    this.health = health;
    this.watch(); // which notices the end of the load
  }

  chosen() {
    this.wanted = this.select.value;
    try {
      localStorage.setItem(KEPT, this.wanted);
    } catch {
      // it holds for this tab
    }
    this.onChange();
  }

  fill() {
    const { select } = this;
    const ids = this.models.map((one) => one.id);
    const shown = Array.from(select.options, (option) => option.value);
    if (ids.join("\n") !== shown.join("\n") && ids.length > 0) select.replaceChildren(...ids.map((id) => new Option(id, id)));
    select.disabled = ids.length < 2;
    if (ids.length > 0) select.value = ids.includes(this.wanted) ? this.wanted : ids[0];
  }
}

/** @returns {string} */
function keptModel() {
  try {
    return localStorage.getItem(KEPT) ?? "";
  } catch {
    return "";
  }
}
