// One answer while it arrives: it is written into its message, and says how far the prompt has been read.

import { ApiError } from "./api.js";
import { requestFields } from "./settings.js";
import { requestMessages } from "./transfer.js";
import { messagesTo } from "./tree.js";

/**
 * @typedef {import("./tree.js").Conversation} Conversation
 * @typedef {import("./tree.js").Message} Message
 * @typedef {{share: number, secondsLeft: number}} Reading  how far the prompt has been read, from 0 to 1; NaN seconds are unknown
 */

const RATE = "mixcli.rate."; // tok/s at which a model last read a prompt, by its name
const LEAST_RATED = 32; // tokens: a shorter prompt says little about the rate

export class Run {
  /**
   * @param {import("./api.js").Api} api @param {Conversation} tree @param {Message} message  the answer, still empty
   * @param {import("./api.js").Model | undefined} model @param {() => void} onChange  called after each event, many times a second
   */
  constructor(api, tree, message, model, onChange) {
    this.api = api;
    this.tree = tree;
    this.message = message;
    this.model = model;
    this.onChange = onChange;
    this.started = performance.now();
    this.abort = new AbortController();
    /** @type {Reading | null} */
    this.reading = null;
    this.heard = false; // whether the server has answered with anything
    this.mayBeGone = false; // whether the server is worth a look
    this.estimate = this.estimated();
  }

  /** Return the seconds since it began. */
  get seconds() {
    return (performance.now() - this.started) / 1000;
  }

  get isWriting() {
    return this.message.text !== "" || Boolean(this.message.reasoning) || Boolean(this.message.calls?.length);
  }

  /** Stop it; what has arrived is kept, and the server cancels the request. */
  stop() {
    this.abort.abort();
  }

  /** Ask, and write the answer until its end; never throws. @returns {Promise<void>} */
  async finish() {
    const { message } = this;
    try {
      for await (const event of this.api.chat(this.body(), this.abort.signal)) {
        this.heard = true;
        if (event !== null) this.take(event);
        this.onChange();
      }
      message.status = "done";
    } catch (error) {
      if (this.abort.signal.aborted) {
        message.status = "stopped";
      } else {
        message.status = "failed";
        message.error = error instanceof ApiError ? error.message : `The page failed: ${error}`;
        this.mayBeGone = error instanceof ApiError && (error.status === 0 || error.status >= 500);
      }
    }
    message.changed = Date.now();
    this.keepRate();
    this.onChange();
  }

  /** Return the request. */
  body() {
    const path = messagesTo(this.tree, this.message.parent);
    return {
      ...(this.model ? { model: this.model.id } : {}),
      messages: requestMessages(path, this.tree.settings.system),
      ...requestFields(this.tree.settings, this.model?.efforts ?? []),
      stream: true, stream_options: { include_usage: true }, return_progress: true,
    };
  }

  /** Take one event of the stream. @param {any} event */
  take(event) {
    const { message } = this;
    const choice = event.choices?.[0];
    if (event.prompt_progress) this.read(event.prompt_progress);
    if (choice?.delta?.content) message.text += choice.delta.content;
    if (choice?.delta?.reasoning_content) message.reasoning = (message.reasoning ?? "") + choice.delta.reasoning_content;
    for (const call of choice?.delta?.tool_calls ?? []) this.takeCall(call);
    if (choice?.finish_reason) message.finish = choice.finish_reason;
    if (event.usage || event.timings || event.dropped_messages) this.count(event);
    if (this.isWriting) this.reading = null;
    message.changed = Date.now();
  }

  /** @param {any} progress  as llama-server writes it */
  read(progress) {
    const done = progress.processed - progress.cache;
    const rate = done > 0 && progress.time_ms > 0 ? done / progress.time_ms : 0;
    const left = rate ? (progress.total - progress.processed) / rate / 1000 : NaN;
    this.reading = { share: progress.total ? progress.processed / progress.total : 0, secondsLeft: left };
  }

  /** @param {any} delta */
  takeCall(delta) {
    const calls = (this.message.calls ??= []);
    const call = (calls[delta.index ?? 0] ??= { id: "", name: "", arguments: "" });
    call.id ||= delta.id ?? "";
    call.name += delta.function?.name ?? "";
    call.arguments += delta.function?.arguments ?? "";
  }

  /** @param {any} event */
  count(event) {
    const { message } = this;
    const before = message.counts ?? { prompt: 0, answer: 0, cached: 0, dropped: 0, readRate: 0, writeRate: 0 };
    const { usage, timings } = event;
    message.counts = {
      prompt: usage?.prompt_tokens ?? before.prompt,
      answer: usage?.completion_tokens ?? before.answer,
      cached: usage?.prompt_tokens_details?.cached_tokens ?? before.cached,
      dropped: event.dropped_messages ?? before.dropped,
      readRate: (timings?.prompt_n ?? 0) >= LEAST_RATED ? timings.prompt_per_second : before.readRate,
      writeRate: timings?.predicted_per_second ?? before.writeRate,
    };
  }

  keepRate() {
    const rate = this.message.counts?.readRate;
    if (!rate || !this.model) return;
    try {
      localStorage.setItem(RATE + this.model.id, String(rate));
    } catch {
      // the next estimate has no rate
    }
  }

  /**
   * Return the seconds that the prompt may take by the rate at which this model last read one, NaN where it is unknown; for the time
   * until the server tells its progress.
   */
  estimated() {
    let rate = NaN;
    try {
      rate = Number(localStorage.getItem(RATE + this.model?.id) ?? NaN);
    } catch {
      // unknown
    }
    const path = messagesTo(this.tree, this.message.parent);
    const at = path.findLastIndex((one) => one.counts?.prompt);
    const characters = path.slice(at + 1).reduce((n, one) => n + one.text.length, at < 0 ? this.tree.settings.system.length : 0);
    return characters / 4 / rate;
  }
}
