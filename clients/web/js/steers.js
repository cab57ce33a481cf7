/**
 * Every steer that the page knows of, from the key's way down to the picture on this screen.
 *
 * asked → queued → locked → shown, or superseded, cancelled, failed. "Released" is the server's word for a picture
 * that entered the encoder; *shown* is ours, and only a picture on this screen makes it true.
 */

/** @typedef {"asked" | "queued" | "locked" | "shown" | "superseded" | "cancelled" | "failed"} SteerState */

/**
 * @typedef {object} Steer
 * @property {string} key of this page
 * @property {string} id of the server, empty before it answered
 * @property {string} prompt
 * @property {string} label short name
 * @property {SteerState} state
 * @property {number} at first picture under it; an estimate until queued
 * @property {boolean} mine asked on this page
 * @property {boolean} quiet one of a slider's many: no word of those that the next one replaced
 * @property {number} inS how far ahead it was asked for; 0 for now
 * @property {number} askedAt milliseconds of this page's time
 * @property {number} promisedS seconds from asking to showing, as the server and this screen's delay have it
 * @property {number} latencyS seconds from asking to showing, once shown
 * @property {number} lateS how much of it was not promised
 * @property {string} reason why it failed
 */

const LATE_S = 0.3;
const DEFAULT_ETA_S = 1;
const OPEN = ["asked", "queued", "locked"];

export class Steers {
  #count = 0;

  /** @param {import("./clock.js").Clock} clock */
  constructor(clock) {
    this.clock = clock;
    /** @type {Steer[]} in the order they were asked */
    this.list = [];
    /** What the last steers took from asking to their first picture on the server, seconds. */
    this.etaS = DEFAULT_ETA_S;
    /** @type {(steer: Steer) => void} */
    this.onchange = () => {};
    /** @type {(steer: Steer) => void} */
    this.onshown = () => {};
  }

  /** Steers that are neither shown nor given up. */
  get open() {
    return this.list.filter((steer) => OPEN.includes(steer.state));
  }

  /**
   * A key went down: the flag stands before the server knows.
   * @param {string} prompt
   * @param {string} label
   * @param {number} now milliseconds
   * @param {number} [inS] seconds from now that it is wanted at
   * @returns {Steer}
   */
  ask(prompt, label, now, inS = 0) {
    const { clock } = this;
    const released = clock.running ? clock.pictureOf(Math.floor(clock.tickAt(now))) : (clock.shown?.picture ?? 0);
    const steer = this.#add(prompt, label, released + Math.round(Math.max(inS, this.etaS) * clock.rate));
    steer.mine = true;
    steer.inS = inS;
    steer.askedAt = now;
    steer.promisedS = Math.max(inS, this.etaS) + this.clock.delay(now);
    this.onchange(steer);
    return steer;
  }

  /**
   * The server's answer to an `ask`.
   * @param {Steer} steer
   * @param {Record<string, any>} answer
   * @param {number} now
   */
  accepted(steer, answer, now) {
    const known = this.list.find((other) => other.id === answer.id && other !== steer);
    if (known) this.list.splice(this.list.indexOf(known), 1);
    steer.id = answer.id;
    if (steer.state === "asked") this.#queued(steer, answer, now);
  }

  /** @param {Steer} steer @param {string} reason */
  refused(steer, reason) {
    if (!OPEN.includes(steer.state)) return;
    steer.state = "failed";
    steer.reason = reason;
    this.onchange(steer);
  }

  /**
   * Steers from before the page opened.
   * @param {any[]} listed
   */
  restore(listed) {
    for (const item of listed) {
      if (this.list.some((steer) => steer.id === item.id)) continue;
      const steer = this.#add(item.prompt, item.prompt, item.at_picture ?? 0);
      steer.id = item.id;
      steer.state = item.status === "released" ? "shown" : item.status;
      this.onchange(steer);
    }
    this.list.sort((a, b) => a.at - b.at);
  }

  /**
   * A `steer.*` event.
   * @param {import("./events.js").StreamEvent} event
   * @param {number} now
   */
  heard(event, now) {
    const kind = event.type.slice("steer.".length);
    const { data } = event;
    const id = data.id ?? data.steer;
    let steer = this.list.find((known) => known.id === id);
    // An event may outrun the answer to our own request.
    steer ??= this.list.find((known) => !known.id && known.state === "asked" && known.prompt === data.prompt);
    steer ??= this.#add(data.prompt ?? "", data.prompt ?? "", data.at_picture ?? event.picture);
    steer.id = id;
    if (kind === "queued") return this.#queued(steer, data, now);
    if (kind === "released") this.clock.anchor(event.tick, data.at_picture ?? event.picture);
    if (!OPEN.includes(steer.state)) return;
    if (data.at_picture !== undefined && data.at_picture !== null) steer.at = data.at_picture;
    if (kind === "locked" || kind === "released") steer.state = "locked";
    else if (kind === "superseded" || kind === "cancelled" || kind === "failed") steer.state = kind;
    steer.reason = data.reason ?? "";
    this.onchange(steer);
  }

  /**
   * A picture came on screen; whoever it belongs to is shown.
   * @param {number} picture
   * @param {number} at milliseconds
   */
  picture(picture, at) {
    for (const steer of this.list) {
      if (steer.state !== "locked" || steer.at > picture) continue;
      steer.state = "shown";
      if (steer.mine) {
        steer.latencyS = Math.max(0, at - steer.askedAt) / 1000;
        const late = steer.latencyS - steer.promisedS;
        steer.lateS = late > LATE_S ? late : 0;
      }
      this.onchange(steer);
      this.onshown(steer);
    }
  }

  /** The newest one that can still be taken back. @returns {Steer | undefined} */
  get newestDashed() {
    return this.list.findLast((steer) => steer.mine && (steer.state === "asked" || steer.state === "queued"));
  }

  /** Another stream. */
  clear() {
    this.list = [];
  }

  /** @param {number} before drop what ended before this picture */
  forget(before) {
    this.list = this.list.filter((steer) => OPEN.includes(steer.state) || steer.at >= before);
  }

  /**
   * @param {Steer} steer
   * @param {Record<string, any>} data
   * @param {number} now
   */
  #queued(steer, data, now) {
    if (steer.state !== "asked") return;
    steer.state = "queued";
    if (data.at_picture !== undefined) steer.at = data.at_picture;
    if (steer.mine && Number.isFinite(data.eta_s)) {
      steer.promisedS = (now - steer.askedAt) / 1000 + data.eta_s + this.clock.delay(now);
      if (!steer.inS) this.etaS += (Math.min(data.eta_s, 4) - this.etaS) * 0.4;
    }
    this.onchange(steer);
  }

  /** @param {string} prompt @param {string} label @param {number} at @returns {Steer} */
  #add(prompt, label, at) {
    /** @type {Steer} */
    const steer = {
      key: `s${++this.#count}`, id: "", prompt, label, state: "asked", at,
      mine: false, quiet: false, inS: 0, askedAt: NaN, promisedS: NaN, latencyS: NaN, lateS: 0, reason: "",
    };
    this.list.push(steer);
    return steer;
  }
}
