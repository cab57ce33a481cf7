/**
 * How the page hangs on its stream: find it, wait for a server that warms up, notice when it is full or gone, and
 * come back after either end was away. Draws nothing.
 */

import { Backoff, pause } from "./dom.js";
import { Problem } from "./api.js";

const POLL_MS = 5000;
const WARM_POLL_MS = 600;
const FULL = ["capacity-full", "viewers-full"];

/** @typedef {"connecting" | "warming" | "live" | "reconnecting" | "full" | "gone" | "clips"} Phase */

/** @typedef {{stream: import("./api.js").Stream, model: import("./api.js").Model}} Found */

/** Nothing comes of waiting for a picture in these. @type {Phase[]} */
const OVER = ["gone", "full", "clips"];

export class Attachment {
  #backoff = new Backoff();
  #looking = false;
  #warmed = { at: 0, fraction: 0 };
  #learnt = false;
  #stopped = false;
  /** Counts searches, so that an older one can't overrule a newer. */
  #search = 0;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./feed.js").Feed} feed
   * @param {import("./events.js").Events} events
   */
  constructor(api, feed, events) {
    this.api = api;
    this.feed = feed;
    this.events = events;
    /** @type {Phase} */
    this.phase = "connecting";
    /** @type {import("./api.js").Stream | null} */
    this.stream = null;
    /** @type {import("./api.js").Model | null} */
    this.model = null;
    /** Why it is gone or full. @type {Problem | null} */
    this.problem = null;
    /** Streams that one may join while this one is full. @type {{prompt: string, viewers: number, page: string}[]} */
    this.others = [];
    /** Of warming up, 0 to 1, and the seconds left if it goes on as it went. */
    this.progress = { fraction: 0, leftS: NaN };
    /** When the link was lost, milliseconds. */
    this.lostAt = NaN;
    this.onchange = () => {};
    /** @type {(model: import("./api.js").Model) => void} */
    this.onmodel = () => {};
    /** While it warms up, once it is known. @type {(vocabulary: import("./api.js").Model["vocabulary"]) => void} */
    this.onvocabulary = () => {};
    /** @type {(stream: import("./api.js").Stream) => void} */
    this.onstream = () => {};
    feed.onlink = (link) => this.#linked(link);
    feed.onrefused = (problem) => this.#refused(problem);
  }

  /** `main` is everybody's and comes back after a failure; another stream that ended is gone. */
  get lasting() {
    return this.api.id === "main";
  }

  /** Whether the stream stands still because nobody watched it. */
  get paused() {
    return this.stream?.status === "paused" || this.stream?.status === "parked";
  }

  start() {
    this.#find();
    this.#poll();
  }

  /** Leave while nobody looks at the page; a stream without viewers costs nothing. */
  leave() {
    if (this.phase === "gone") return;
    this.#search++;
    this.feed.stop();
  }

  /** Leave for good. */
  stop() {
    this.#stopped = true;
    this.leave();
    this.events.stop();
  }

  /** Look for the stream again, whatever was wrong. */
  retry() {
    this.problem = null;
    this.#backoff.reset();
    this.#find();
  }

  /** The server speaks of another stream under the same name: it was started anew. */
  async refresh() {
    const found = await this.#ask().catch(() => null);
    if (!found) return;
    this.#take(found);
    this.onchange();
  }

  /**
   * The stream, and its model. `main` with another id is that of a server that was started anew, perhaps with another model.
   * @returns {Promise<Found>}
   */
  async #ask() {
    const [stream, model] = await Promise.all([this.api.stream(), this.model ?? this.api.model()]);
    const other = this.stream && this.stream.id !== stream.id;
    return { stream, model: other ? await this.api.model() : model };
  }

  /** @param {Found} found */
  #take({ stream, model }) {
    const other = JSON.stringify(model) !== JSON.stringify(this.model);
    [this.stream, this.model] = [stream, model];
    if (other) this.onmodel(model);
    this.onstream(stream);
  }

  /**
   * @param {import("./events.js").StreamEvent} event a `stream.status`
   */
  heard(event) {
    if (this.stream) Object.assign(this.stream, event.data);
    const { status } = event.data;
    if (status === "ended" || status === "failed") this.#ended(event.data.reason ?? status);
    else this.#settle();
  }

  async #find() {
    const search = ++this.#search;
    this.#looking = true;
    while (search === this.#search) {
      try {
        const found = await this.#ask();
        if (search !== this.#search) return;
        this.#found(found);
        return;
      } catch (error) {
        if (search !== this.#search) return;
        if (!(error instanceof Problem)) throw error;
        await this.#missed(error);
      }
    }
  }

  /** @param {Found} found */
  #found(found) {
    const { stream } = found;
    this.#looking = false;
    this.problem = null;
    this.#take(found);
    if (stream.status === "ended" || stream.status === "failed") return this.#ended(stream.reason ?? stream.status);
    this.events.start(stream.seq);
    this.feed.start();
    this.#settle();
  }

  /** @param {Problem} problem why there is no stream yet; returns when it is time to try again */
  async #missed(problem) {
    if (problem.status === 410 || (problem.status === 404 && !this.lasting)) {
      this.#looking = false;
      this.#search++;
      return this.#ended(problem.body.reason ?? problem.message, problem);
    }
    if (FULL.includes(problem.code)) return this.full(problem);
    if (problem.code === "clips-only") return this.#clips();
    try {
      await this.api.ready();
    } catch (error) {
      if (error instanceof Problem && error.status === 503) {
        this.#warming(error.body.progress ?? 0);
        this.#learn(error.body.vocabulary);
        return pause(WARM_POLL_MS);
      }
    }
    this.#enter(this.stream || problem.status === 0 ? "reconnecting" : "connecting");
    await pause(this.#backoff.next());
  }

  /** The model makes clips: there is no stream, and none to wait for. */
  async #clips() {
    const model = await this.api.model().catch(() => null);
    if (!model) return pause(this.#backoff.next());
    this.#search++;
    this.#looking = false;
    this.feed.stop();
    this.events.stop();
    this.model = model;
    this.onmodel(model);
    this.#enter("clips");
  }

  /** @param {number} fraction that is done */
  #warming(fraction) {
    const now = performance.now();
    if (this.phase !== "warming" || fraction < this.progress.fraction) {
      this.#warmed = { at: now, fraction };
      this.progress = { fraction, leftS: NaN };
    }
    const [since, gained] = [now - this.#warmed.at, fraction - this.#warmed.fraction];
    const leftS = gained > 0.05 ? ((1 - fraction) * since) / gained / 1000 : NaN;
    // A countdown never counts up.
    this.progress = { fraction, leftS: this.progress.leftS < leftS ? this.progress.leftS : leftS };
    this.#enter("warming");
  }

  /** Pads are there, and queue, before the model is warm. @param {import("./api.js").Model["vocabulary"]} [vocabulary] */
  #learn(vocabulary) {
    if (!vocabulary || this.model || this.#learnt) return;
    this.#learnt = true;
    this.onvocabulary(vocabulary);
  }

  /** @param {Problem} problem that lists streams to join instead */
  async full(problem) {
    this.#search++;
    this.#looking = false;
    this.feed.stop();
    this.problem = problem;
    this.others = [];
    this.#enter("full");
    const asked = await Promise.allSettled(problem.streams.map((id) => this.api.stream(id)));
    this.others = asked.flatMap((one, i) => {
      if (one.status === "rejected") return [];
      const page = problem.streams[i] === "main" ? "/" : `/s/${problem.streams[i]}`;
      return [{ prompt: one.value.prompt, viewers: one.value.viewers, page }];
    });
    this.onchange();
  }

  /** @param {Problem} problem */
  #refused(problem) {
    if (problem.status === 410 || problem.status === 4410) return this.#ended(problem.body.reason ?? problem.message, problem);
    if (FULL.includes(problem.code)) this.full(problem);
    else if (problem.code === "not-ready") this.#doubt(problem);
  }

  /** The server answered, but not with the stream: it was started anew, or has lost it. @param {unknown} error */
  #doubt(error) {
    if (!(error instanceof Problem) || error.status === 0 || this.#looking || this.feed.link === "live") return;
    this.#find();
    this.feed.stop();
  }

  /** @param {string} reason @param {Problem} [problem] */
  #ended(reason, problem) {
    if (this.lasting) {
      // The server opens it anew; until then the last picture stays.
      this.#enter("reconnecting");
      const search = ++this.#search;
      this.#looking = true;
      pause(this.#backoff.next()).then(() => {
        if (search === this.#search) this.#find();
      });
      return;
    }
    this.problem = problem ?? new Problem(410, { detail: reason });
    // Its words still serve to open another.
    if (!this.model) this.api.model().then((model) => (this.model = model)).catch(() => {});
    this.feed.stop();
    this.events.stop();
    this.#enter("gone");
  }

  /** @param {import("./feed.js").Link} link */
  #linked(link) {
    if (link === "live") {
      this.#backoff.reset();
      // Its pictures say more than what was read before they came.
      if (this.stream && this.paused) this.stream.status = "live";
    }
    if (link === "lost" && !this.#looking) this.#check();
    this.#settle();
  }

  /** The picture stopped: is the stream still there? */
  async #check() {
    try {
      const found = await this.#ask();
      const { stream } = found;
      this.#take(found);
      if (stream.status === "ended" || stream.status === "failed") this.#ended(stream.reason ?? stream.status);
    } catch (error) {
      this.#doubt(error);
    }
  }

  /** The phase that the feed's link and the stream's status amount to. */
  #settle() {
    if (OVER.includes(this.phase)) {
      if (this.feed.link !== "live") return;
    }
    // The worker was lost: the stream goes on from its last snapshot, the connections stay.
    if (this.stream?.status === "starting" && this.feed.pictures) this.#enter("reconnecting");
    else if (this.feed.link === "live") this.#enter("live");
    else if (this.feed.link === "lost") this.#enter("reconnecting");
    else if (this.phase !== "reconnecting" || this.feed.link === "idle") this.#enter(this.#looking ? this.phase : "connecting");
  }

  async #poll() {
    for (;;) {
      await pause(POLL_MS);
      if (this.#stopped) return;
      if (this.#looking || OVER.includes(this.phase) || document.hidden) continue;
      const search = this.#search;
      try {
        const found = await this.#ask();
        if (search !== this.#search) continue;
        this.#take(found);
        this.onchange();
      } catch (error) {
        if (search === this.#search) this.#doubt(error);
      }
    }
  }

  /** @param {Phase} phase */
  #enter(phase) {
    if (phase === "reconnecting" && this.phase !== "reconnecting") this.lostAt = performance.now();
    this.phase = phase;
    this.feed.patient = Boolean(this.stream) && this.stream?.status !== "live";
    this.onchange();
  }
}
