/**
 * A live stream in any page:
 *
 *   <script type="module" src="//host/embed.js"></script>
 *   <live-stream src="//host/v1/streams/main" controls="pads prompt"></live-stream>
 *
 * `element.steer("night falls")` gives `{queued, locked, shown}`, promises; `shown` says after how many seconds on
 * this screen. The server has to be started with `--origin` of the page.
 */

import { Api, Problem } from "./js/api.js";
import { Attachment } from "./js/attach.js";
import { Clock } from "./js/clock.js";
import { Events } from "./js/events.js";
import { Feed } from "./js/feed.js";
import { Steers } from "./js/steers.js";
import { apply, compose } from "./js/prompt.js";
import { h } from "./js/dom.js";

const STYLE = `
:host { display: block; position: relative; background: #0b0c0e; color: #ecedee; border-radius: 6px; overflow: hidden;
  font: 13px/18px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
:host([hidden]) { display: none; }
.frame { position: relative; aspect-ratio: var(--ratio, 1.7778); background: radial-gradient(120% 100% at 50% 30%, #22262d, #121418 70%); }
video { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; visibility: hidden; }
video.on { visibility: visible; }
.word { position: absolute; left: 12px; bottom: 12px; margin: 0; padding: 4px 10px; border-radius: 6px; background: rgb(11 12 14 / 72%); }
.word:empty { display: none; }
.deck { background: #131519; }
.deck:empty { display: none; }
input { display: block; box-sizing: border-box; width: 100%; height: 48px; padding: 0 14px; border: 0; background: none; color: inherit;
  font-family: inherit; font-size: 17px; line-height: 24px; caret-color: #f5b454; }
input:focus { outline: none; box-shadow: inset 0 -2px #f5b454; }
input[aria-invalid] { box-shadow: inset 0 -2px #ff6b5e; }
.row { display: flex; gap: 8px; padding: 6px 14px; overflow-x: auto; scrollbar-width: none; border-top: 1px solid #23262c; }
button { flex: none; min-width: 44px; height: 44px; padding: 0 14px; border: 0; border-radius: 8px; background: #23262c; color: inherit; font: inherit; cursor: pointer; }
.banks button { background: none; color: #9ba1a8; padding: 0 8px; }
button[aria-selected="true"], button[aria-pressed="true"] { color: #fff; box-shadow: inset 0 -2px #fff; }
button::first-letter { text-transform: uppercase; }
button:focus-visible { outline: 2px solid #f5b454; outline-offset: -2px; }
`;

/** @type {Record<string, string>} */
const WORD = {
  connecting: "Connecting", warming: "Warming up", reconnecting: "Reconnecting", full: "Every place is taken", gone: "This stream is over",
  clips: "This server makes clips, not streams",
};
const STAGES = /** @type {const} */ (["queued", "locked", "shown"]);

/**
 * A server and a stream's id out of `src`: `//host/v1/streams/main`, `//host/s/ID`, or the server alone.
 * @param {string} src
 */
export function place(src) {
  const url = new URL(src, document.baseURI);
  return { base: url.origin, id: decodeURIComponent(/\/(?:streams|s)\/([^/]+)/.exec(url.pathname)?.[1] ?? "main") };
}

/**
 * @typedef {object} Promised
 * @property {Promise<{id: string, at_picture: number}>} queued the server took it
 * @property {Promise<{id: string, at_picture: number}>} locked it can't be replaced any more
 * @property {Promise<{latency_s: number}>} shown its first picture is on this screen
 */

export class LiveStream extends HTMLElement {
  static observedAttributes = ["src", "controls", "token"];

  /** @type {{api: Api, feed: Feed, attachment: Attachment, steers: Steers} | null} */
  #parts = null;
  /** What waits for each steer's next stages. @type {Map<import("./js/steers.js").Steer, Record<string, any>>} */
  #waiting = new Map();
  /** @type {Record<string, import("./js/api.js").VocabularyEntry[]>} */
  #vocabulary = {};
  #bank = "";
  /** What is asked for, by bank. @type {import("./js/prompt.js").Attributes} */
  #asked = {};
  #reopening = false;

  constructor() {
    super();
    this.ws = /** @type {HTMLVideoElement} */ (h("video", { muted: true, playsInline: true, autoplay: true }));
    this.rtc = /** @type {HTMLVideoElement} */ (h("video", { muted: true, playsInline: true, autoplay: true }));
    this.word = h("p.word", { role: "status" });
    this.deck = h("div.deck");
    this.attachShadow({ mode: "open" }).append(h("style", {}, STYLE), h("div.frame", {}, this.ws, this.rtc, this.word), this.deck);
  }

  connectedCallback() {
    this.#open();
  }

  disconnectedCallback() {
    this.#close();
  }

  attributeChangedCallback() {
    if (!this.isConnected || this.#reopening) return;
    this.#reopening = true; // once for all attributes that change together
    queueMicrotask(() => {
      this.#reopening = false;
      this.#close();
      if (this.isConnected) this.#open();
    });
  }

  /** connecting, warming, live, reconnecting, full, gone or clips */
  get state() {
    return this.#parts?.attachment.phase ?? "connecting";
  }

  /** What the picture on screen was asked for by. */
  get prompt() {
    const shown = this.#parts?.steers.list.findLast((steer) => steer.state === "shown");
    return shown?.prompt ?? this.#parts?.attachment.stream?.prompt ?? "";
  }

  /**
   * Change the picture. The promises are rejected with a `Problem` if the server refuses, and with an `Error` whose
   * name is `superseded`, `cancelled` or `failed` if it doesn't come to that.
   * @param {string} prompt the whole new prompt
   * @param {Record<string, unknown>} [options] more of what `POST …/steers` takes, e.g. `{at: {in_s: 10}}`
   * @returns {Promised}
   */
  steer(prompt, options = {}) {
    if (!this.#parts) throw new Error("this element is in no page");
    const { api, steers } = this.#parts;
    /** @type {Record<string, any>} */
    const ends = {};
    const promises = STAGES.map((stage) => {
      const promise = new Promise((resolve, reject) => (ends[stage] = { resolve, reject }));
      promise.catch(() => {}); // whoever awaits only one of them has not forgotten the others
      return [stage, promise];
    });
    const at = /** @type {any} */ (options.at);
    const steer = steers.ask(prompt, prompt, performance.now(), at?.in_s ?? 0);
    this.#waiting.set(steer, ends);
    api
      .fetch("POST", `${api.path}/steers`, { json: { prompt, ...options } })
      .then((answer) => answer.json())
      .then((answer) => steers.accepted(steer, answer, performance.now()))
      .catch((error) => {
        this.#reject(steer, error);
        steers.refused(steer, String(error.message));
      });
    return /** @type {any} */ (Object.fromEntries(promises));
  }

  #open() {
    const { base, id } = place(this.getAttribute("src") ?? import.meta.url);
    const api = new Api(id, base);
    api.token = this.getAttribute("token") ?? api.token;
    const clock = new Clock();
    const steers = new Steers(clock);
    const feed = new Feed(api, clock, { ws: this.ws, rtc: this.rtc }, null);
    const events = new Events(api, (event) => this.#heard(event, clock, steers), () => {});
    const attachment = new Attachment(api, feed, events);
    this.#parts = { api, feed, attachment, steers };
    feed.onpicture = (picture, at) => steers.picture(picture, at);
    steers.onchange = (steer) => this.#steered(steer);
    attachment.onchange = () => this.#say();
    attachment.onvocabulary = (vocabulary) => this.#fill(vocabulary);
    attachment.onmodel = (model) => this.#fill(model.vocabulary);
    attachment.onstream = (stream) => {
      clock.setRate(stream.rate_hz);
      const [width, height] = stream.size.split("x").map(Number);
      this.style.setProperty("--ratio", String(width / height));
      this.#label(stream.prompt);
    };
    this.#fill({});
    attachment.start();
  }

  #close() {
    this.#parts?.attachment.stop();
    this.#parts = null;
    for (const steer of [...this.#waiting.keys()]) this.#reject(steer, new DOMException("the element left the page", "AbortError"));
  }

  /** @param {import("./js/events.js").StreamEvent} event @param {Clock} clock @param {Steers} steers */
  #heard(event, clock, steers) {
    const now = performance.now();
    if (event.type === "clock") clock.heard(event.data.tick ?? event.tick, event.data.picture ?? event.picture, now);
    else if (event.type === "underrun") clock.anchor(event.tick, event.picture);
    else if (event.type === "stream.status") this.#parts?.attachment.heard(event);
    else if (event.type.startsWith("steer.")) steers.heard(event, now);
  }

  /** @param {import("./js/steers.js").Steer} steer */
  #steered(steer) {
    const ends = this.#waiting.get(steer);
    const { state } = steer;
    if (state === "shown") this.#label(steer.prompt);
    if (state === "queued") {
      this.#asked = apply(this.#asked, steer.prompt, this.#vocabulary);
      this.#mark();
    }
    this.dispatchEvent(new CustomEvent("steer", { detail: { id: steer.id, prompt: steer.prompt, state, at_picture: steer.at } }));
    if (!ends) return;
    if (state === "superseded" || state === "cancelled" || state === "failed") {
      this.#reject(steer, Object.assign(new Error(steer.reason || state), { name: state }));
    }
    const known = { id: steer.id, at_picture: steer.at };
    if (steer.id && state !== "asked") ends.queued.resolve(known);
    if (state === "locked" || state === "shown") ends.locked.resolve(known);
    if (state === "shown") {
      ends.shown.resolve({ latency_s: steer.latencyS });
      this.#waiting.delete(steer);
    }
  }

  /** @param {import("./js/steers.js").Steer} steer @param {Error} why */
  #reject(steer, why) {
    const ends = this.#waiting.get(steer);
    this.#waiting.delete(steer);
    for (const stage of STAGES) ends?.[stage].reject(why);
  }

  /** @param {string} prompt names the picture for those who can't see it */
  #label(prompt) {
    for (const video of [this.ws, this.rtc]) video.setAttribute("aria-label", prompt);
    const input = this.deck.querySelector("input");
    if (input && !input.matches(":focus")) input.value = prompt;
  }

  #say() {
    const phase = this.state;
    if (this.dataset.state === phase) return;
    this.dataset.state = phase;
    this.word.textContent = WORD[phase] ?? "";
    this.dispatchEvent(new CustomEvent("state", { detail: phase }));
  }

  /** The deck: what `controls` names. @param {Record<string, import("./js/api.js").VocabularyEntry[]>} vocabulary */
  #fill(vocabulary) {
    const controls = (this.getAttribute("controls") ?? "").split(/\s+/);
    this.#vocabulary = vocabulary;
    this.#bank = Object.keys(vocabulary)[0] ?? "";
    this.#asked = apply({}, this.#parts?.attachment.stream?.prompt ?? "", vocabulary);
    const nodes = [];
    if (controls.includes("prompt")) nodes.push(this.#field());
    if (controls.includes("pads") && this.#bank) {
      nodes.push(h("div.row.banks", { role: "tablist", "aria-label": "Banks" }), h("div.row.pads", { role: "toolbar", "aria-label": "Pads" }));
    }
    this.deck.replaceChildren(...nodes);
    this.#label(this.prompt);
    this.#mark();
  }

  #field() {
    const input = /** @type {HTMLInputElement} */ (h("input", { "aria-label": "Prompt", placeholder: "Say what should be seen", enterKeyHint: "send" }));
    input.addEventListener("focus", () => input.select());
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      const text = input.value.trim();
      if (event.key !== "Enter" || !text) return;
      input.removeAttribute("aria-invalid");
      input.blur();
      this.steer(text).queued.catch((error) => {
        if (!(error instanceof Problem)) return;
        input.value = text;
        input.setAttribute("aria-invalid", "true");
        input.title = error.message;
      });
    });
    return input;
  }

  /** Draw the pads of the bank in hand; the one that is asked for is marked. */
  #mark() {
    const [banks, pads] = [this.deck.querySelector(".banks"), this.deck.querySelector(".pads")];
    if (!banks || !pads) return;
    banks.replaceChildren(
      ...Object.keys(this.#vocabulary).map((bank) =>
        h("button", { type: "button", role: "tab", "aria-selected": String(bank === this.#bank), onclick: () => ((this.#bank = bank), this.#mark()) }, bank),
      ),
    );
    pads.replaceChildren(
      ...this.#vocabulary[this.#bank].map((entry) => {
        const on = this.#asked[this.#bank]?.name === entry.name;
        return h("button", { type: "button", "aria-pressed": String(on), onclick: () => this.#tap(entry) }, entry.name);
      }),
    );
  }

  /** One attribute changes, the others stay. @param {import("./js/api.js").VocabularyEntry} entry */
  #tap(entry) {
    this.#asked = { ...this.#asked, [this.#bank]: entry };
    this.#mark();
    this.steer(compose(this.#asked));
  }
}

customElements.define("live-stream", LiveStream);
