/**
 * What the stage says beside the picture, one state at a time, and the words for it.
 */

import { $, clockText, h } from "./dom.js";

const WORDS_AFTER_MS = 3000;
const QUIET_CONNECT_MS = 1200;
const BEHIND_S = 1;
/** Pictures come at least once a second. */
const FLOWS_MS = 1500;

/** @type {Record<string, string>} */
const WORD = {
  connecting: "connecting", warming: "warming up", live: "live", reconnecting: "reconnecting", full: "full",
  gone: "ended", paused: "paused", behind: "behind", clips: "clips only",
};

/**
 * The one state on show.
 * @param {import("./attach.js").Attachment} attachment
 * @param {number} delayS from the encoder to this screen
 * @param {number} extraS of delay that belongs to every live picture
 */
export function stateOf(attachment, delayS, extraS = BEHIND_S) {
  // Idle: the page itself left, because nobody looked at it.
  if (attachment.paused && (attachment.phase === "live" || attachment.feed.link === "idle")) return "paused";
  if (attachment.phase === "live" && delayS > extraS) return "behind";
  return attachment.phase;
}

export class States {
  #since = performance.now();
  #state = "";
  #behindFor = 0;
  #drawn = "";

  /**
   * @param {import("./attach.js").Attachment} attachment
   * @param {import("./clock.js").Clock} clock
   * @param {{live: () => void, retry: () => void, open: (how: "continue" | "replay" | "new") => void}} act
   */
  constructor(attachment, clock, act) {
    this.attachment = attachment;
    this.clock = clock;
    this.act = act;
    this.card = $("#card");
    this.example = /** @type {HTMLVideoElement} */ ($("#example"));
    /** Nobody steered yet. */
    this.fresh = false;
    /** Only watching is allowed. */
    this.watchOnly = false;
    setInterval(() => this.render(), 500);
  }

  render() {
    const { attachment } = this;
    const now = performance.now();
    const delayS = this.clock.delay(now);
    // Who gets no pictures at all is not behind, and nothing that can be pressed would help.
    const flows = now - (this.clock.shown?.at ?? 0) < FLOWS_MS;
    this.#behindFor = delayS > BEHIND_S && flows ? this.#behindFor + 1 : 0;
    const state = stateOf(attachment, this.#behindFor > 2 ? delayS : 0);
    if (state !== this.#state) {
      this.#state = state;
      this.#since = performance.now();
      document.body.dataset.state = state;
      $("#status b").textContent = WORD[state];
      this.#example(state === "warming");
    }
    this.#bar();
    const ms = performance.now() - this.#since;
    const [key, nodes] = this.#say(state, ms);
    if (key === this.#drawn) return;
    this.#drawn = key;
    this.card.replaceChildren(...nodes);
    this.card.hidden = !nodes.length;
  }

  /** Uptime, viewers, a slower machine. */
  #bar() {
    const { stream, model } = this.attachment;
    document.body.dataset.watch = String(this.watchOnly);
    const slower = stream && model && stream.rate_hz < model.model_rate_hz - 0.5;
    const chained = model?.streaming === "chained clips";
    $("#slower").hidden = !slower && !chained;
    if (!stream) return;
    const rate = slower ? `${Math.round(stream.rate_hz)} Hz` : "";
    const said = rate + (chained ? " clips" : "");
    if ($("#slower").dataset.said !== said) {
      $("#slower").dataset.said = said;
      const parts = slower ? [rate, h("span", {}, ": slower machine")] : [];
      if (chained) parts.push(slower ? ", " : "", "clips in a row");
      $("#slower").replaceChildren(...parts);
      $("#slower").title = chained ? "This model makes clips: each begins with the last picture of the one before" : "";
    }
    const seconds = (this.clock.shown?.picture ?? stream.picture ?? 0) / this.clock.rate;
    $("#uptime").textContent = clockText(seconds);
    $("#viewers").textContent = `${stream.viewers} ${stream.viewers === 1 ? "viewer" : "viewers"}`;
  }

  /**
   * @param {string} state
   * @param {number} ms that it has lasted
   * @returns {[string, HTMLElement[]]} a key that changes with what is said, and the elements
   */
  #say(state, ms) {
    const { attachment, act } = this;
    if (state === "warming") {
      const { fraction, leftS } = attachment.progress;
      const left = Number.isNaN(leftS) ? "" : ` · live in ${Math.max(1, Math.round(leftS))} s`;
      const what = this.example.dataset.there === "true" ? "Recorded example" : "Warming up";
      const bar = h("div.progress", { role: "progressbar", "aria-valuenow": String(Math.round(fraction * 100)), "aria-label": "Warming up" });
      bar.style.setProperty("--done", String(fraction));
      return [`warming ${what}${left} ${fraction.toFixed(2)}`, [h("p", {}, what + left), bar]];
    }
    if (state === "connecting" && ms > QUIET_CONNECT_MS) {
      const text = attachment.stream?.status === "starting" ? "Making the first pictures" : "Connecting";
      return [text, [h("p", {}, text)]];
    }
    if (state === "reconnecting" && ms > WORDS_AFTER_MS) {
      return ["lost", [h("p", {}, "Lost the picture. It comes back by itself.")]];
    }
    if (state === "paused") return ["paused", [h("p", {}, "Goes on when watched")]];
    if (state === "behind") return ["behind", [button("Back to live", act.live, "primary")]];
    if (state === "full") return this.#full(ms);
    if (state === "clips") return ["clips", this.#clips()];
    if (state === "gone") {
      const reason = attachment.problem?.message || "It ended.";
      return [
        `gone ${reason}`,
        [
          h("h2", {}, "This stream is over"),
          h("p", {}, reason),
          h("div.actions", {}, button("Continue", () => act.open("continue"), "primary"), button("Replay", () => act.open("replay")), button("New", () => act.open("new"))),
        ],
      ];
    }
    if (state === "live" && this.fresh && !this.watchOnly) return ["fresh", [this.#hint()]];
    return [state, []];
  }

  /** Why there is nothing to watch, until there is a clip. */
  #clips() {
    const why = this.attachment.model?.no_streams ?? "";
    return [h("h2", {}, "This model makes clips"), h("p", {}, `No live stream: ${why}.`)];
  }

  #hint() {
    if (matchMedia("(hover: none)").matches) return h("p", {}, "Tap a pad, or type");
    return h("p", {}, "Press ", h("kbd", {}, "1"), "–", h("kbd", {}, "9"), ", or type");
  }

  /** @param {number} ms @returns {[string, HTMLElement[]]} */
  #full(ms) {
    const problem = this.attachment.problem;
    const left = Math.max(0, Math.ceil((problem?.retryAfterS ?? 10) - ms / 1000));
    if (!left) {
      this.act.retry();
      return ["full again", []];
    }
    const others = this.attachment.others.map((stream) => {
      const watching = `${stream.viewers} watching`;
      return h("li", {}, h("a", { href: stream.page }, h("b", {}, stream.prompt), h("span", {}, watching)));
    });
    return [
      `full ${left} ${others.length}`,
      [h("h2", {}, "Every place is taken"), h("p", {}, others.length ? `Trying again in ${left} s, or join one of these` : `Trying again in ${left} s`), h("ul", {}, ...others)],
    ];
  }

  /** The shipped loop, where there is one. @param {boolean} on */
  #example(on) {
    const { example } = this;
    if (on && !example.src) {
      example.onloadeddata = () => (example.dataset.there = "true");
      example.onerror = () => (example.dataset.there = "false");
      example.src = "/warming.mp4";
      example.play().catch(() => {});
    } else if (!on && example.src) {
      example.pause();
      example.removeAttribute("src");
      example.dataset.there = "false";
    }
  }
}

/** @param {string} text @param {() => void} onclick @param {string} [look] */
const button = (text, onclick, look = "") => h("button", { type: "button", className: look, onclick }, text);
