/**
 * The page: who talks to whom.
 */

import { $, h, pause, secondsText } from "./dom.js";
import { Album } from "./stills.js";
import { Api, Problem } from "./api.js";
import { Attachment } from "./attach.js";
import { Clock } from "./clock.js";
import { Deck } from "./deck.js";
import { Events } from "./events.js";
import { Feed } from "./feed.js";
import { Keys } from "./keys.js";
import { Loras } from "./loras.js";
import { Maker } from "./maker.js";
import { PictureStart } from "./picture.js";
import { Share, qrOf } from "./share.js";
import { Stage } from "./stage.js";
import { States } from "./states.js";
import { Steers } from "./steers.js";
import { Timeline } from "./timeline.js";
import { runKiosk } from "./kiosk.js";
import { surprise } from "./prompt.js";

/** A hidden page lets its stream go after this long; output and kiosk screens never do. */
const HIDDEN_MS = 30000;

const query = new URLSearchParams(location.search);
const screen = query.has("kiosk") || query.has("output");
const id = decodeURIComponent(/^\/s\/([^/]+)/.exec(location.pathname)?.[1] ?? "main");

class Page {
  /** The stream's own id, also where the page's is an alias. */
  #stream = "";
  #away = 0;

  constructor() {
    this.api = new Api(id);
    this.clock = new Clock();
    this.steers = new Steers(this.clock);
    this.album = new Album();
    const videos = { ws: $("#video-ws"), rtc: $("#video-rtc") };
    this.feed = new Feed(this.api, this.clock, videos, query.get("transport"));
    this.stage = new Stage(this.feed);
    this.events = new Events(this.api, (event) => this.#heard(event), () => {});
    this.attachment = new Attachment(this.api, this.feed, this.events);
    this.timeline = new Timeline($("#timeline"), this.clock, this.steers);
    this.deck = new Deck(this.api, this.steers, this.timeline, this.album, {
      live: () => this.attachment.phase !== "warming" && this.attachment.stream !== null,
      forbidden: () => this.#watchOnly(),
    });
    this.loras = new Loras((loras, label) => this.deck.adapt(loras, label));
    this.states = new States(this.attachment, this.clock, {
      live: () => this.feed.reconnect(),
      retry: () => this.attachment.retry(),
      open: (how) => this.#open(how),
    });
    this.share = new Share(this.api);
    this.picture = new PictureStart(this.api, this.attachment, this.deck.field);
    this.maker = new Maker(this.api);
    this.#wire();
    if (query.has("watch")) this.#watchOnly();
    if (query.has("output") || query.has("kiosk")) document.body.classList.add("output");
    if (query.has("qr")) $("#stage").append(h("img.qr", { src: qrOf(this.api, "steer"), alt: "Steer from your phone" }));
    if (query.has("kiosk")) runKiosk(this.feed, this.stage.last, () => (this.attachment.retry(), this.feed.reconnect()));
    this.attachment.start();
  }

  #wire() {
    const { attachment, feed, steers, deck } = this;
    attachment.onchange = () => {
      this.states.render();
      if (attachment.phase === "live") deck.release();
      if (attachment.phase === "clips" && attachment.model) this.#clips(attachment.model);
    };
    attachment.onmodel = (model) => {
      this.album.open(model.weights_hash);
      deck.knownWords = model.known_words;
      deck.vocabulary = model.vocabulary;
      this.loras.known = model.loras;
      this.stage.size(model.sizes[0]);
      $("#model").textContent = model.checkpoint;
    };
    attachment.onvocabulary = (vocabulary) => (deck.vocabulary = vocabulary);
    attachment.onstream = (stream) => this.#found(stream);
    feed.onpicture = (picture, at) => {
      steers.picture(picture, at);
      this.timeline.picture(picture, feed.video);
    };
    this.timeline.onstill = (block) => block.still && deck.still(block.still, block.prompt);
    steers.onchange = (steer) => this.#steered(steer);
    steers.onshown = (steer) => {
      this.stage.pulse();
      this.stage.label(steer.prompt);
      deck.shown(steer);
      if (steer.mine) this.#speak(`Shown: ${steer.label}, ${secondsText(steer.latencyS)}`);
    };
    this.keys = new Keys({
      pad: (number, arm) => deck.press(number, arm),
      bank: (by) => (this.loras.open(false), deck.pads.turn(by)),
      block: (by) => this.timeline.step(by),
      act: (what) => this.#act(what),
    });
    $("#output-open").addEventListener("click", () => this.#act("output"));
    $("#sheet-open").addEventListener("click", () => this.#act("sheet"));
    $("#stage").addEventListener("click", () => document.body.classList.toggle("deck-over"));
    document.addEventListener("visibilitychange", () => this.#visible());
    addEventListener("pagehide", () => feed.stop());
    addEventListener("pageshow", (event) => event.persisted && attachment.retry());
  }

  /** @param {import("./api.js").Stream} stream */
  async #found(stream) {
    this.clock.setRate(stream.rate_hz);
    this.stage.size(stream.size);
    if (this.#stream === stream.id) return;
    if (this.#stream) this.#forget();
    else if (stream.picture >= 0) this.stage.poster(`${this.api.path}/poster.jpg`);
    this.#stream = stream.id;
    document.title = id === "main" ? "Live" : `Live · ${stream.prompt}`;
    $("#name").textContent = id === "main" ? "main" : id.slice(0, 10);
    this.stage.label(stream.prompt);
    this.deck.begin([stream.prompt]);
    this.loras.show(stream.loras);
    const listed = await this.api.steers().catch(() => []);
    this.steers.restore(listed);
    const past = listed.filter((steer) => steer.status === "released").map((steer) => steer.prompt);
    this.deck.begin([...past.slice(-12), stream.prompt]);
    this.steers.open.forEach((steer) => this.deck.queued(steer));
    this.states.fresh = !listed.length;
  }

  /** @param {import("./events.js").StreamEvent} event */
  #heard(event) {
    const now = performance.now();
    const { type, data } = event;
    if (this.#stream && event.stream && event.stream !== this.#stream) {
      this.attachment.refresh();
      return;
    }
    if (type === "clock") this.clock.heard(data.tick ?? event.tick, data.picture ?? event.picture, now);
    else if (type === "block.ready") this.timeline.ready(data);
    else if (type === "stream.status") this.attachment.heard(event);
    else if (type === "underrun") this.clock.anchor(event.tick, event.picture);
    else if (type === "rate.changed") this.#rate(data.rate_hz);
    else if (type.startsWith("steer.")) {
      if (type === "steer.queued") {
        this.timeline.dropFrom(data.at_picture ?? Infinity);
        this.loras.show(data.loras ?? []);
      }
      this.steers.heard(event, now);
    }
  }

  /** `main` is another stream now. */
  #forget() {
    this.clock.reset();
    this.steers.clear();
    this.timeline.clear();
    this.feed.reconnect();
  }

  /** @param {number} hz */
  #rate(hz) {
    if (hz === this.clock.rate) return;
    if (this.attachment.stream) this.attachment.stream.rate_hz = hz;
    this.clock.setRate(hz);
    this.timeline.clear();
    this.feed.reconnect();
  }

  /** @param {import("./steers.js").Steer} steer */
  #steered(steer) {
    this.timeline.steer(steer);
    this.deck.ring.update(steer);
    this.states.fresh = false;
    if (steer.state === "queued") {
      if (!steer.mine) this.deck.queued(steer);
      else if (!steer.quiet) this.#speak(`Queued: ${steer.label}`);
    }
    if (steer.state === "failed" || steer.state === "cancelled" || steer.state === "superseded") {
      this.deck.dropped();
      if (steer.mine && !steer.quiet) this.#speak(`${steer.state}: ${steer.label}. ${steer.reason}`);
    }
  }

  /** @param {string} text for the live region */
  #speak(text) {
    $("#live").textContent = text;
  }

  /** @param {import("./keys.js").Act} what @returns {boolean | void} */
  #act(what) {
    if (what === "go") return this.deck.go();
    if (what === "prompt") this.deck.field.focus();
    else if (what === "cancel") this.timeline.leave() || this.deck.cancel();
    else if (what === "safe") this.attachment.model && this.deck.field.to.send(this.attachment.model.prompt);
    else if (what === "picture") this.picture.choose();
    else if (what === "hide") document.body.classList.toggle("bare");
    else if (what === "sheet") $("#sheet").showModal();
    else if (what === "output") window.open(`${location.pathname}?output`, `output-${id}`, "popup,width=1024,height=576");
    else this.#fullscreen();
  }

  #fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else $("#stage").requestFullscreen?.().catch(() => {});
  }

  /** The server has no streams. @param {import("./api.js").Model} model */
  #clips(model) {
    const { maker } = this;
    $("#name").textContent = "Clips";
    this.picture.instead = (file) => maker.take(file);
    /** @type {Partial<Record<import("./keys.js").Act, () => void>>} */
    const acts = { prompt: () => maker.focus(), picture: () => maker.choose(), fullscreen: () => this.#fullscreen() };
    this.keys.to = { pad() {}, bank() {}, block() {}, act: (what) => acts[what]?.() };
    maker.open(model);
  }

  #watchOnly() {
    this.states.watchOnly = true;
    document.body.dataset.watch = "true";
  }

  async #visible() {
    if (screen) return;
    const turn = ++this.#away;
    if (!document.hidden) {
      if (this.feed.link === "idle") this.attachment.retry();
      return;
    }
    await pause(HIDDEN_MS);
    if (turn === this.#away) this.attachment.leave();
  }

  /**
   * From a stream that is over to another one.
   * @param {"continue" | "replay" | "new"} how
   */
  async #open(how) {
    try {
      const { stream } = this.attachment;
      /** @type {Record<string, unknown>} */
      let wanted = { prompt: surprise(this.attachment.model?.vocabulary ?? {}) || (stream?.prompt ?? "the sea at sunset") };
      if (how === "replay") wanted = { log: await this.api.log() };
      else if (how === "continue" && stream) wanted = { prompt: stream.prompt, seed: stream.seed };
      const made = await this.api.create(wanted);
      location.assign(`/s/${made.id}`);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.code === "capacity-full") return this.attachment.full(error);
      this.attachment.problem = error;
      this.states.render();
    }
  }
}

new Page();
