/**
 * What the page offers where the model makes clips and no streams: a line to say what the next one shows, how far it
 * is, and those that were made here.
 */

import { $, Backoff, h, pause, store } from "./dom.js";
import { Problem } from "./api.js";
import { prepare, sizeFor } from "./picture.js";

const KEPT = "clips";
const MAX_KEPT = 12;
const WAIT_S = 20;
const LENGTHS_S = [1, 2, 4];

/**
 * @typedef {object} Clip as the server shows it
 * @property {string} id
 * @property {"queued" | "in_progress" | "completed" | "failed"} status
 * @property {number} progress percent
 * @property {string | null} reason why it doesn't go on
 * @property {{message: string} | null} error
 * @property {string} prompt
 * @property {string} size `1280x704`
 * @property {string} [control_token]
 */

/** What takes so long, in words. @param {Clip} clip */
export function said({ status, progress, reason }) {
  if (reason) return `${reason[0].toUpperCase()}${reason.slice(1)}`;
  return status === "queued" ? "Waiting for the model" : `Making the clip: ${progress}%`;
}

/** Lengths to choose from, in seconds, that memory has room for. @param {import("./api.js").Model["clips"]} clips */
export function lengths({ seconds, size, rate_hz: rate, pixels_in_all: pixels }) {
  const [width, height] = sides(size);
  const longest = pixels === null ? seconds : Math.min(seconds, Math.floor(pixels / (width * height)) / rate);
  return [...LENGTHS_S.filter((some) => some < longest), longest];
}

/** @param {string} size @returns {number[]} width and height */
const sides = (size) => size.split("x").map(Number);

export class Maker {
  /** The picture that the next clip starts from. @type {Blob | null} */
  #picture = null;
  /** The clip under way. @type {Clip | null} */
  #making = null;
  /** @type {{id: string, token: string}[]} */
  #kept = store.get(KEPT, []);

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.root = /** @type {HTMLElement} */ ($("#maker"));
    this.prompt = /** @type {HTMLInputElement} */ (
      h("input", { name: "prompt", placeholder: "Say what the clip shows", "aria-label": "Prompt", "aria-describedby": "made", enterKeyHint: "go" })
    );
    this.seconds = /** @type {HTMLSelectElement} */ (h("select", { name: "seconds", "aria-label": "Length" }));
    this.go = /** @type {HTMLButtonElement} */ (h("button.go", { onclick: (/** @type {Event} */ event) => this.#making && (event.preventDefault(), this.#cancel()) }));
    this.start = h("button.start", { type: "button", onclick: () => this.choose() });
    this.note = h("p.note", { id: "made", role: "status" });
    this.bar = h("div.progress", { role: "progressbar", "aria-label": "The clip", hidden: true });
    this.shelf = h("ul.shelf", { "aria-label": "Clips made here" });
    this.chooser = /** @type {HTMLInputElement} */ (h("input", { type: "file", accept: "image/*", hidden: true }));
    this.video = /** @type {HTMLVideoElement} */ (
      h("video", { id: "clip", controls: true, loop: true, muted: true, playsInline: true, autoplay: true, hidden: true })
    );
    this.chooser.addEventListener("change", () => {
      if (this.chooser.files?.[0]) this.take(this.chooser.files[0]);
      this.chooser.value = "";
    });
  }

  /** Show it, once. @param {import("./api.js").Model} model */
  open(model) {
    if (this.model) return;
    this.model = model;
    document.title = "Clips";
    const choices = lengths(model.clips);
    this.seconds.append(...choices.map((value) => h("option", { value: String(value) }, `${Math.floor(value * 10) / 10} s`)));
    this.seconds.value = String(choices.findLast((value) => value <= 4));
    this.prompt.value = model.prompt;
    const onsubmit = (/** @type {Event} */ event) => (event.preventDefault(), this.#making || this.make());
    const line = h("form", { autocomplete: "off", onsubmit }, this.start, h("div.field", {}, this.prompt), this.seconds, this.go);
    this.root.append(this.bar, line, this.note, this.shelf, this.chooser);
    $("#frame").append(this.video);
    this.take(null);
    this.#rest();
    this.#restore();
  }

  focus() {
    this.prompt.focus();
    this.prompt.select();
  }

  choose() {
    if (this.#picture) this.take(null);
    else this.chooser.click();
  }

  /** Start the next clip from a picture, or from none again. @param {File | null} picture */
  take(picture) {
    if (picture?.type && !picture.type.startsWith("image/")) return this.#say(`${picture.name} is no picture`, "error");
    this.#picture = picture;
    const label = picture ? "Don't start from this picture" : "Start from a picture";
    this.start.title = label;
    this.start.setAttribute("aria-label", label);
    const image = /** @type {HTMLImageElement | null} */ (this.start.querySelector("img"));
    if (image) URL.revokeObjectURL(image.src);
    if (picture) this.start.replaceChildren(h("img", { src: URL.createObjectURL(picture), alt: "" }));
    else this.start.replaceChildren($("#picture svg").cloneNode(true));
  }

  /** Ask for a clip and wait for it; what is wrong is said under the line, and its text stays. */
  async make() {
    if (!this.model) return;
    const form = new FormData();
    form.set("prompt", this.prompt.value);
    form.set("seconds", this.seconds.value);
    this.go.disabled = true;
    try {
      if (this.#picture) {
        const { picture, ratio } = await prepare(this.#picture, this.model.limits);
        const { size } = this.model.clips;
        form.set("input_reference", picture);
        if (ratio > 0) form.set("size", sizeFor([size, sides(size).reverse().join("x")], ratio));
      }
      const clip = await (await this.api.fetch("POST", "/v1/videos", { body: form })).json();
      this.#keep((kept) => [...kept, { id: clip.id, token: clip.control_token }].slice(-MAX_KEPT));
      this.#follow(clip);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#say(error.message, "error");
    } finally {
      this.go.disabled = false;
    }
  }

  /** Show how far it is until it is over. @param {Clip} clip */
  async #follow(clip) {
    const backoff = new Backoff();
    this.#making = clip;
    this.go.textContent = "Cancel";
    this.go.type = "button"; // Enter in the line, where the next prompt may be written already, must not cancel
    this.bar.hidden = false;
    while (this.#making?.id === clip.id && clip.status !== "completed" && clip.status !== "failed") {
      this.#say(said(clip));
      this.bar.style.setProperty("--done", String(clip.progress / 100));
      this.bar.setAttribute("aria-valuenow", String(clip.progress));
      try {
        clip = await this.api.get(`/v1/videos/${clip.id}?wait_s=${WAIT_S}`);
        backoff.reset();
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        if (error.status === 404) clip = { ...clip, status: "failed", error: { message: "The clip is gone" } };
        else await pause(backoff.next());
      }
    }
    if (this.#making?.id !== clip.id) return; // cancelled
    this.#rest();
    if (clip.status === "failed") return this.#say(clip.error?.message ?? "The clip could not be made", "error");
    this.#say("");
    this.#add(clip);
    this.show(clip);
  }

  async #cancel() {
    const clip = this.#making;
    this.#rest();
    this.#say("");
    if (clip) await this.#delete(clip.id).catch(() => {});
  }

  /** No clip is under way any more. */
  #rest() {
    this.#making = null;
    this.go.textContent = "Make a clip";
    this.go.type = "submit";
    this.bar.hidden = true;
  }

  /** @param {string} id */
  async #delete(id) {
    const token = this.#kept.find((one) => one.id === id)?.token;
    await this.api.fetch("DELETE", `/v1/videos/${id}`, { token });
    this.#forget(id);
  }

  /** @param {string} id */
  #forget(id) {
    this.#keep((kept) => kept.filter((one) => one.id !== id));
  }

  /** Another tab may keep clips too. @param {(kept: {id: string, token: string}[]) => {id: string, token: string}[]} change */
  #keep(change) {
    this.#kept = change(store.get(KEPT, this.#kept));
    store.set(KEPT, this.#kept);
  }

  /** Clips of an earlier visit, and one that is still being made. */
  async #restore() {
    for (const { id } of this.#kept) {
      try {
        const clip = await this.api.get(`/v1/videos/${id}`);
        if (clip.status === "completed") this.#add(clip);
        else if (clip.status !== "failed" && !this.#making) this.#follow(clip);
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        if (error.status === 404) this.#forget(id);
      }
    }
  }

  /** @param {Clip} clip */
  #add(clip) {
    const [width, height] = sides(clip.size);
    const still = h("video", { src: `${address(clip)}#t=0.5`, muted: true, preload: "metadata", tabIndex: -1 });
    still.style.setProperty("--ratio", String(width / height));
    const button = h("button", { type: "button", title: clip.prompt, "aria-label": clip.prompt, onclick: () => this.show(clip) }, still);
    button.dataset.id = clip.id;
    this.shelf.prepend(h("li", {}, button));
    if (this.shelf.children.length > MAX_KEPT) this.shelf.lastElementChild?.remove();
  }

  /** Put it on the stage. @param {Clip} clip */
  show(clip) {
    const [width, height] = sides(clip.size);
    for (const part of [$("#frame"), $("#stage")]) part.style.setProperty("--ratio", String(width / height));
    this.video.src = address(clip);
    this.video.setAttribute("aria-label", clip.prompt);
    this.video.hidden = false;
    document.body.dataset.clip = clip.id;
    for (const button of this.shelf.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.id === clip.id));
    const save = h("a", { href: address(clip), download: `${clip.prompt.slice(0, 40).trim() || "clip"}.mp4` }, "Save the clip");
    const remove = h("button", { type: "button", onclick: () => this.#remove(clip) }, "Delete it");
    if (!this.#making) this.note.replaceChildren(h("span", {}, clip.prompt), save, remove);
  }

  /** Take a clip off the stage, the shelf and the server. @param {Clip} clip */
  async #remove(clip) {
    try {
      await this.#delete(clip.id);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status !== 404) return this.#say(error.message, "error");
      this.#forget(clip.id);
    }
    this.shelf.querySelector(`[data-id="${clip.id}"]`)?.closest("li")?.remove();
    this.#say("");
    if (document.body.dataset.clip !== clip.id) return;
    delete document.body.dataset.clip;
    this.video.hidden = true;
    this.video.removeAttribute("src");
    this.video.load();
    this.focus();
  }

  /** @param {string} text @param {"" | "error"} [kind] */
  #say(text, kind = "") {
    this.note.replaceChildren(text);
    this.note.dataset.kind = kind;
    if (kind === "error") this.prompt.setAttribute("aria-invalid", "true");
    else this.prompt.removeAttribute("aria-invalid");
  }
}

/** @param {Clip} clip */
const address = ({ id }) => `/v1/videos/${id}/content`;
