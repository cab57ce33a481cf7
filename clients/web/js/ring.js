/**
 * The latency ring: starts with the key, freezes when the picture is on this screen.
 */

import { $, secondsText } from "./dom.js";

const ROUND = 2 * Math.PI * 19;

export class Ring {
  /** @type {import("./steers.js").Steer | null} */
  #steer = null;

  constructor() {
    this.root = /** @type {HTMLElement} */ ($("#ring"));
    this.arc = /** @type {SVGElement} */ ($("#ring .arc"));
    this.text = /** @type {HTMLElement} */ ($("#ring b"));
    this.arc.style.strokeDasharray = String(ROUND);
    this.#fill(0);
  }

  /** @param {import("./steers.js").Steer} steer */
  follow(steer) {
    const ticking = this.#steer !== null;
    this.#steer = steer;
    if (!ticking) this.#tick();
  }

  /** @param {import("./steers.js").Steer} steer one that changed */
  update(steer) {
    if (steer !== this.#steer) return;
    if (steer.state === "shown") {
      this.#freeze(steer.lateS ? "late" : "shown", secondsText(steer.latencyS), 1);
      this.root.title = steer.lateS ? `${secondsText(steer.lateS)} later than promised` : "From the key to this screen";
    } else if (steer.state === "failed" || steer.state === "cancelled" || steer.state === "superseded") {
      this.#freeze(steer.state, "–", 0);
    } else {
      this.root.dataset.state = steer.state;
    }
  }

  /** @param {string} state @param {string} text @param {number} part */
  #freeze(state, text, part) {
    this.#steer = null;
    this.root.dataset.state = state;
    this.text.textContent = text;
    this.#fill(part);
  }

  #tick() {
    const steer = this.#steer;
    if (!steer) return;
    const seconds = Math.max(0, performance.now() - steer.askedAt) / 1000;
    this.text.textContent = secondsText(seconds);
    this.#fill(Math.min(1, seconds / (steer.promisedS || 1)));
    setTimeout(() => requestAnimationFrame(() => this.#tick()), 60);
  }

  /** @param {number} part 0 to 1 */
  #fill(part) {
    this.arc.style.strokeDashoffset = String(ROUND * (1 - part));
  }
}
