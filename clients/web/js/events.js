/**
 * The stream's events over one WebSocket that comes back by itself and misses nothing.
 */

import { Backoff } from "./dom.js";

const RECENT = 60;

/**
 * @typedef {object} StreamEvent
 * @property {number} seq
 * @property {string} stream
 * @property {string} type
 * @property {number} tick
 * @property {number} picture
 * @property {Record<string, any>} data
 */

export class Events {
  #api;
  #backoff = new Backoff();
  /** @type {WebSocket | null} */
  #socket = null;
  #seq = -1;
  #stream = "";
  #timer = 0;
  #wanted = false;

  /**
   * @param {import("./api.js").Api} api
   * @param {(event: StreamEvent) => void} onevent
   * @param {(open: boolean) => void} onlink
   */
  constructor(api, onevent, onlink) {
    this.#api = api;
    this.onevent = onevent;
    this.onlink = onlink;
  }

  /** @param {number} seq of the newest event; the ones just before tell what is made already */
  start(seq) {
    if (this.#wanted) return;
    this.#seq = Math.max(0, seq - RECENT);
    this.#wanted = true;
    this.#connect();
  }

  stop() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = null;
  }

  #connect() {
    const resume = this.#seq >= 0 ? `?after=${this.#seq}` : "";
    const socket = new WebSocket(this.#api.socket(`/events${resume}`));
    this.#socket = socket;
    socket.onopen = () => {
      if (this.#api.token) socket.send(JSON.stringify({ type: "auth", token: this.#api.token }));
      this.#backoff.reset();
      this.onlink(true);
    };
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.seq !== undefined) {
        // A new stream behind the same name (a server started anew) counts from the start again.
        if ((event.stream === this.#stream || !this.#stream) && event.seq <= this.#seq) return;
        this.#stream = event.stream;
        this.#seq = event.seq;
      }
      this.onevent(event);
    };
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.onlink(false);
      if (this.#wanted) this.#timer = window.setTimeout(() => this.#connect(), this.#backoff.next());
    };
  }
}
