/**
 * The prompt: a field that shows what was asked last, marks words that the checkpoint doesn't know before they are
 * sent, and keeps the text when the server refuses it.
 */

import { $, h } from "./dom.js";

const HINT_MS = 4000;

export class Field {
  /** @type {import("./words.js").Words | null} */
  #words = null;
  #current = "";
  #typed = false;
  #hint = 0;

  /** @param {{send: (text: string) => void, arm: (text: string) => void}} to */
  constructor(to) {
    this.to = to;
    this.form = /** @type {HTMLFormElement} */ ($("#steer"));
    this.input = /** @type {HTMLInputElement} */ ($("#prompt"));
    this.mirror = /** @type {HTMLElement} */ ($("#mirror"));
    this.note = /** @type {HTMLElement} */ ($("#note"));
    this.input.addEventListener("input", () => this.#edited());
    this.input.addEventListener("focus", () => this.input.select());
    this.input.addEventListener("blur", () => !this.#typed && this.show(this.#current));
    this.input.addEventListener("scroll", () => (this.mirror.scrollLeft = this.input.scrollLeft));
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(false);
    });
  }

  /** @param {import("./words.js").Words} words */
  set words(words) {
    this.#words = words;
    this.#mark();
  }

  /** What was asked last, unless somebody is typing. @param {string} prompt */
  show(prompt) {
    this.#current = prompt;
    if (this.#typed) return;
    this.input.value = prompt;
    this.#mark();
  }

  focus() {
    this.input.focus();
  }

  /** Nothing typed is left over. */
  clear() {
    this.#typed = false;
    clearTimeout(this.#hint);
    this.note.replaceChildren();
    delete this.note.dataset.kind;
    this.input.removeAttribute("aria-invalid");
  }

  /**
   * Something to say under the field; the text stays.
   * @param {string} text
   * @param {"error" | "hint"} kind
   */
  say(text, kind) {
    this.note.dataset.kind = kind;
    this.note.replaceChildren(text);
    this.input.toggleAttribute("aria-invalid", kind === "error");
    clearTimeout(this.#hint);
    if (kind === "error") this.#typed = true;
    else this.#hint = window.setTimeout(() => this.note.replaceChildren(), HINT_MS);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    event.stopPropagation();
    if (event.key === "Enter" && event.shiftKey) {
      event.preventDefault();
      this.#submit(true);
    } else if (event.key === "Escape") {
      this.clear();
      this.show(this.#current);
      this.input.blur();
    }
  }

  /** @param {boolean} arm */
  #submit(arm) {
    const text = this.input.value.trim();
    if (!text) return this.say("Say what should be seen", "error");
    this.clear();
    if (arm) this.to.arm(text);
    else this.to.send(text);
    // The keyboard goes back to the pads, so that a number isn't typed into the prompt.
    this.input.blur();
  }

  #edited() {
    this.#typed = true;
    clearTimeout(this.#hint);
    this.input.removeAttribute("aria-invalid");
    this.#mark();
    const unknown = this.#words?.unknown(this.input.value) ?? [];
    delete this.note.dataset.kind;
    this.note.replaceChildren();
    if (!unknown.length) return;
    this.note.dataset.kind = "unknown";
    const list = unknown.slice(0, 3).map(({ word, start, end, nearest }) =>
      nearest
        ? h("button", { type: "button", onclick: () => this.#replace(start, end, nearest) }, h("s", {}, word), ` ${nearest}`)
        : h("span", {}, h("s", {}, word)),
    );
    this.note.append(h("em", {}, "Not in its world:"), ...list);
  }

  /** @param {number} start @param {number} end @param {string} word */
  #replace(start, end, word) {
    this.input.focus();
    this.input.setRangeText(word, start, end, "end");
    this.#edited();
  }

  /** Underline what isn't known, in a copy of the text beneath it. */
  #mark() {
    const text = this.input.value;
    const unknown = this.#typed ? (this.#words?.unknown(text) ?? []) : [];
    let from = 0;
    const parts = [];
    for (const { start, end } of unknown) {
      parts.push(text.slice(from, start), h("u", {}, text.slice(start, end)));
      from = end;
    }
    this.mirror.replaceChildren(...parts, text.slice(from));
    this.mirror.scrollLeft = this.input.scrollLeft;
  }
}
