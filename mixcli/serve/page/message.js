// One message in the page: its text, reasoning, tool calls, state and buttons.

import { MarkdownView } from "./render.js";
import { branchesAt } from "./tree.js";

/**
 * @typedef {import("./tree.js").Conversation} Conversation
 * @typedef {import("./tree.js").Message} Message
 * @typedef {import("./tree.js").Call} Call
 * @typedef {import("./run.js").Run} Run
 */

const STATES = {
  stopped: "Stopped.",
  length: "The answer reached its maximum length, or the end of the context.",
  elsewhere: "Another tab receives this answer.",
  cut: "This answer was cut off when its page was closed.",
};
const MAX_SILENCE = 20_000; // milliseconds without a save, after which another tab no longer writes

export class MessageElement {
  /** @param {Message} message */
  constructor(message) {
    const template = /** @type {HTMLTemplateElement} */ (document.getElementById("message-template"));
    this.element = /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
    this.element.dataset.id = message.id;
    this.element.classList.add(message.role);
    this.body = this.part(".body");
    this.role = message.role;
    /** @type {MarkdownView | null} */
    this.markdown = null;
    this.reasoning = new MarkdownView(this.part(".reasoning .markdown"));
    if (message.role === "assistant") {
      this.body.classList.add("markdown");
      this.body.dir = "auto";
      this.markdown = new MarkdownView(this.body);
    } else if (message.role === "user") {
      this.body.dir = "auto";
    }
    /** @type {Map<string, HTMLElement>} */
    this.calls = new Map();
  }

  /** @param {string} selector @returns {any} */
  part(selector) {
    return this.element.querySelector(selector);
  }

  /**
   * Show the present state of the message.
   * @param {Conversation} tree @param {Message} message @param {Run | undefined} run  the run that writes it in this tab
   * @param {{isOwn: boolean, openCalls: Call[], isBusy: boolean, health: string}} about  `isOwn`: this tab began to write it; `isBusy`:
   *   something is being written in this conversation; `health` is what is known of a server that has not answered yet
   */
  show(tree, message, run, about) {
    this.part("h2").textContent = headOf(message);
    this.element.setAttribute("aria-busy", String(Boolean(run)));
    this.element.classList.toggle("failed", message.status === "failed");
    this.showText(message);
    this.part(".reasoning").hidden = !message.reasoning;
    if (message.reasoning) this.reasoning.show(message.reasoning);
    for (const call of message.calls ?? []) this.showCall(call, about.openCalls.some((one) => one.id === call.id));
    this.showSend(about.openCalls.length > 0 && Boolean(message.calls?.length), about.isBusy);
    this.showState(message, run, about);
    this.showActions(tree, message, run, about.isBusy);
  }

  /** @param {Message} message */
  showText(message) {
    if (this.element.querySelector(".edit")) return;
    if (this.markdown) {
      this.markdown.show(message.text);
    } else if (message.role === "tool") {
      if (!this.body.firstChild) this.body.append(folded("result", "Result", message.text, true));
    } else if (this.body.textContent !== message.text) {
      this.body.textContent = message.text;
    }
  }

  /** @param {Call} call @param {boolean} isOpen  whether it has no result yet */
  showCall(call, isOpen) {
    const key = call.id || call.name;
    let shown = this.calls.get(key);
    if (!shown) {
      shown = folded("call", `Call of ${call.name}`, "", false);
      this.calls.set(key, shown);
      this.part(".calls").append(shown);
    }
    /** @type {any} */ (shown.querySelector("summary")).textContent = `Call of ${call.name}`;
    /** @type {any} */ (shown.querySelector("pre")).textContent = indented(call.arguments);
    const field = shown.querySelector("label");
    if (isOpen && !field) {
      const label = document.createElement("label");
      const area = document.createElement("textarea");
      area.rows = 2;
      area.dir = "auto";
      area.dataset.call = call.id;
      label.append(`Result of ${call.name}`, area);
      shown.append(label);
      /** @type {HTMLDetailsElement} */ (shown).open = true;
    } else if (!isOpen) {
      field?.remove();
    }
  }

  /** @param {boolean} isWanted @param {boolean} isBusy */
  showSend(isWanted, isBusy) {
    let button = this.part("[data-action=results]");
    if (!isWanted || isBusy) {
      button?.remove();
      return;
    }
    if (button) return;
    button = document.createElement("button");
    button.type = "button";
    button.dataset.action = "results";
    button.textContent = "Send results";
    this.part(".calls").append(button);
  }

  /** Return the results that were entered, by call. @returns {Map<string, string>} */
  results() {
    /** @type {NodeListOf<HTMLTextAreaElement>} */
    const areas = this.element.querySelectorAll("textarea[data-call]");
    return new Map(Array.from(areas, (area) => [area.dataset.call ?? "", area.value]));
  }

  /** @param {Message} message @param {Run | undefined} run @param {{isOwn: boolean, health: string}} about */
  showState(message, run, about) {
    const place = this.part(".state");
    const progress = this.part(".state progress");
    const text = run ? runText(run, about.health) : stateText(message, about.isOwn);
    const share = run?.reading?.share;
    progress.hidden = !run || run.isWriting;
    if (share === undefined) progress.removeAttribute("value");
    else progress.value = share;
    progress.setAttribute("aria-label", "Prompt processed");
    place.hidden = text === "";
    const shown = /** @type {HTMLElement} */ (place.querySelector("span"));
    if (shown.textContent !== text) shown.textContent = text;
  }

  /** @param {Conversation} tree @param {Message} message @param {Run | undefined} run @param {boolean} isBusy */
  showActions(tree, message, run, isBusy) {
    const ids = branchesAt(tree, message);
    const at = ids.indexOf(message.id);
    this.part(".branches").hidden = ids.length < 2;
    this.part(".place").textContent = `${at + 1}/${ids.length}`;
    this.part(".place").setAttribute("aria-label", `Branch ${at + 1} of ${ids.length}`);
    this.part("[data-action=previous]").disabled = at === 0;
    this.part("[data-action=next]").disabled = at === ids.length - 1;
    this.part("[data-action=copy]").hidden = Boolean(run) || !message.text;
    this.part("[data-action=edit]").hidden = message.role !== "user";
    this.part("[data-action=retry]").hidden = message.role !== "assistant" || Boolean(run);
    for (const name of ["edit", "retry"]) this.part(`[data-action=${name}]`).disabled = isBusy;
    this.part(".figures").textContent = run ? "" : figures(message);
  }

  /** Put a box for another version of the text in place of it. @param {string} text @returns {HTMLTextAreaElement} */
  edit(text) {
    const form = document.createElement("div");
    form.className = "edit";
    const area = document.createElement("textarea");
    area.value = text;
    area.rows = Math.min(12, text.split("\n").length + 1);
    area.dir = "auto";
    area.setAttribute("aria-label", "Edit your message");
    const row = document.createElement("div");
    row.className = "row";
    row.append(button("send-edit", "Send", "primary"), button("cancel-edit", "Cancel", ""));
    form.append(area, row);
    this.body.replaceChildren(form);
    this.part(".actions").hidden = true;
    area.focus();
    return area;
  }

  endEdit() {
    this.body.replaceChildren();
    this.part(".actions").hidden = false;
  }
}

/** @param {string} action @param {string} text @param {string} kind @returns {HTMLButtonElement} */
function button(action, text, kind) {
  const made = document.createElement("button");
  made.type = "button";
  made.dataset.action = action;
  made.textContent = text;
  made.className = kind;
  return made;
}

/** @param {string} kind @param {string} title @param {string} text @param {boolean} isOpen @returns {HTMLDetailsElement} */
function folded(kind, title, text, isOpen) {
  const details = document.createElement("details");
  details.className = kind;
  details.open = isOpen;
  const summary = document.createElement("summary");
  summary.textContent = title;
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  pre.textContent = text;
  details.append(summary, pre);
  return details;
}

/** @param {Message} message @returns {string} */
function headOf(message) {
  if (message.role === "assistant") return message.model || "Answer";
  return message.role === "user" ? "You" : "Tool";
}

/** Return JSON with line breaks, or the text where it is none yet. @param {string} json @returns {string} */
function indented(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

/** @param {Message} message @param {boolean} isOwn @returns {string} */
function stateText(message, isOwn) {
  if (message.status === "writing") {
    return !isOwn && Date.now() - message.changed < MAX_SILENCE ? STATES.elsewhere : STATES.cut;
  }
  if (message.status === "failed") return sentence(message.error ?? "");
  if (message.status === "stopped") return STATES.stopped;
  return message.finish === "length" ? STATES.length : "";
}

/** Return a message of the server, which begins with a small letter, as a sentence. @param {string} text @returns {string} */
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** @param {Run} run @param {string} health @returns {string} */
function runText(run, health) {
  if (run.isWriting) return "";
  const { reading } = run;
  if (reading) {
    const left = Number.isFinite(reading.secondsLeft) ? `, about ${time(reading.secondsLeft)} left` : "";
    return `Processing the prompt: ${Math.round(reading.share * 100)}\u00a0%${left}`;
  }
  const left = run.estimate - run.seconds;
  const about = left >= 1 ? `, about ${time(left)} left by the last rate` : "";
  return `${health || "Waiting for the first token"}: ${time(run.seconds)}${about}`;
}

/** @param {number} seconds @returns {string} */
function time(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 100 ? `${whole} s` : `${Math.round(whole / 60)} min`;
}

/** Return the counts and rates of an answer. @param {Message} message @returns {string} */
function figures(message) {
  const { counts } = message;
  if (!counts || !counts.answer) return "";
  const parts = [`${counts.answer.toLocaleString("en")} tokens`];
  if (counts.writeRate) parts[0] += ` at ${rate(counts.writeRate)} tok/s`;
  if (counts.readRate) parts.push(`prefill ${rate(counts.readRate)} tok/s`);
  if (counts.dropped) parts.push(`${counts.dropped} oldest messages were dropped`);
  return parts.join(" · ");
}

/** @param {number} value @returns {string} */
const rate = (value) => (value < 10 ? value.toFixed(1) : String(Math.round(value)));
