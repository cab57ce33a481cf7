/**
 * The server's REST side, as this page needs it. Every refusal is a `Problem`.
 */

import { store } from "./dom.js";

/**
 * @typedef {object} Stream
 * @property {string} id
 * @property {string} status starting, live, paused, parked, ended or failed
 * @property {string} [reason]
 * @property {string} prompt
 * @property {import("./loras.js").Lora[]} loras adapters in force
 * @property {number | string} seed its digits where a number of JavaScript would lose some
 * @property {string} size `256x144`
 * @property {number} rate_hz pictures a second
 * @property {number} picture newest released picture
 * @property {number} tick
 * @property {number} seq of its newest event
 * @property {number} viewers
 * @property {number} lead_s
 * @property {string} created_at
 */

/**
 * @typedef {object} VocabularyEntry
 * @property {string} name
 * @property {string} prompt
 * @property {string[]} synonyms
 */

/**
 * @typedef {object} Model
 * @property {string} checkpoint
 * @property {string} weights_hash
 * @property {string[]} sizes `256x144`
 * @property {number} model_rate_hz the rate that the checkpoint was made for
 * @property {"blocks" | "chained clips" | "clips only"} streaming
 * @property {string | null} no_streams why it makes clips only
 * @property {{seconds: number, size: string, rate_hz: number, pixels_in_all: number | null}} clips what may be asked of them
 * @property {Record<string, VocabularyEntry[]>} vocabulary by bank
 * @property {import("./loras.js").Lora[]} loras adapters, with the weight that new streams have of them
 * @property {string[]} known_words what it was trained with beside the vocabulary's words
 * @property {string} prompt what its streams show where nobody said
 * @property {import("./picture.js").Limits} limits
 */

/** Of 16 digits and more, which a number of JavaScript may not hold; inside a string of JSON the quotes are escaped. */
const LONG_SEED = /"seed":\s*(\d{16,})/g;

/** An RFC 9457 answer, or a network failure with status 0. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {Record<string, any>} body
   */
  constructor(status, body = {}) {
    super(body.detail ?? body.title ?? (status ? `The server answered ${status}` : "The server can't be reached"));
    this.status = status;
    this.code = body.code ?? "";
    this.field = body.field ?? "";
    this.limit = body.limit ?? null;
    this.retryAfterS = body.retry_after_s ?? null;
    /** Ids of streams that one may join instead. @type {string[]} */
    this.streams = body.streams ?? [];
    this.body = body;
  }
}

export class Api {
  /**
   * @param {string} id of the stream
   * @param {string} [base] the server, where that is not the one that the page came from
   */
  constructor(id, base = location.origin) {
    this.id = id;
    this.base = base;
    this.path = `/v1/streams/${encodeURIComponent(id)}`;
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) {
      store.set(`token:${id}`, given);
      history.replaceState(null, "", location.pathname + location.search);
    }
    /** @type {string | null} */
    this.token = store.get(`token:${id}`);
  }

  /** @param {string} path @returns {string} the same host's WebSocket address */
  socket(path) {
    return new URL(this.path + path, this.base).href.replace(/^http/, "ws");
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{json?: unknown, body?: BodyInit, type?: string, keepalive?: boolean, token?: string | null}} [options]
   * @returns {Promise<Response>}
   * @throws {Problem}
   */
  async fetch(method, path, { json, body, type, keepalive, token = this.token } = {}) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (json !== undefined) headers["content-type"] = "application/json";
    if (type) headers["content-type"] = type;
    if (token) headers.authorization = `Bearer ${token}`;
    let answer;
    try {
      answer = await fetch(new URL(path, this.base), { method, headers, body: json === undefined ? body : JSON.stringify(json), keepalive });
    } catch (error) {
      throw new Problem(0, { cause: String(error) });
    }
    if (answer.ok) return answer;
    throw new Problem(answer.status, await answer.json().catch(() => ({})));
  }

  /** @param {string} path @returns {Promise<any>} */
  async get(path) {
    const text = await (await this.fetch("GET", path)).text();
    return JSON.parse(text.replace(LONG_SEED, '"seed":"$1"'));
  }

  /** @returns {Promise<Model>} */
  model() {
    return this.get("/v1/model");
  }

  /** @param {string} [id] another than the page's @returns {Promise<Stream>} */
  stream(id) {
    return this.get(id ? `/v1/streams/${encodeURIComponent(id)}` : this.path);
  }

  /** Rejects with the server's progress while it warms up. @returns {Promise<unknown>} */
  ready() {
    return this.get("/readyz");
  }

  /** @returns {Promise<any[]>} every steer of the stream, oldest first */
  async steers() {
    const answer = await this.get(`${this.path}/steers`);
    return Array.isArray(answer) ? answer : answer.steers;
  }

  /**
   * @param {string} prompt
   * @param {number} [inS] seconds from now; now without it
   * @param {import("./loras.js").Lora[]} [loras] the whole set of adapters; as they are without it
   */
  async steer(prompt, inS, loras) {
    const at = inS === undefined ? "now" : { in_s: inS };
    return (await this.fetch("POST", `${this.path}/steers`, { json: { prompt, at, loras } })).json();
  }

  /** @param {string} steer */
  async cancel(steer) {
    await this.fetch("DELETE", `${this.path}/steers/${steer}`);
  }

  /** @returns {Promise<string>} the recipe, JSON Lines */
  async log() {
    return (await this.fetch("GET", `${this.path}/log`)).text();
  }

  /**
   * Open another stream and keep the token that controls it.
   * @param {Record<string, unknown>} wanted
   * @param {Blob} [picture] that it starts from
   * @returns {Promise<Stream>}
   */
  async create(wanted, picture) {
    const asForm = picture || typeof wanted.seed === "string"; // whose numbers are text, digit by digit
    const form = new FormData();
    if (asForm) Object.entries(wanted).forEach(([name, value]) => form.set(name, String(value)));
    if (picture) form.set("image", picture);
    const made = await (await this.fetch("POST", "/v1/streams", asForm ? { body: form } : { json: wanted })).json();
    if (made.control_token) store.set(`token:${made.id}`, made.control_token);
    return made;
  }
}
