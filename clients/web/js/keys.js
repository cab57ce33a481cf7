/**
 * Keys. Single ones can be turned off in the sheet (somebody may speak to the page, or lean on a key).
 */

import { $, h, store } from "./dom.js";

const OFF = "keys-off";
const HOLD_MS = 600;

/** The sheet's rows. */
const SHEET = [
  ["1 – 9", "pad: change the picture now"],
  ["Shift + 1 – 9", "arm the pad"],
  ["Space", "GO: fire what is armed"],
  ["[  ]", "bank before, bank after"],
  ["/", "type a prompt"],
  ["Enter", "send it now"],
  ["Shift + Enter", "arm it"],
  ["Esc", "back to NOW; or take back the newest that is still dashed"],
  ["←  →", "look at a block of the past"],
  ["Alt + tap", "keep the prompt in Mine"],
  ["Drag a pad", "cue it on the timeline"],
  ["I", "start a stream from a picture; or drop or paste one"],
  ["F", "full screen"],
  ["O", "output window: the picture only"],
  ["H", "hide the deck"],
  [". held", "the safe scene: what the server's owner chose to begin with"],
  ["?", "this sheet"],
];

/** @typedef {"fullscreen" | "output" | "hide" | "sheet" | "prompt" | "picture" | "safe" | "go" | "cancel"} Act */

export class Keys {
  #held = 0;

  /**
   * @param {{pad: (number: number, arm: boolean) => void, bank: (by: number) => void, block: (by: number) => void,
   *   act: (what: Act) => boolean | void}} to
   */
  constructor(to) {
    this.to = to;
    this.on = !store.get(OFF, false);
    this.#fillSheet();
    document.addEventListener("keydown", (event) => this.#down(event));
    document.addEventListener("keyup", (event) => event.key === "." && clearTimeout(this.#held));
    addEventListener("blur", () => clearTimeout(this.#held));
  }

  #fillSheet() {
    const rows = SHEET.map(([key, what]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, what)));
    $("#sheet tbody").replaceChildren(...rows);
    const box = /** @type {HTMLInputElement} */ ($("#single-keys"));
    box.checked = this.on;
    box.addEventListener("change", () => {
      this.on = box.checked;
      store.set(OFF, !this.on);
    });
  }

  /** @param {KeyboardEvent} event */
  #down(event) {
    const at = /** @type {HTMLElement} */ (event.target);
    const typing = at.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (event.ctrlKey || event.metaKey || typing || document.querySelector("dialog[open]")) return;
    if (at.matches("video[controls]") && [" ", "ArrowLeft", "ArrowRight"].includes(event.key)) return; // its own
    if (event.key === "Escape") return void this.to.act("cancel");
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      return this.to.block(event.key === "ArrowLeft" ? -1 : 1);
    }
    if (this.on && this.#single(event, at)) event.preventDefault();
  }

  /** @param {KeyboardEvent} event @param {HTMLElement} at @returns {boolean} whether it was one of ours */
  #single(event, at) {
    const digit = /^Digit([1-9])$/.exec(event.code)?.[1] ?? (/^[1-9]$/.test(event.key) ? event.key : "");
    if (digit && !event.altKey) {
      if (!event.repeat) this.to.pad(Number(digit), event.shiftKey);
      return true;
    }
    if (event.key === " ") {
      // Without anything armed the space bar keeps its meaning on buttons, and never scrolls or pauses.
      return Boolean(this.to.act("go")) || !at.closest("button, a, summary, [role=button], input");
    }
    if (event.altKey || event.repeat) return false;
    /** @type {Record<string, () => void>} */
    const acts = {
      "[": () => this.to.bank(-1),
      "]": () => this.to.bank(1),
      "/": () => this.to.act("prompt"),
      "?": () => this.to.act("sheet"),
      i: () => this.to.act("picture"),
      f: () => this.to.act("fullscreen"),
      o: () => this.to.act("output"),
      h: () => this.to.act("hide"),
      // Held, so that nobody ends a show by leaning on a key.
      ".": () => (this.#held = window.setTimeout(() => this.to.act("safe"), HOLD_MS)),
    };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    act?.();
    return Boolean(act);
  }
}
