/**
 * The adapters: a slider each, in the pads' place. A hand moves faster than blocks begin: what it did last before a
 * boundary counts, so one request is under way at a time, and the next one tells where the sliders stand then.
 */

import { $, h, pause } from "./dom.js";

const LEAST_MS = 100;
const LOW = -1;
const HIGH = 2;
const STEP = 0.05;

/** @typedef {{name: string, weight: number}} Lora */

/** @param {number} weight */
const text = (weight) => weight.toFixed(2).replace("-", "−");

export class Loras {
  /** @type {Map<string, {input: HTMLInputElement, output: HTMLOutputElement}>} */
  #sliders = new Map();
  #panel = $("#loras");
  #button = $("#loras-open");
  #sending = false;
  /** The name that was moved since the last request. */
  #moved = "";

  /** @param {(loras: Lora[], label: string) => Promise<void>} send asks for a whole set */
  constructor(send) {
    this.send = send;
    this.#button.addEventListener("click", () => this.open(this.#panel.hidden));
    $("#banks").addEventListener("click", () => this.open(false));
  }

  /** @param {{name: string}[]} known */
  set known(known) {
    this.#button.hidden = !known.length;
    this.#sliders.clear();
    this.#panel.replaceChildren(...known.map(({ name }) => this.#slider(name)));
    if (!known.length) this.open(false);
  }

  /** @param {boolean} open */
  open(open) {
    this.#panel.hidden = !open;
    $("#pads").hidden = open;
    this.#button.setAttribute("aria-expanded", String(open));
  }

  /** The set that was asked for last, whoever asked. @param {Lora[]} loras */
  show(loras) {
    for (const [name, slider] of this.#sliders) {
      if (this.#sending || slider.input.matches(":active")) continue;
      const weight = loras.find((lora) => lora.name === name)?.weight ?? 0;
      slider.input.value = String(weight);
      slider.output.value = text(weight);
    }
  }

  /** @param {string} name */
  #slider(name) {
    const output = /** @type {HTMLOutputElement} */ (h("output", {}, text(0)));
    const input = /** @type {HTMLInputElement} */ (
      h("input", { type: "range", min: LOW, max: HIGH, step: STEP, value: "0", "aria-label": name, oninput: () => this.#turn(name) })
    );
    this.#sliders.set(name, { input, output });
    return h("label", {}, h("b", {}, name), output, input);
  }

  /** @param {string} name */
  async #turn(name) {
    const slider = this.#sliders.get(name);
    if (slider) slider.output.value = text(Number(slider.input.value));
    this.#moved = name;
    if (this.#sending) return;
    this.#sending = true;
    while (this.#moved) {
      const moved = this.#moved;
      this.#moved = "";
      const set = [...this.#sliders].map(([each, { input }]) => ({ name: each, weight: Number(input.value) }));
      const loras = set.filter((lora) => lora.weight);
      const label = `${moved} ${text(set.find((lora) => lora.name === moved)?.weight ?? 0)}`;
      await Promise.all([this.send(loras, label), pause(LEAST_MS)]);
    }
    this.#sending = false;
  }
}
