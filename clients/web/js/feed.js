/**
 * The moving picture: a WebSocket at once, WebRTC as soon as it shows a picture, the best of them on the stage.
 */

import { MsePlayer } from "./player-mse.js";
import { WhepPlayer } from "./player-whep.js";
import { Backoff } from "./dom.js";
import { Problem } from "./api.js";

const WHEP_PATIENCE_MS = 4000;
const STALL_MS = 5000;

/** @typedef {"idle" | "connecting" | "live" | "lost"} Link */

/** What the feed tells: the link, each picture, and a server that refuses. */
export class Feed {
  #api;
  #clock;
  #videos;
  /** @type {MsePlayer | null} */
  #mse = null;
  /** @type {WhepPlayer | null} */
  #whep = null;
  #backoff = new Backoff();
  #timer = 0;
  #patience = 0;
  #watchdog = 0;
  #lastPicture = 0;
  /** Counts connections; what an older one reports is dropped. */
  #round = 0;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./clock.js").Clock} clock
   * @param {{ws: HTMLVideoElement, rtc: HTMLVideoElement}} videos
   * @param {string | null} only `ws` or `webrtc` to force one way
   */
  constructor(api, clock, videos, only) {
    this.#api = api;
    this.#clock = clock;
    this.#videos = videos;
    this.only = only;
    /** Set while the server itself has no pictures (the stream starts, or stands still). */
    this.patient = false;
    /** @type {Link} */
    this.link = "idle";
    /** Pictures seen on screen since the page opened. */
    this.pictures = 0;
    /** @type {"" | "ws" | "rtc"} the way on the stage */
    this.way = "";
    /** @type {(link: Link) => void} */
    this.onlink = () => {};
    /** @type {(picture: number, at: number) => void} */
    this.onpicture = () => {};
    /** Called while the last picture can still be drawn. @type {(video: HTMLVideoElement) => void} */
    this.onfreeze = () => {};
    /** @type {(problem: Problem) => void} */
    this.onrefused = () => {};
  }

  /** The element that shows the stream now. @returns {HTMLVideoElement} */
  get video() {
    return this.way === "rtc" ? this.#videos.rtc : this.#videos.ws;
  }

  start() {
    if (this.link !== "idle") return;
    this.#connect();
    this.#watchdog = window.setInterval(() => this.#watch(), 1000);
  }

  /** Leave the stream. */
  stop() {
    this.#drop();
    clearTimeout(this.#timer);
    clearInterval(this.#watchdog);
    this.#say("idle");
  }

  /** Start over at the live edge. */
  reconnect() {
    if (this.link === "idle") return;
    this.#backoff.reset();
    this.#retry(0);
  }

  #connect() {
    const round = ++this.#round;
    this.#lastPicture = performance.now();
    if (this.link !== "lost") this.#say("connecting");
    if (this.only !== "webrtc" && MsePlayer.supported) this.#openMse(round);
    if (this.only !== "ws" && self.RTCPeerConnection) this.#openWhep(round);
  }

  /** @param {number} round */
  #openMse(round) {
    const video = this.#videos.ws;
    const mse = new MsePlayer(video, this.#api.socket("/video"), this.#api.token, {
      onhello: (hello) => {
        this.#clock.setRate(hello.rate_hz);
        this.#clock.anchor(hello.tick, hello.picture);
      },
      onclose: (code, reason) => {
        if (round !== this.#round) return;
        this.#mse = null;
        if (code === 1008 || code === 1013 || code >= 4000) this.onrefused(new Problem(code, { detail: reason }));
        this.#lostOne();
      },
    });
    this.#mse = mse;
    this.#follow(video, round, (meta) => (this.#mse === mse ? this.#picture("ws", mse.tickOf(meta.mediaTime), meta) : false));
  }

  /** @param {number} round */
  #openWhep(round) {
    const video = this.#videos.rtc;
    const whep = new WhepPlayer(video, this.#api, {
      onclose: (problem) => {
        if (round !== this.#round) return;
        this.#whep = null;
        if (problem instanceof Problem && problem.status >= 400) this.onrefused(problem);
        this.#lostOne();
      },
    });
    this.#whep = whep;
    this.#follow(video, round, (meta) => {
      if (this.#whep !== whep) return false;
      const tick = whep.tickOf(meta, this.#clock);
      if (this.way !== "rtc") this.#takeOver();
      return this.#picture("rtc", tick, meta);
    });
  }

  /** The WebSocket shows pictures: WebRTC has a while to do so too. */
  #giveUpLater() {
    const [round, whep] = [this.#round, this.#whep];
    if (!whep) return;
    this.#patience = window.setTimeout(() => {
      if (round !== this.#round || this.way === "rtc") return;
      this.#whep = null;
      whep.close();
    }, WHEP_PATIENCE_MS);
  }

  /** WebRTC shows pictures: the WebSocket has done its part. */
  #takeOver() {
    clearTimeout(this.#patience);
    this.#stage("rtc");
    const mse = this.#mse;
    this.#mse = null;
    // The element keeps its last picture until the other one is painted over it.
    if (mse) requestAnimationFrame(() => mse.close());
  }

  /**
   * Call `each` for every picture that reaches the screen until it says false.
   * @param {HTMLVideoElement} video
   * @param {number} round
   * @param {(meta: any) => boolean} each
   */
  #follow(video, round, each) {
    const next = (/** @type {number} */ _now, /** @type {any} */ meta) => {
      if (round === this.#round && each(meta)) video.requestVideoFrameCallback(next);
    };
    video.requestVideoFrameCallback(next);
  }

  /**
   * @param {"ws" | "rtc"} way
   * @param {number | null} tick
   * @param {any} meta of the picture
   * @returns {boolean} go on
   */
  #picture(way, tick, meta) {
    if (this.way !== "rtc" && this.way !== way) {
      this.#stage(way);
      if (way === "ws") this.#giveUpLater();
    }
    if (this.way !== way) return true;
    this.#lastPicture = performance.now();
    this.pictures++;
    this.#backoff.reset();
    this.#say("live");
    const at = meta.expectedDisplayTime ?? meta.presentationTime;
    if (tick !== null) this.onpicture(this.#clock.show(tick, at), at);
    return true;
  }

  /** @param {"ws" | "rtc"} way */
  #stage(way) {
    this.way = way;
    this.#videos.ws.classList.toggle("on", way === "ws");
    this.#videos.rtc.classList.toggle("on", way === "rtc");
  }

  /** A way broke: the other goes on, or both start over. */
  #lostOne() {
    if (this.link === "idle") return;
    const carried = this.way === "rtc" ? this.#whep : this.#mse;
    if (carried || (this.link === "connecting" && (this.#mse || this.#whep))) return;
    this.#retry(this.#backoff.next());
  }

  /** @param {number} ms */
  #retry(ms) {
    this.#drop();
    this.#say("lost");
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => this.#connect(), ms);
  }

  #watch() {
    if (document.hidden || this.patient) {
      this.#lastPicture = performance.now();
    } else if (performance.now() - this.#lastPicture > STALL_MS) {
      this.#retry(this.#backoff.next());
      this.#lastPicture = performance.now();
    }
  }

  #drop() {
    this.#round++;
    clearTimeout(this.#patience);
    const [mse, whep] = [this.#mse, this.#whep];
    if (this.way) this.onfreeze(this.video);
    this.way = "";
    this.#mse = null;
    this.#whep = null;
    mse?.close();
    whep?.close();
  }

  /** @param {Link} link */
  #say(link) {
    if (this.link === link) return;
    this.link = link;
    this.onlink(link);
  }
}
