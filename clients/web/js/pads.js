/**
 * The pads: banks of the model's vocabulary, nine at a time, and Mine. A pad shows the last still seen under its
 * value, its name and its key.
 */

import { clamp, h } from "./dom.js";

const ON_A_BANK = 9;
const DRAG_PX = 8;
const HOLD_MS = 500;

/**
 * @typedef {object} Pad
 * @property {string} id names its still
 * @property {string} label
 * @property {string} bank of the vocabulary, or empty for one's own prompt
 * @property {import("./api.js").VocabularyEntry | null} entry
 * @property {string} prompt of one's own
 */

/**
 * @typedef {object} Bank
 * @property {string} name
 * @property {Pad[]} pads
 */

/**
 * @param {Record<string, import("./api.js").VocabularyEntry[]>} vocabulary
 * @param {string[]} mine
 * @returns {Bank[]}
 */
export function banksOf(vocabulary, mine) {
  const banks = [];
  for (const [bank, entries] of Object.entries(vocabulary)) {
    for (let i = 0; i < entries.length; i += ON_A_BANK) {
      const pads = entries
        .slice(i, i + ON_A_BANK)
        .map((entry) => ({ id: `${bank}:${entry.name}`, label: entry.name, bank, entry, prompt: "" }));
      banks.push({ name: i ? `${bank} ${i / ON_A_BANK + 1}` : bank, pads });
    }
  }
  const own = mine.slice(0, ON_A_BANK).map((prompt) => ({ id: `mine:${prompt}`, label: prompt, bank: "", entry: null, prompt }));
  return [...banks, { name: "mine", pads: own }];
}

export class Pads {
  /** @type {Bank[]} */
  #banks = [];
  #bank = 0;
  #focus = 0;
  /** @type {HTMLButtonElement[]} */
  #nodes = [];
  #stopClick = false;

  /**
   * @param {HTMLElement} tabs
   * @param {HTMLElement} toolbar
   * @param {import("./stills.js").Album} album
   * @param {{tap: (pad: Pad) => void, arm: (pad: Pad) => void, keep: () => void, hint: (x: number, y: number) => void,
   *   drop: (pad: Pad, x: number, y: number) => void}} to
   */
  constructor(tabs, toolbar, album, to) {
    this.tabs = tabs;
    this.toolbar = toolbar;
    this.album = album;
    this.to = to;
    /** @type {import("./prompt.js").Attributes} in force on screen */
    this.shown = {};
    /** @type {import("./prompt.js").Attributes} asked for */
    this.asked = {};
    /** @type {string} pad that is armed */
    this.armed = "";
    album.onchange = (name) => this.#picture(name);
    tabs.addEventListener("keydown", (event) => this.#walkTabs(event));
    toolbar.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** @param {Bank[]} banks */
  set(banks) {
    this.#banks = banks;
    this.#bank = clamp(this.#bank, 0, banks.length - 1);
    this.#draw();
  }

  /** @param {number} by */
  turn(by) {
    this.#open((this.#bank + by + this.#banks.length) % this.#banks.length);
  }

  /**
   * @param {number} number 1 to 9
   * @returns {Pad | undefined}
   */
  at(number) {
    return this.#banks[this.#bank]?.pads[number - 1];
  }

  /** What is on screen, asked for and armed, on the pads. */
  mark() {
    this.#nodes.forEach((node, i) => {
      const pad = this.at(i + 1);
      if (!pad) return;
      const on = pad.entry ? this.shown[pad.bank]?.name === pad.entry.name : false;
      const asked = pad.entry ? this.asked[pad.bank]?.name === pad.entry.name && !on : false;
      node.classList.toggle("on", on);
      node.classList.toggle("asked", asked);
      node.classList.toggle("armed", this.armed === pad.id);
      node.setAttribute("aria-pressed", String(on));
    });
  }

  /** @param {number} bank */
  #open(bank) {
    this.#bank = bank;
    this.#focus = 0;
    this.#draw();
  }

  #draw() {
    const focused = this.toolbar.contains(document.activeElement);
    this.tabs.replaceChildren(
      ...this.#banks.map((bank, i) =>
        h(
          "button",
          { type: "button", role: "tab", "aria-selected": String(i === this.#bank), "aria-controls": "pads", tabIndex: i === this.#bank ? 0 : -1, onclick: () => this.#open(i) },
          bank.name,
        ),
      ),
    );
    const { name, pads } = this.#banks[this.#bank] ?? { name: "", pads: [] };
    this.toolbar.setAttribute("aria-label", `${name} pads`);
    this.#nodes = pads.map((pad, i) => this.#pad(pad, i));
    const empty = h("p.empty", {}, "Prompts that you type are kept here. Alt-tap a pad to keep what is on.");
    this.toolbar.replaceChildren(...(pads.length ? this.#nodes : [empty]));
    pads.forEach((pad) => this.#picture(pad.id));
    this.mark();
    if (focused) this.#nodes[this.#focus]?.focus();
    this.tabs.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** @param {Pad} pad @param {number} i @returns {HTMLButtonElement} */
  #pad(pad, i) {
    const node = /** @type {HTMLButtonElement} */ (
      h(
        "button.pad",
        { type: "button", tabIndex: i === this.#focus ? 0 : -1, title: pad.prompt || pad.entry?.prompt || "", "aria-keyshortcuts": String(i + 1) },
        h("img", { alt: "", draggable: false, hidden: true }),
        h("i", { "aria-hidden": "true" }, String(i + 1)),
        h("b", {}, pad.label),
      )
    );
    if (pad.bank === "colour" && CSS.supports("color", pad.label)) {
      node.classList.add("swatch");
      node.style.setProperty("--swatch", pad.label);
    }
    node.addEventListener("click", (event) => this.#click(event, pad));
    node.addEventListener("focus", () => this.#rove(i));
    node.addEventListener("pointerdown", (event) => this.#press(event, pad, node));
    return node;
  }

  /** @param {MouseEvent} event @param {Pad} pad */
  #click(event, pad) {
    if (this.#stopClick) this.#stopClick = false;
    else if (event.shiftKey) this.to.arm(pad);
    else if (event.altKey) this.to.keep();
    else this.to.tap(pad);
  }

  /**
   * A press may become a drag to the timeline (mouse, pen) or, held on a touch screen, arm the pad.
   * @param {PointerEvent} down @param {Pad} pad @param {HTMLElement} node
   */
  #press(down, pad, node) {
    if (down.button !== 0) return;
    this.#stopClick = false;
    const ended = new AbortController();
    const { signal } = ended;
    let dragging = false;
    let still = true;
    const move = (/** @type {PointerEvent} */ event) => {
      if (Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) > DRAG_PX) {
        still = false;
        if (!dragging && down.pointerType !== "touch") {
          dragging = true;
          node.setPointerCapture(down.pointerId);
          node.classList.add("dragged");
        }
      }
      if (dragging) this.to.hint(event.clientX, event.clientY);
    };
    const up = (/** @type {PointerEvent} */ event) => {
      ended.abort();
      // By the events' own times: a page that is busy must not take a tap for a hold.
      if (down.pointerType === "touch" && still && event.type === "pointerup" && event.timeStamp - down.timeStamp > HOLD_MS) {
        this.#stopClick = true;
        this.to.arm(pad);
      }
      if (!dragging) return;
      node.classList.remove("dragged");
      // Where no click follows the drag, the next tap must still count: the next press clears this.
      this.#stopClick = true;
      this.to.drop(pad, event.type === "pointerup" ? event.clientX : NaN, event.clientY);
    };
    window.addEventListener("pointermove", move, { signal });
    window.addEventListener("pointerup", up, { signal });
    window.addEventListener("pointercancel", up, { signal });
  }

  /** @param {string} name of a still that is new */
  #picture(name) {
    const { pads } = this.#banks[this.#bank] ?? { pads: [] };
    const node = this.#nodes[pads.findIndex((pad) => pad.id === name)];
    const url = this.album.get(name);
    if (!node || !url) return;
    const image = /** @type {HTMLImageElement} */ (node.firstChild);
    image.src = url;
    image.hidden = false;
  }

  /** @param {number} i the pad that Tab comes back to */
  #rove(i) {
    this.#focus = i;
    this.#nodes.forEach((node, j) => (node.tabIndex = i === j ? 0 : -1));
  }

  /** @param {KeyboardEvent} event */
  #walk(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? this.#nodes.length - 1 : this.#focus + (by ?? NaN);
    if (Number.isNaN(to)) return;
    event.preventDefault();
    event.stopPropagation();
    this.#nodes[clamp(to, 0, this.#nodes.length - 1)]?.focus();
  }

  /** @param {KeyboardEvent} event */
  #walkTabs(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    this.turn(by);
    /** @type {HTMLElement} */ (this.tabs.children[this.#bank]).focus();
  }
}
