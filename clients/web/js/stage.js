/**
 * The stage: the picture, its own light on the wall behind it, its hue for the pads, a pulse when a steer shows.
 */

import { $, calm } from "./dom.js";
import { draw } from "./stills.js";

const LIGHT_MS = 500;
const PULSE_EVERY_MS = 400;
/** Longer side of the last picture, which stays when the video is gone. */
const LAST_PX = 512;

export class Stage {
  #pulsed = 0;

  /** @param {import("./feed.js").Feed} feed */
  constructor(feed) {
    this.feed = feed;
    this.root = /** @type {HTMLElement} */ ($("#stage"));
    this.frame = /** @type {HTMLElement} */ ($("#frame"));
    this.last = /** @type {HTMLCanvasElement} */ ($("#last"));
    this.light = /** @type {HTMLCanvasElement} */ ($("#light"));
    this.edge = /** @type {HTMLElement} */ ($("#edge"));
    feed.onfreeze = (video) => draw(video, this.last);
    setInterval(() => this.#shine(), LIGHT_MS);
  }

  /** @param {string} size of the pictures, `256x144` */
  size(size) {
    const [width, height] = size.split("x").map(Number);
    this.frame.style.setProperty("--ratio", String(width / height));
    this.root.style.setProperty("--ratio", String(width / height));
    const scale = LAST_PX / Math.max(width, height);
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.last.width === w && this.last.height === h) return; // to set them would empty it
    [this.last.width, this.last.height] = [w, h];
  }

  /** The prompt names the picture for those who can't see it. @param {string} prompt */
  label(prompt) {
    for (const video of document.querySelectorAll("#frame video")) video.setAttribute("aria-label", prompt);
    $("#caption").textContent = prompt;
  }

  /** A steer came on screen. */
  pulse() {
    const now = performance.now();
    if (calm() || now - this.#pulsed < PULSE_EVERY_MS) return;
    this.#pulsed = now;
    this.edge.animate(
      [
        { opacity: 0.9, transform: "scale(1)" },
        { opacity: 0, transform: "scale(1.018)" },
      ],
      { duration: 700, easing: "ease-out" },
    );
  }

  #shine() {
    if (this.feed.link !== "live" || document.hidden) return;
    const context = this.light.getContext("2d", { willReadFrequently: true });
    if (!context || !draw(this.feed.video, this.light)) return;
    const { width, height } = this.light;
    this.#tint(context.getImageData(0, 0, width, height).data);
    // Softened and faded here, 32 by 18, where it costs nothing; scaled up it is a glow.
    context.filter = "blur(2px)";
    context.drawImage(this.light, 0, 0);
    context.filter = "none";
    context.globalCompositeOperation = "destination-in";
    context.fillStyle = this.#fade(context, height);
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "source-over";
  }

  /** From full light to none at the deck. @param {CanvasRenderingContext2D} context @param {number} height */
  #fade(context, height) {
    const fade = context.createLinearGradient(0, 0, 0, height);
    fade.addColorStop(0.6, "#000");
    fade.addColorStop(1, "#0000");
    return fade;
  }

  /**
   * The picture's hue, weighed by how much colour each pixel has.
   * @param {Uint8ClampedArray} rgba
   */
  #tint(rgba) {
    let [x, y, weight] = [0, 0, 0];
    for (let i = 0; i < rgba.length; i += 4) {
      const [r, g, b] = [rgba[i], rgba[i + 1], rgba[i + 2]];
      x += r - (g + b) / 2;
      y += ((g - b) * Math.sqrt(3)) / 2;
      weight += Math.max(r, g, b) - Math.min(r, g, b);
    }
    const hue = (Math.atan2(y, x) * 180) / Math.PI;
    const strength = Math.min(80, (weight / (rgba.length / 4)) * 1.2);
    document.documentElement.style.setProperty("--glow", `hsl(${hue.toFixed(0)} ${strength.toFixed(0)}% 62%)`);
  }

  /** Something to look at until the first picture. @param {string} address of the stream's last one */
  poster(address) {
    const image = new Image();
    image.onload = () => {
      if (this.feed.pictures) return;
      this.last.getContext("2d")?.drawImage(image, 0, 0, this.last.width, this.last.height);
    };
    image.src = address;
  }
}
