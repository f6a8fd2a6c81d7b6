// The settings of a conversation: their table, the fields of a request that come of them, and the dialog that changes them.

/**
 * @typedef {{system: string, temperature: string, top_p: string, max_tokens: string, seed: string, reasoning_effort: string,
 *   on_overflow: string, tools: string}} Settings  as they were typed; "" is the server's default
 */

const KEPT = "mixcli.settings";

/** @type {Settings} */
export const DEFAULTS = {
  system: "", temperature: "", top_p: "", max_tokens: "", seed: "", reasoning_effort: "", on_overflow: "", tools: "",
};

/** name -> [least, most, whether whole] of the numbers; the server has the last word. @type {Object<string, [number, number, boolean]>} */
const NUMBERS = {
  temperature: [0, 10, false], top_p: [0, 1, false], max_tokens: [1, 16777216, true], seed: [0, Number.MAX_SAFE_INTEGER, true],
};

/** Return the settings that a new conversation begins with: those that were last saved. @returns {Settings} */
export function startSettings() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    return { ...DEFAULTS, ...kept };
  } catch {
    return { ...DEFAULTS };
  }
}

/** Return the fields of a request. @param {Settings} settings @param {string[]} efforts  values that the model knows @returns {Object<string, unknown>} */
export function requestFields(settings, efforts) {
  /** @type {Object<string, unknown>} */
  const fields = {};
  for (const name of Object.keys(NUMBERS)) {
    const value = settings[/** @type {keyof Settings} */ (name)];
    if (value !== "") fields[name] = Number(value);
  }
  if (efforts.includes(settings.reasoning_effort)) fields.reasoning_effort = settings.reasoning_effort;
  if (settings.on_overflow) fields.on_overflow = settings.on_overflow;
  if (settings.tools) fields.tools = JSON.parse(settings.tools);
  return fields;
}

/** Return what is wrong with a setting, "" if nothing is. @param {string} name @param {string} value @returns {string} */
export function faultOf(name, value) {
  if (value === "") return "";
  if (name === "tools") return faultOfTools(value);
  const range = NUMBERS[name];
  if (!range) return "";
  const [least, most, isWhole] = range;
  const number = Number(value);
  if (!Number.isFinite(number) || (isWhole && !Number.isInteger(number))) return isWhole ? "Enter a whole number." : "Enter a number.";
  return number < least || number > most ? `Enter a number from ${least} to ${most.toLocaleString("en")}.` : "";
}

/** @param {string} value @returns {string} */
function faultOfTools(value) {
  try {
    const tools = JSON.parse(value);
    const isList = Array.isArray(tools) && tools.every((tool) => typeof tool?.function?.name === "string");
    return isList ? "" : 'Enter a JSON list such as [{"type": "function", "function": {"name": "…", "parameters": {…}}}].';
  } catch (error) {
    return `This is not JSON: ${/** @type {Error} */ (error).message}`;
  }
}

/** The dialog; `form` has a field for each setting by its name. */
export class SettingsDialog {
  /** @param {HTMLDialogElement} dialog @param {(settings: Settings) => void} onSave */
  constructor(dialog, onSave) {
    this.dialog = dialog;
    this.form = /** @type {HTMLFormElement} */ (dialog.querySelector("form"));
    this.onSave = onSave;
    this.form.addEventListener("submit", (event) => this.submit(event));
    this.form.addEventListener("input", (event) => this.show(/** @type {any} */ (event.target), ""));
    dialog.querySelector("[data-reset]")?.addEventListener("click", () => this.fill(DEFAULTS));
  }

  /** Open it. @param {Settings} settings @param {string[]} efforts  values of reasoning_effort that the model knows */
  open(settings, efforts) {
    const select = this.field("reasoning_effort");
    select.replaceChildren(new Option("Model's default", ""), ...efforts.map((effort) => new Option(effort, effort)));
    /** @type {HTMLElement} */ (select.closest(".field")).hidden = efforts.length === 0;
    this.fill(settings);
    this.dialog.showModal();
  }

  /** @param {Settings} settings */
  fill(settings) {
    for (const [name, value] of Object.entries(settings)) {
      const field = this.field(name);
      if (!field) continue;
      field.value = value;
      this.show(field, "");
    }
  }

  /** @param {Event} event */
  submit(event) {
    event.preventDefault();
    /** @type {any} */
    const settings = { ...DEFAULTS };
    let first = null;
    for (const name of Object.keys(DEFAULTS)) {
      const field = this.field(name);
      settings[name] = name === "system" ? field.value : field.value.trim();
      const fault = faultOf(name, settings[name]);
      this.show(field, fault);
      if (fault) first ??= field;
    }
    if (first) {
      first.focus();
      return;
    }
    try {
      localStorage.setItem(KEPT, JSON.stringify(settings));
    } catch {
      // the settings still hold for this conversation
    }
    this.dialog.close();
    this.onSave(settings);
  }

  /** Show what is wrong with a field. @param {any} field @param {string} fault */
  show(field, fault) {
    const place = field.closest(".field")?.querySelector(".fault");
    if (place) place.textContent = fault;
    if (fault) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }

  /** @param {string} name @returns {any} */
  field(name) {
    return this.form.elements.namedItem(name);
  }
}
