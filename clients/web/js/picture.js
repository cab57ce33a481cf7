/**
 * A stream of one's own that starts from a picture: dropped on the page, pasted, or chosen. It moves on from there
 * under the prompt in the field.
 */

import { $, pause } from "./dom.js";
import { Problem } from "./api.js";

/** Pictures that the server wouldn't take are made anew by the browser, at most this large. */
const MAX_SIDE = 2048;
/** A busy server may be slow to see that its viewer has left. */
const LEAVE_TRIES = 60;
const LEAVE_MS = 250;

/**
 * @typedef {object} Limits of the server
 * @property {number} [image_bytes]
 * @property {number} [image_pixels]
 * @property {string[]} [image_types] `PNG`, `JPEG`, …
 */

/**
 * The one of a model's sizes that cuts least off a picture.
 * @param {string[]} sizes `256x144`
 * @param {number} ratio width by height
 */
export function sizeFor(sizes, ratio) {
  /** @param {string} size */
  const off = (size) => {
    const [width, height] = size.split("x").map(Number);
    return Math.abs(Math.log(ratio / (width / height)));
  };
  return sizes.reduce((best, size) => (off(size) < off(best) ? size : best));
}

/**
 * A file that the server takes, and its width by height; NaN and the file itself where the browser can't read it
 * either (the server then says what is wrong with it).
 * @param {Blob} file
 * @param {Limits} limits
 * @returns {Promise<{picture: Blob, ratio: number}>}
 */
export async function prepare(file, limits) {
  const { image_bytes: bytes = Infinity, image_pixels: pixels = Infinity, image_types: types = [] } = limits;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return { picture: file, ratio: NaN };
  }
  const { width, height } = bitmap;
  const known = types.includes(file.type.replace("image/", "").toUpperCase());
  if (known && file.size <= bytes && width * height <= pixels) return { picture: file, ratio: width / height };
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  const canvas = new OffscreenCanvas(Math.max(1, width * scale), Math.max(1, height * scale));
  const context = canvas.getContext("2d");
  if (!context) return { picture: file, ratio: width / height };
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return { picture: await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 }), ratio: width / height };
}

export class PictureStart {
  #busy = false;
  /** Who takes a picture where no stream can start from it. @type {((file: Blob) => void) | null} */
  instead = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./attach.js").Attachment} attachment
   * @param {import("./field.js").Field} field says what is wrong, and holds the prompt
   */
  constructor(api, attachment, field) {
    this.api = api;
    this.attachment = attachment;
    this.field = field;
    this.drop = /** @type {HTMLElement} */ ($("#drop"));
    this.chooser = /** @type {HTMLInputElement} */ ($("#picture-file"));
    $("#picture").addEventListener("click", () => this.choose());
    this.chooser.addEventListener("change", () => {
      this.#take(this.chooser.files);
      this.chooser.value = "";
    });
    document.addEventListener("paste", (event) => this.#take(event.clipboardData?.files) && event.preventDefault());
    document.addEventListener("dragover", (event) => this.#over(event));
    document.addEventListener("dragleave", (event) => event.relatedTarget || this.#show(""));
    document.addEventListener("drop", (event) => this.#dropped(event));
  }

  /** Let the person pick a file. */
  choose() {
    if (this.#allowed) this.chooser.click();
  }

  get #allowed() {
    return !this.#busy && document.body.dataset.watch !== "true" && !document.body.classList.contains("output");
  }

  /** @param {DragEvent} event */
  #over(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // or the browser would leave the page for the file
    event.dataTransfer.dropEffect = this.#allowed ? "copy" : "none";
    if (this.#allowed) this.#show("over");
  }

  /** @param {DragEvent} event */
  #dropped(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    if (!this.#busy) this.#show("");
    this.#take(event.dataTransfer.files);
  }

  /** @param {FileList | null} [files] @returns {boolean} whether there was something to take */
  #take(files) {
    const file = files?.[0];
    if (!file || !this.#allowed) return false;
    if (this.instead) this.instead(file);
    else if (file.type && !file.type.startsWith("image/")) this.field.say(`${file.name} is no picture`, "error");
    else this.start(file);
    return true;
  }

  /** @param {"" | "over" | "busy"} state @param {string} [picture] its address */
  #show(state, picture) {
    this.drop.dataset.state = state;
    this.drop.style.backgroundImage = picture ? `url("${picture}")` : "";
    $("#drop p").textContent = state === "busy" ? "Starting from your picture" : "Start from this picture";
  }

  /** Open the stream and go there; what is in the way is said under the field. @param {Blob} file */
  async start(file) {
    const { model, stream } = this.attachment;
    if (!model) return this.field.say("A picture can start a stream as soon as the model is warm", "error");
    this.#busy = true;
    const address = URL.createObjectURL(file);
    this.#show("busy", address);
    try {
      const { picture, ratio } = await prepare(file, model.limits);
      const prompt = this.field.input.value.trim() || stream?.prompt;
      const wanted = { prompt, ...(ratio > 0 && { size: sizeFor(model.sizes, ratio) }) };
      const made = await this.#create(wanted, picture);
      location.assign(`/s/${made.id}`);
    } catch (error) {
      this.#show("");
      if (!(error instanceof Problem)) throw error;
      this.field.say(error.code === "capacity-full" ? this.#full() : error.message, "error");
    } finally {
      this.#busy = false;
      URL.revokeObjectURL(address);
    }
  }

  /**
   * Where the only one who watches the last place is the one who asks for it, leave it and take it.
   * @param {Record<string, unknown>} wanted
   * @param {Blob} picture
   */
  async #create(wanted, picture) {
    try {
      return await this.api.create(wanted, picture);
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== "capacity-full" || !(await this.#alone(error))) throw error;
    }
    this.attachment.leave();
    for (let left = LEAVE_TRIES; ; left--) {
      try {
        return await this.api.create(wanted, picture);
      } catch (error) {
        const full = error instanceof Problem && error.code === "capacity-full";
        if (!full || !left) {
          this.attachment.retry();
          throw error;
        }
        await pause(LEAVE_MS);
      }
    }
  }

  /** @param {Problem} problem that names who holds the places */
  async #alone(problem) {
    const stream = await this.api.stream().catch(() => null);
    if (stream) this.attachment.stream = stream;
    const ours = stream && (problem.streams.includes(this.api.id) || problem.streams.includes(stream.id));
    return Boolean(ours) && (stream?.viewers ?? 0) <= 1;
  }

  #full() {
    const others = (this.attachment.stream?.viewers ?? 1) - 1;
    const who = others > 0 ? `, and ${others === 1 ? "somebody else watches" : `${others} others watch`} this one` : "";
    return `A picture needs a stream of its own: every place is taken${who}`;
  }
}
