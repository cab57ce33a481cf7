/**
 * Time flows past a fixed NOW line: what was shown to its left, block by block, what is made already to its right.
 * Everything on the strip stands at its own time in seconds of the stream; only the strip moves.
 */

import { $, calm, clamp, clockText, h } from "./dom.js";
import { Flags } from "./flags.js";
import { still } from "./stills.js";

const ZOOM = { least: 6, most: 96, start: 24 };
/** Far from the origin a compositor's numbers get coarse. */
const REBASE_S = 600;

/**
 * @typedef {object} Block
 * @property {number} number
 * @property {number} first its first picture
 * @property {number} pictures
 * @property {string} prompt
 * @property {HTMLElement} node
 * @property {HTMLCanvasElement | null} still
 */

export class Timeline {
  /** @type {Map<number, Block>} by first picture */
  #blocks = new Map();
  /** @type {Map<number, HTMLElement>} by second */
  #marks = new Map();
  #pps = ZOOM.start;
  #origin = 0;
  #width = 0;
  #marked = NaN;
  #time = NaN;

  /**
   * @param {HTMLElement} root the listbox
   * @param {import("./clock.js").Clock} clock
   * @param {import("./steers.js").Steers} steers
   */
  constructor(root, clock, steers) {
    this.root = root;
    this.clock = clock;
    this.strip = /** @type {HTMLElement} */ (root.querySelector(".strip"));
    this.preview = /** @type {HTMLElement} */ ($("#preview"));
    this.ghost = /** @type {HTMLElement} */ (root.querySelector(".ghost"));
    this.flags = new Flags(this.strip, steers, clock);
    /** @type {Block | null} */
    this.chosen = null;
    /** By keys: it stays when the pointer is elsewhere. */
    this.stepped = false;
    /** A still was taken. @type {(block: Block) => void} */
    this.onstill = () => {};
    new ResizeObserver(() => this.#measure()).observe(root);
    root.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    root.addEventListener("pointermove", (event) => this.#hover(event));
    root.addEventListener("pointerleave", () => this.choose(null));
    root.addEventListener("blur", () => this.choose(null));
    this.#measure();
    this.#zoom(this.#pps);
  }

  /** Where NOW stands, pixels from the left. */
  get #nowX() {
    return this.#width * 0.72;
  }

  /**
   * A block is made; it may be made again as long as it isn't shown, and a steer may cut it while it is.
   * @param {Record<string, any>} data of `block.ready`
   */
  ready(data) {
    const first = data.first_picture;
    const old = this.#blocks.get(first);
    if (old?.still) {
      old.pictures = data.pictures;
      old.node.style.setProperty("--d", String(data.pictures / this.clock.rate));
      return;
    }
    old?.node.remove();
    const node = h("div.block", { role: "option", id: `block-${data.block}`, "aria-selected": "false" });
    node.style.setProperty("--t", String(first / this.clock.rate));
    node.style.setProperty("--d", String(data.pictures / this.clock.rate));
    node.setAttribute("aria-label", `Block ${data.block}, ${clockText(first / this.clock.rate)}, ${data.prompt ?? ""}`);
    this.strip.prepend(node);
    const prompt = data.prompt ?? "";
    this.#blocks.set(first, { number: data.block, first, pictures: data.pictures, prompt, node, still: null });
  }

  /**
   * A steer throws the lead at and past this picture away.
   * @param {number} picture
   */
  dropFrom(picture) {
    for (const [first, block] of this.#blocks) {
      if (first < picture || block.still) continue;
      block.node.remove();
      this.#blocks.delete(first);
    }
  }

  /**
   * A picture came on screen: it is NOW, and the middle one of a block is its still. The strip moves with the
   * pictures, not between them: a smoother one would have the browser paint twice as often as the video does.
   * @param {number} picture
   * @param {HTMLVideoElement} video
   */
  picture(picture, video) {
    this.#cover(picture);
    this.#flow(picture);
    for (const block of this.#blocks.values()) {
      if (block.first + block.pictures <= picture) block.node.classList.add("past");
      const middle = block.first + Math.floor(block.pictures / 2);
      if (block.still || picture < middle || picture >= block.first + block.pictures) continue;
      block.still = still(video);
      if (!block.still) return;
      block.node.append(block.still);
      this.onstill(block);
    }
  }

  /** @param {number} picture on screen */
  #flow(picture) {
    const step = calm() && [...this.#blocks.values()].find((one) => one.first <= picture && one.first + one.pictures > picture);
    const time = (step ? step.first : picture) / this.clock.rate;
    if (time === this.#time) return;
    this.#time = time;
    this.#place();
  }

  /** A block that nobody announced (its event was lost) follows the one before it. @param {number} picture */
  #cover(picture) {
    const before = [...this.#blocks.values()].filter((block) => block.first <= picture).sort((a, b) => b.first - a.first)[0];
    const first = before ? before.first + before.pictures : Infinity;
    if (before && picture >= first && picture < first + before.pictures) {
      this.ready({ block: before.number + 1, first_picture: first, pictures: before.pictures, prompt: before.prompt });
    }
  }

  /** @param {import("./steers.js").Steer} steer */
  steer(steer) {
    this.flags.update(steer);
    this.#layout();
  }

  /**
   * Seconds after NOW of a place on the page; null when it isn't on the timeline.
   * @param {number} x client pixels
   * @param {number} y
   */
  aheadOf(x, y) {
    const box = this.root.getBoundingClientRect();
    if (x < box.left || x > box.right || y < box.top - 8 || y > box.bottom) return null;
    return Math.max(0, (x - box.left - this.#nowX) / this.#pps);
  }

  /** @param {number | null} ahead seconds; null takes the ghost away */
  hint(ahead) {
    this.ghost.hidden = ahead === null;
    if (ahead === null) return;
    this.ghost.style.transform = `translateX(${this.#nowX + ahead * this.#pps}px)`;
    this.ghost.dataset.text = ahead ? `+${ahead.toFixed(1)} s` : "now";
  }

  /** @param {number} by how many blocks to go from the chosen one; from NOW at first, and past the newest back to it */
  step(by) {
    const seen = [...this.#blocks.values()].filter((block) => block.still).sort((a, b) => a.first - b.first);
    if (!seen.length) return;
    const from = this.chosen ? seen.indexOf(this.chosen) : seen.length;
    this.choose(seen[Math.max(0, from + by)] ?? null);
    this.stepped = Boolean(this.chosen);
  }

  /** Back to NOW. @returns {boolean} whether keys had led elsewhere */
  leave() {
    const led = this.stepped;
    if (led) this.choose(null);
    return led;
  }

  /** @param {Block | null} block */
  choose(block) {
    if (block === this.chosen) return;
    this.chosen?.node.setAttribute("aria-selected", "false");
    this.chosen = block;
    this.stepped = false;
    this.preview.hidden = !block;
    if (!block) return this.root.removeAttribute("aria-activedescendant");
    block.node.setAttribute("aria-selected", "true");
    this.root.setAttribute("aria-activedescendant", block.node.id);
    const [canvas, text] = /** @type {any} */ (this.preview.children);
    canvas.getContext("2d").drawImage(block.still, 0, 0, canvas.width, canvas.height);
    text.textContent = `${clockText(block.first / this.clock.rate)}  ${block.prompt}`;
    this.#place();
  }

  /** Another stream, or another rate: nothing stands where it stood. */
  clear() {
    this.choose(null);
    for (const nodes of [[...this.#blocks.values()].map((block) => block.node), this.#marks.values()]) {
      for (const node of nodes) node.remove();
    }
    this.#blocks.clear();
    this.#marks.clear();
    this.#time = NaN;
    this.#marked = NaN;
    this.#layout();
  }

  #measure() {
    this.#width = this.root.clientWidth;
    this.root.style.setProperty("--now", `${this.#nowX}px`);
    this.#marked = NaN;
    this.#layout();
  }

  /** @param {number} pps */
  #zoom(pps) {
    this.#pps = clamp(pps, ZOOM.least, ZOOM.most);
    this.strip.style.setProperty("--pps", String(this.#pps));
    this.strip.dataset.coarse = String(this.#pps < 14);
    this.#marked = NaN;
    this.#layout();
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    event.preventDefault();
    this.#zoom(this.#pps * 1.0015 ** -event.deltaY);
  }

  /** @param {PointerEvent} event */
  #hover(event) {
    if (event.pointerType === "touch" && event.pressure === 0) return;
    const node = /** @type {Element} */ (event.target).closest(".block");
    this.choose([...this.#blocks.values()].find((block) => block.node === node && block.still) ?? null);
  }

  #layout() {
    const oldest = Number.isNaN(this.#time) ? -Infinity : (this.#time - this.#span) * this.clock.rate;
    this.flags?.layout(this.#pps, oldest);
  }

  /** Seconds kept left of NOW: what the widest zoom shows. */
  get #span() {
    return Math.min(this.#nowX / ZOOM.least, 180) + 2;
  }

  /** Move the strip; now and then, renew what stands on it. */
  #place() {
    if (Number.isNaN(this.#time)) return;
    if (Math.abs(this.#time - this.#origin) > REBASE_S) {
      this.#origin = Math.floor(this.#time);
      this.strip.style.setProperty("--origin", String(this.#origin));
    }
    this.strip.style.transform = `translateX(${(this.#nowX - (this.#time - this.#origin) * this.#pps).toFixed(2)}px)`;
    if (Math.floor(this.#time) !== this.#marked) this.#renew();
    if (this.chosen) {
      const middle = (this.chosen.first + this.chosen.pictures / 2) / this.clock.rate;
      const x = this.#nowX + (middle - this.#time) * this.#pps;
      this.preview.style.transform = `translateX(${clamp(x, 92, this.#width - 92)}px)`;
    }
  }

  #renew() {
    this.#marked = Math.floor(this.#time);
    const oldest = this.#time - this.#span;
    for (const [first, block] of this.#blocks) {
      if ((first + block.pictures) / this.clock.rate >= oldest) continue;
      if (block === this.chosen) this.choose(null);
      block.node.remove();
      this.#blocks.delete(first);
    }
    const left = Math.max(0, Math.floor(this.#time - this.#nowX / this.#pps));
    const right = Math.ceil(this.#time + (this.#width - this.#nowX) / this.#pps) + 1;
    for (const [second, node] of this.#marks) {
      if (second >= left && second <= right) continue;
      node.remove();
      this.#marks.delete(second);
    }
    for (let second = left; second <= right; second++) {
      if (this.#marks.has(second)) continue;
      const node = h("div.mark", { "aria-hidden": "true" }, second % 5 ? "" : clockText(second));
      node.style.setProperty("--t", String(second));
      if (second % 10 === 5) node.classList.add("half");
      if (second % 5) node.classList.add("minor");
      this.#marks.set(second, node);
      this.strip.append(node);
    }
    this.#layout();
  }
}
