/**
 * Live video from fragmented MP4 over a WebSocket, by Media Source Extensions, held close to the live edge.
 */

import { clamp } from "./dom.js";

const KEEP_S = 8;
const JUMP_S = 0.7;
const AIM_S = 0.14;
const QUEUE_LIMIT = 256;

/** iPhones have only the managed kind. @type {typeof MediaSource | undefined} */
const Source = /** @type {any} */ (self).ManagedMediaSource ?? self.MediaSource;

/**
 * @typedef {object} Hello
 * @property {string} mime
 * @property {number} rate_hz
 * @property {number} tick of the first fragment
 * @property {number} picture of the first fragment
 */

export class MsePlayer {
  /** @type {ArrayBuffer[]} */
  #queue = [];
  /** @type {SourceBuffer | null} */
  #buffer = null;
  /** @type {Hello | null} */
  #hello = null;
  #origin = NaN;
  #acked = -1;
  #closed = false;
  #socket;
  #source;
  #url = "";

  /** Whether this browser can play the server's fragments at all. */
  static get supported() {
    return Boolean(Source);
  }

  /**
   * @param {HTMLVideoElement} video
   * @param {string} address of the WebSocket
   * @param {string | null} token
   * @param {{onhello: (hello: Hello) => void, onclose: (code: number, reason: string) => void}} to
   */
  constructor(video, address, token, { onhello, onclose }) {
    this.video = video;
    this.onhello = onhello;
    this.onclose = onclose;
    this.#source = new /** @type {typeof MediaSource} */ (Source)();
    video.disableRemotePlayback = true;
    this.#url = URL.createObjectURL(this.#source);
    video.src = this.#url;
    this.#source.addEventListener("sourceopen", () => this.#open());

    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => token && socket.send(JSON.stringify({ type: "auth", token }));
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.#greet(JSON.parse(data)) : this.#take(data));
    socket.onclose = ({ code, reason }) => this.#end(code, reason);
    this.#socket = socket;
  }

  /**
   * The stream's tick that a media time belongs to, or null before the first fragment.
   * @param {number} mediaTime seconds
   */
  tickOf(mediaTime) {
    if (!this.#hello || Number.isNaN(this.#origin)) return null;
    return this.#hello.tick + Math.round((mediaTime - this.#origin) * this.#hello.rate_hz);
  }

  close() {
    this.#closed = true;
    this.#socket.close();
    URL.revokeObjectURL(this.#url);
    this.video.removeAttribute("src");
    this.video.load();
  }

  /** @param {Hello} hello */
  #greet(hello) {
    if (hello.mime === undefined) return;
    this.#hello = hello;
    this.onhello(hello);
    this.#open();
  }

  #open() {
    if (this.#buffer || !this.#hello || this.#source.readyState !== "open") return;
    try {
      const buffer = this.#source.addSourceBuffer(this.#hello.mime);
      buffer.addEventListener("updateend", () => this.#updated());
      this.#buffer = buffer;
    } catch (error) {
      return this.#end(0, `this browser can't play ${this.#hello.mime}: ${error}`);
    }
    this.#pump();
  }

  /** @param {ArrayBuffer} fragment */
  #take(fragment) {
    this.#queue.push(fragment);
    // More than that means that the decoder stands still; a new connection starts at the live edge.
    if (this.#queue.length > QUEUE_LIMIT) return this.#end(0, "the browser doesn't keep up");
    this.#pump();
  }

  #pump() {
    const buffer = this.#buffer;
    if (!buffer || buffer.updating || !this.#queue.length || this.#closed) return;
    try {
      buffer.appendBuffer(/** @type {ArrayBuffer} */ (this.#queue.shift()));
    } catch (error) {
      this.#end(0, String(error));
    }
  }

  #updated() {
    const { buffered } = this.video;
    if (buffered.length && this.#buffer && !this.#closed) {
      const last = buffered.length - 1;
      if (Number.isNaN(this.#origin)) this.#origin = buffered.start(0);
      this.#hold(buffered.start(last), buffered.end(last));
      this.#acknowledge(buffered.end(last));
      const old = this.video.currentTime - KEEP_S;
      if (!this.#buffer.updating && !this.#queue.length && old - buffered.start(0) > KEEP_S) return this.#buffer.remove(0, old);
    }
    this.#pump();
  }

  /**
   * Keep the play head near the newest picture: far off it jumps, near it plays a little faster or slower.
   * @param {number} start of the newest range, media seconds
   * @param {number} end
   */
  #hold(start, end) {
    const { video } = this;
    const lag = end - video.currentTime;
    if (lag > JUMP_S || lag < 0 || video.currentTime < start - 0.01) {
      video.currentTime = Math.max(start, end - AIM_S);
    }
    video.playbackRate = Math.abs(lag - AIM_S) < 0.05 ? 1 : clamp(1 + (lag - AIM_S) * 0.5, 0.94, 1.15);
    if (video.paused) video.play().catch(() => {});
  }

  /** @param {number} end media seconds */
  #acknowledge(end) {
    const tick = this.tickOf(end);
    if (tick === null || tick - 1 <= this.#acked || this.#socket.readyState !== WebSocket.OPEN) return;
    this.#acked = tick - 1;
    this.#socket.send(JSON.stringify({ type: "ack", tick: this.#acked }));
  }

  /** @param {number} code @param {string} reason */
  #end(code, reason) {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
    this.onclose(code, reason);
  }
}
