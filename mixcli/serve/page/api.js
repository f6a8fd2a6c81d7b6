// Requests to the server of this page: its models, its state, and streamed answers; with the API key where one is needed.

import { events } from "./events.js";

const KEY = "mixcli.key";
const TYPE = { "Content-Type": "application/json" };

/**
 * @typedef {{id: string, contextLength: number, efforts: string[]}} Model  0 is an unknown context length
 * @typedef {{isUp: boolean, status: string, progress: number, waiting: number}} Health  `progress` of a load is from 0 to 1
 */

/** What the server refused, with its own sentence; status 0 is a server that could not be reached. */
export class ApiError extends Error {
  /** @param {string} message @param {number} status @param {string} code */
  constructor(message, status, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const UNREACHABLE = "The server cannot be reached. Check that mixcli serve is running; then retry.";
export const CUT_OFF = "The connection ended before the answer was complete. Retry to ask again.";

const NEEDS_KEY = "This server needs an API key. Enter it in the conversation menu (⋯), then retry.";

export class Api {
  /** @param {(wasRefused: boolean) => Promise<string | null>} askKey  returns the key, null if the person enters none */
  constructor(askKey) {
    this.askKey = askKey;
    /** @type {Promise<string | null> | null} */
    this.asking = null;
  }

  /** Return the chat models of the server. @returns {Promise<Model[]>} */
  async models() {
    const { data } = await (await this.request("v1/models")).json();
    const chat = data.filter((/** @type {any} */ one) => one.capabilities?.completion_chat !== false);
    return chat.map((/** @type {any} */ one) => ({
      id: String(one.id), contextLength: Number(one.max_model_len) || 0, efforts: one.reasoning_efforts ?? [],
    }));
  }

  /** Return the state of the server, which needs no key. @returns {Promise<Health>} */
  async health() {
    try {
      const response = await fetch("health", { headers: this.headers(), cache: "no-store" });
      const state = await response.json();
      return { isUp: true, status: String(state.status), progress: Number(state.progress) || 0, waiting: Number(state.n_waiting) || 0 };
    } catch {
      return { isUp: false, status: "unreachable", progress: 0, waiting: 0 };
    }
  }

  /**
   * Ask for a streamed answer; yields the JSON of each event, and null for a sign of life. Throws ApiError.
   * @param {Object} body @param {AbortSignal} signal @returns {AsyncGenerator<any>}
   */
  async *chat(body, signal) {
    const response = await this.request("v1/chat/completions", { method: "POST", body: JSON.stringify(body), signal });
    if (!response.body) throw new ApiError(CUT_OFF, 0);
    try {
      for await (const data of events(response.body)) {
        if (data === "[DONE]") return;
        const event = data === null ? null : JSON.parse(data);
        if (event?.error) throw new ApiError(String(event.error.message), 500, String(event.error.code ?? ""));
        yield event;
      }
    } catch (error) {
      if (error instanceof ApiError || signal.aborted) throw error;
      throw new ApiError(CUT_OFF, 0);
    }
    throw new ApiError(CUT_OFF, 0);
  }

  /** Send a request; asks for the key where the server wants one. @param {string} path @param {RequestInit} [options] @returns {Promise<Response>} */
  async request(path, options = {}) {
    for (;;) {
      const used = storedKey();
      let response;
      try {
        response = await fetch(path, { cache: "no-store", ...options, headers: { ...TYPE, ...this.headers() } });
      } catch (error) {
        if (options.signal?.aborted) throw error;
        throw new ApiError(UNREACHABLE, 0);
      }
      if (response.ok) return response;
      const error = await refusal(response);
      if (error.status !== 401) throw error;
      if (used !== storedKey()) continue; // another request has asked meanwhile
      this.asking ??= this.askKey(used !== "").finally(() => (this.asking = null));
      if ((await this.asking) === null) throw new ApiError(NEEDS_KEY, error.status, error.code);
    }
  }

  /** @returns {Record<string, string>} */
  headers() {
    const key = storedKey();
    return key ? { Authorization: `Bearer ${key}` } : {};
  }
}

/** Return the error of a response. @param {Response} response @returns {Promise<ApiError>} */
async function refusal(response) {
  const text = await response.text().catch(() => "");
  try {
    const { error } = JSON.parse(text);
    return new ApiError(String(error.message), response.status, String(error.code ?? ""));
  } catch {
    return new ApiError(`The server answered ${response.status} ${response.statusText}.`, response.status);
  }
}

/** Return the key, "" if there is none. @returns {string} */
export function storedKey() {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
  } catch {
    return kept;
  }
}

let kept = ""; // where the browser stores nothing

/** Keep a key for this tab, or with `remember` for this browser; "" forgets it. @param {string} key @param {boolean} remember */
export function storeKey(key, remember) {
  kept = key;
  try {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
    if (key) (remember ? localStorage : sessionStorage).setItem(KEY, key);
  } catch {
    // it holds until the page is closed
  }
}
