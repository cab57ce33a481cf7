/**
 * Stills taken in the page: one a block for the filmstrip, the last seen under each value for the pads, kept
 * from visit to visit.
 */

import { store } from "./dom.js";

const [WIDTH, HEIGHT] = [160, 90];
const KEPT = 64;

/**
 * Draw what a video shows, filling the canvas.
 * @param {HTMLVideoElement} video
 * @param {HTMLCanvasElement} canvas
 * @returns {boolean} whether there was a picture
 */
export function draw(video, canvas) {
  const { videoWidth: w, videoHeight: h } = video;
  const context = canvas.getContext("2d");
  if (!w || !h || video.readyState < 2 || !context) return false;
  const scale = Math.max(canvas.width / w, canvas.height / h);
  const [dw, dh] = [w * scale, h * scale];
  context.imageSmoothingQuality = "high";
  context.drawImage(video, (canvas.width - dw) / 2, (canvas.height - dh) / 2, dw, dh);
  return true;
}

/**
 * A still of what the video shows now.
 * @param {HTMLVideoElement} video
 * @returns {HTMLCanvasElement | null}
 */
export function still(video) {
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  return draw(video, canvas) ? canvas : null;
}

/** Small pictures by name, kept from visit to visit. */
export class Album {
  #key = "";
  /** @type {Record<string, string>} data URLs; the newest last */
  #pictures = {};

  constructor() {
    /** @type {(name: string) => void} */
    this.onchange = () => {};
  }

  /** @param {string} weights stills of one checkpoint mean nothing to another */
  open(weights) {
    this.#key = `stills:${weights.slice(0, 16)}`;
    this.#pictures = store.get(this.#key, {});
  }

  /** @param {string} name @returns {string} a data URL, or nothing */
  get(name) {
    return this.#pictures[name] ?? "";
  }

  /**
   * @param {string[]} names everything that the picture shows
   * @param {HTMLCanvasElement} canvas
   */
  put(names, canvas) {
    const url = canvas.toDataURL("image/jpeg", 0.72);
    for (const name of names) {
      delete this.#pictures[name];
      this.#pictures[name] = url;
    }
    for (const old of Object.keys(this.#pictures).slice(0, -KEPT)) delete this.#pictures[old];
    if (this.#key) store.set(this.#key, this.#pictures);
    names.forEach((name) => this.onchange(name));
  }
}
