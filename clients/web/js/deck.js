/**
 * The deck: prompt, ring and pads, and what they ask of the stream. Input never locks; a steer is on its way before
 * the server has answered.
 */

import { $, secondsText, store } from "./dom.js";
import { Field } from "./field.js";
import { Pads, banksOf } from "./pads.js";
import { Problem } from "./api.js";
import { Ring } from "./ring.js";
import { Words } from "./words.js";
import { apply, colourable, compose } from "./prompt.js";

const MINE = "mine";
const MINE_KEPT = 9;

/** @typedef {{prompt: string, label: string, pad: import("./pads.js").Pad | null}} Armed */

export class Deck {
  /** @type {Record<string, import("./api.js").VocabularyEntry[]>} */
  #vocabulary = {};
  /** What was asked for last, and may still come. */
  #prompt = "";
  /** What is on screen. */
  #shown = "";
  /** Words that the checkpoint knows beside its vocabulary; set them first. @type {string[]} */
  knownWords = [];
  /** @type {Armed | null} */
  #armed = null;
  /** The last wish of somebody who didn't want to wait for a server that warms up. @type {(() => void) | null} */
  #waiting = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./steers.js").Steers} steers
   * @param {import("./timeline.js").Timeline} timeline
   * @param {import("./stills.js").Album} album
   * @param {{live: () => boolean, forbidden: () => void}} to
   */
  constructor(api, steers, timeline, album, to) {
    this.api = api;
    this.steers = steers;
    this.timeline = timeline;
    this.album = album;
    this.to = to;
    this.ring = new Ring();
    this.field = new Field({
      send: (text) => this.#typed(text),
      arm: (text) => this.#arm({ prompt: text, label: text, pad: null }),
    });
    this.pads = new Pads($("#banks"), $("#pads"), album, {
      tap: (pad) => this.tap(pad),
      arm: (pad) => this.#arm({ prompt: "", label: pad.label, pad }),
      keep: () => this.keep(),
      hint: (x, y) => this.timeline.hint(this.timeline.aheadOf(x, y)),
      drop: (pad, x, y) => this.#drop(pad, x, y),
    });
    $("#go").addEventListener("click", () => this.go());
    this.#fill();
  }

  /** @param {import("./api.js").Model["vocabulary"]} vocabulary */
  set vocabulary(vocabulary) {
    this.#vocabulary = vocabulary;
    this.field.words = new Words(this.#vocabulary, this.knownWords);
    this.#fill();
  }

  /**
   * The prompts of the stream so far, in order; the last is on screen.
   * @param {string[]} prompts
   */
  begin(prompts) {
    const seen = prompts.reduce((before, prompt) => apply(before, prompt, this.#vocabulary), {});
    this.pads.shown = seen;
    this.pads.asked = seen;
    this.pads.mark();
    this.#prompt = this.#shown = prompts.at(-1) ?? "";
    this.field.show(this.#prompt);
  }

  /** @param {import("./steers.js").Steer} steer one that was queued, whoever asked */
  queued(steer) {
    this.pads.asked = apply(this.pads.asked, steer.prompt, this.#vocabulary);
    this.pads.mark();
    this.#prompt = steer.prompt;
    this.field.show(steer.prompt);
  }

  /** @param {import("./steers.js").Steer} steer one that came on screen */
  shown(steer) {
    this.pads.shown = apply(this.pads.shown, steer.prompt, this.#vocabulary);
    this.pads.mark();
    this.#shown = steer.prompt;
  }

  /** One that won't come: what is asked for is what is on, and what is still open. */
  dropped() {
    const open = this.steers.open.map((steer) => steer.prompt);
    this.pads.asked = open.reduce((before, prompt) => apply(before, prompt, this.#vocabulary), this.pads.shown);
    this.pads.mark();
    this.#prompt = open.at(-1) ?? this.#shown;
    this.field.show(this.#prompt);
  }

  /** A still belongs to every value on screen. @param {HTMLCanvasElement} canvas @param {string} prompt */
  still(canvas, prompt) {
    const values = Object.entries(this.pads.shown).map(([bank, entry]) => `${bank}:${entry.name}`);
    const mine = store.get(MINE, []).includes(prompt) ? [`mine:${prompt}`] : [];
    this.album.put([...values, ...mine], canvas);
  }

  /** @param {number} number 1 to 9 @param {boolean} arm */
  press(number, arm) {
    const pad = this.pads.at(number);
    if (!pad) return;
    if (arm) this.#arm({ prompt: "", label: pad.label, pad });
    else this.tap(pad);
  }

  /** @param {import("./pads.js").Pad} pad */
  tap(pad) {
    const prompt = this.#promptOf(pad);
    if (prompt) this.send(prompt, pad.label);
  }

  /** Fire what is armed. @returns {boolean} whether anything was */
  go() {
    const armed = this.#armed;
    if (!armed) return false;
    this.#arm(null);
    if (armed.pad) this.tap(armed.pad);
    else this.#typed(armed.prompt);
    return true;
  }

  /** The prompt stays. @param {import("./loras.js").Lora[]} loras @param {string} label */
  adapt(loras, label) {
    return this.send(this.#prompt, label, undefined, loras);
  }

  /** Keep what was asked last among one's own. */
  keep() {
    const prompt = this.field.input.value.trim();
    if (!prompt) return;
    this.#remember(prompt);
    this.field.say("Kept in Mine", "hint");
  }

  /** Take back the newest steer that isn't locked. @returns {Promise<void>} */
  async cancel() {
    if (this.#armed) return this.#arm(null);
    const steer = this.steers.newestDashed;
    if (!steer?.id) return;
    try {
      await this.api.cancel(steer.id);
    } catch (error) {
      if (error instanceof Problem) this.field.say(error.status === 409 ? "Too late to take back" : error.message, "hint");
    }
  }

  /** The stream is live: what was asked while it warmed up goes out. */
  release() {
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.();
  }

  /**
   * Ask for a prompt.
   * @param {string} prompt
   * @param {string} label
   * @param {number} [inS] seconds from now
   * @param {import("./loras.js").Lora[]} [loras] the whole set of adapters; as they are without it
   */
  async send(prompt, label, inS, loras) {
    if (!this.to.live()) {
      this.#waiting = () => this.send(prompt, label, inS, loras);
      this.field.show(prompt);
      return this.field.say(`“${label}” goes out as soon as it is live`, "hint");
    }
    this.field.clear();
    const steer = this.steers.ask(prompt, label, performance.now(), inS);
    steer.quiet = Boolean(loras);
    if (!inS) this.ring.follow(steer);
    this.queued(steer);
    try {
      this.steers.accepted(steer, await this.api.steer(prompt, inS, loras), performance.now());
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.steers.refused(steer, error.message);
      this.#complain(prompt, error);
    }
  }

  /** @param {string} prompt @param {Problem} problem */
  #complain(prompt, problem) {
    if (problem.status === 401 || problem.status === 403) this.to.forbidden();
    this.field.input.value = prompt;
    const limit = problem.limit === null || problem.message.includes(String(problem.limit)) ? "" : ` The limit is ${problem.limit}.`;
    this.field.say(problem.message + limit, "error");
  }

  /** @param {string} prompt */
  #typed(prompt) {
    this.#remember(prompt);
    this.send(prompt, prompt);
  }

  /**
   * What a pad asks for: the caption that was asked last with one attribute replaced.
   * @param {import("./pads.js").Pad} pad
   */
  #promptOf(pad) {
    if (!pad.entry) return pad.prompt;
    if (pad.bank === "colour" && !colourable(this.pads.asked)) {
      this.field.say("A colour needs something to colour: choose a subject first", "hint");
      return "";
    }
    return compose({ ...this.pads.asked, [pad.bank]: pad.entry });
  }

  /** @param {import("./pads.js").Pad} pad @param {number} x @param {number} y */
  #drop(pad, x, y) {
    this.timeline.hint(null);
    const ahead = this.timeline.aheadOf(x, y);
    const prompt = ahead === null ? "" : this.#promptOf(pad);
    if (!prompt || ahead === null) return;
    this.send(prompt, pad.label, ahead || undefined);
    if (ahead) this.field.say(`${pad.label} in ${secondsText(ahead)}`, "hint");
  }

  /** @param {Armed | null} armed */
  #arm(armed) {
    this.#armed = armed;
    this.pads.armed = armed?.pad?.id ?? "";
    this.pads.mark();
    const go = $("#go");
    go.hidden = !armed;
    go.querySelector("span").textContent = armed?.label ?? "";
  }

  /** @param {string} prompt */
  #remember(prompt) {
    const mine = store.get(MINE, []).filter((/** @type {string} */ other) => other !== prompt);
    store.set(MINE, [prompt, ...mine].slice(0, MINE_KEPT));
    this.#fill();
  }

  #fill() {
    this.pads.set(banksOf(this.#vocabulary, store.get(MINE, [])));
  }
}
