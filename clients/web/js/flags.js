/**
 * The flags on the timeline, one a steer. Shape and word say what colour says too: dashed and open while asked and
 * queued, filled once locked, struck through when another took its place.
 */

import { h, secondsText } from "./dom.js";

const ROW_PX = 132;
/** Less holds no word. */
const LEAST_PX = 26;

/** @param {import("./steers.js").Steer} steer what the flag says */
export function flagText(steer) {
  if (steer.state === "failed") return `! ${steer.reason || "failed"}`;
  if (steer.state === "shown" && steer.lateS) return `${steer.label} · late ${secondsText(steer.lateS)}`;
  return steer.label;
}

/** @param {import("./steers.js").Steer} steer what a screen reader says */
function spoken(steer) {
  const took = Number.isNaN(steer.latencyS) ? "" : `, ${secondsText(steer.latencyS)}`;
  return `${steer.state === "asked" ? "asking" : steer.state}: ${steer.prompt}${took}`;
}

export class Flags {
  /** @type {Map<string, HTMLElement>} */
  #nodes = new Map();

  /**
   * @param {HTMLElement} strip
   * @param {import("./steers.js").Steers} steers
   * @param {import("./clock.js").Clock} clock
   */
  constructor(strip, steers, clock) {
    this.strip = strip;
    this.steers = steers;
    this.clock = clock;
  }

  /** @param {import("./steers.js").Steer} steer */
  update(steer) {
    let node = this.#nodes.get(steer.key);
    if (!node) {
      node = h("div.flag", { role: "img" }, h("i"), h("b"));
      this.#nodes.set(steer.key, node);
      this.strip.append(node);
    }
    node.dataset.state = steer.state;
    node.dataset.id = steer.id;
    node.hidden = steer.quiet && steer.state === "superseded";
    node.style.setProperty("--t", String(steer.at / this.clock.rate));
    node.setAttribute("aria-label", spoken(steer));
    node.title = steer.reason ? `${steer.prompt}: ${steer.reason}` : steer.prompt;
    /** @type {HTMLElement} */ (node.lastChild).textContent = flagText(steer);
  }

  /**
   * Forget what scrolled away and let no label run into the next.
   * @param {number} pps pixels a second
   * @param {number} oldest first picture still on the strip
   */
  layout(pps, oldest) {
    this.steers.forget(oldest);
    const list = [...this.steers.list].sort((a, b) => a.at - b.at);
    const keys = new Set(list.map((steer) => steer.key));
    for (const [key, node] of this.#nodes) {
      if (keys.has(key)) continue;
      node.remove();
      this.#nodes.delete(key);
    }
    list.forEach((steer, i) => {
      const next = list.slice(i + 1).find((other) => other.at > steer.at);
      const room = next ? ((next.at - steer.at) / this.clock.rate) * pps - 3 : ROW_PX;
      // Several at one boundary: only the last of them stands, the others are struck through beneath it.
      const under = list.slice(i + 1).filter((other) => other.at === steer.at).length;
      const style = this.#nodes.get(steer.key)?.style;
      style?.setProperty("--room", `${room < LEAST_PX ? 0 : Math.min(ROW_PX, room)}px`);
      style?.setProperty("--under", String(Math.min(2, under)));
      this.#nodes.get(steer.key)?.classList.toggle("tight", room < LEAST_PX);
    });
  }
}
