/**
 * The share sheet: addresses of this stream to copy, and its recipe.
 */

import { $, h } from "./dom.js";
import { Problem } from "./api.js";

/** @param {import("./api.js").Api} api @param {"watch" | "steer"} view */
export const qrOf = (api, view) => `${api.path}/qr.svg?view=${view}`;

export class Share {
  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.dialog = /** @type {HTMLDialogElement} */ ($("#share"));
    $("#share-open").addEventListener("click", () => this.open());
  }

  open() {
    const page = new URL(this.api.id === "main" ? "/" : `/s/${this.api.id}`, location.href).href;
    const rows = [
      this.#row("Watch", `${page}?watch`, "The picture and its prompt, nothing to press", "watch"),
      this.#row("Steer", page, "This page", "steer"),
      this.#row("Output", `${page}?output`, "The picture only: for a projector or OBS"),
      this.#row("Embed", `<iframe src="${page}?output" width="512" height="288" allow="autoplay"></iframe>`, "For another page"),
    ];
    const save = h("button", { type: "button", onclick: () => this.#recipe() }, "Save recipe");
    const recipe = h("div.row", {}, h("div", {}, h("b", {}, "Recipe"), h("span", {}, "The log: posted back, it gives the same video")), save);
    $("#share .rows").replaceChildren(...rows, recipe);
    this.dialog.showModal();
  }

  /** @param {string} name @param {string} text @param {string} about @param {"" | "watch" | "steer"} [code] a QR code of it */
  #row(name, text, about, code = "") {
    const copy = h("button", { type: "button", "aria-label": `Copy ${name} link` }, "Copy");
    const value = /** @type {HTMLInputElement} */ (h("input", { readOnly: true, value: text, "aria-label": `${name} link` }));
    value.addEventListener("focus", () => value.select());
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        // Without HTTPS there is no clipboard: leave it selected for Ctrl+C.
        value.focus();
        copy.textContent = "Press Ctrl+C";
      }
      setTimeout(() => (copy.textContent = "Copy"), 1600);
    });
    const row = h("div.row", {}, h("div", {}, h("b", {}, name), h("span", {}, about)), value, copy);
    if (code) row.append(h("img.qr", { src: qrOf(this.api, code), alt: `QR code of the ${name} link`, width: 80, height: 80 }));
    return row;
  }

  async #recipe() {
    try {
      const url = URL.createObjectURL(new Blob([await this.api.log()], { type: "application/jsonl" }));
      h("a", { href: url, download: `${this.api.id}.jsonl` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    } catch (error) {
      if (error instanceof Problem) $("#share .rows").append(h("p.error", {}, error.message));
    }
  }
}
