/**
 * Ticks, pictures and this screen's time, related by what the server tells.
 *
 * A tick is one turn of the stream's metronome: every tick one picture enters the encoder. Usually it is a new
 * one, so tick and picture grow together; on an underrun the last is repeated and the two drift apart.
 */

const KEPT = 64;
/** A message this much later than the quickest is no slow network: the stream stood still meanwhile. */
const STOOD_MS = 500;

export class Clock {
  /** @type {{tick: number, picture: number}[]} by tick */
  #anchors = [];
  /** @type {number[]} milliseconds of this page's time at tick 0, one a message */
  #origins = [];

  constructor() {
    /** Ticks a second. */
    this.rate = 16;
    /** Newest tick on the screen, and the moment it got there. @type {{tick: number, picture: number, at: number} | null} */
    this.shown = null;
  }

  /** Another stream: nothing known of the old one holds. */
  reset() {
    this.#anchors = [];
    this.#origins = [];
    this.shown = null;
  }

  /** @param {number} hz */
  setRate(hz) {
    if (!hz || hz === this.rate) return;
    this.rate = hz;
    this.#origins = [];
  }

  /**
   * The server says that it released `picture` at `tick`, and says it as it happens.
   * @param {number} tick
   * @param {number} picture
   * @param {number} now milliseconds
   */
  heard(tick, picture, now) {
    this.anchor(tick, picture);
    const origin = now - (tick * 1000) / this.rate;
    if (this.running && origin - Math.min(...this.#origins) > STOOD_MS) this.#origins = [];
    this.#origins.push(origin);
    if (this.#origins.length > KEPT) this.#origins.shift();
  }

  /**
   * One known pair, in whatever order they come.
   * @param {number} tick
   * @param {number} picture
   */
  anchor(tick, picture) {
    const list = this.#anchors;
    let i = list.length;
    while (i && list[i - 1].tick > tick) i--;
    list.splice(i, 0, { tick, picture });
    if (list.length > KEPT) list.shift();
  }

  /** Whether `tickAt` can be asked. */
  get running() {
    return this.#origins.length > 0;
  }

  /**
   * The tick that the server is at, judged by its quickest message so far.
   * @param {number} now milliseconds
   */
  tickAt(now) {
    return ((now - Math.min(...this.#origins)) * this.rate) / 1000;
  }

  /**
   * The picture that a tick carries.
   * @param {number} tick
   */
  pictureOf(tick) {
    const list = this.#anchors;
    if (!list.length) return tick;
    let i = list.length - 1;
    while (i && list[i].tick > tick) i--;
    const picture = list[i].picture + (tick - list[i].tick);
    return i + 1 < list.length ? Math.min(picture, list[i + 1].picture) : picture;
  }

  /**
   * A tick came on screen.
   * @param {number} tick
   * @param {number} at milliseconds
   * @returns {number} its picture
   */
  show(tick, at) {
    const picture = this.pictureOf(tick);
    this.shown = { tick, picture, at };
    return picture;
  }

  /**
   * Seconds from the encoder to this screen.
   * @param {number} now milliseconds
   */
  delay(now) {
    return this.shown && this.running ? Math.max(0, this.tickAt(now) - this.shown.tick) / this.rate : 0;
  }
}
