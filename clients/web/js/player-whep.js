/**
 * Live video by WebRTC, asked for by WHEP: one offer, one answer, no signalling afterwards.
 */

const GATHER_MS = 300;
/** RTP time of video: units a second, and where it starts again from 0. */
const RTP_HZ = 90000;
const RTP_WRAP = 2 ** 32;
const ASK_MS = 100;

/**
 * Names under `.local` can't be looked up by the server, and trying costs it a second.
 * @param {string} sdp
 */
const withoutLocalNames = (sdp) =>
  sdp
    .split("\r\n")
    .filter((line) => !(line.startsWith("a=candidate:") && line.includes(".local ")))
    .join("\r\n");

export class WhepPlayer {
  /** @type {RTCPeerConnection} */
  #peer;
  #api;
  #resource = "";
  #closed = false;
  /** RTP time of tick 0, once the server told. @type {number | null} */
  #origin = null;
  #asked = -ASK_MS;

  /**
   * @param {HTMLVideoElement} video
   * @param {import("./api.js").Api} api
   * @param {{onclose: (problem: Error) => void}} to
   */
  constructor(video, api, { onclose }) {
    this.video = video;
    this.#api = api;
    this.onclose = onclose;
    this.#peer = new RTCPeerConnection({ iceServers: [] });
    this.#peer.addTransceiver("video", { direction: "recvonly" });
    this.#peer.ontrack = ({ track, receiver }) => {
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      video.srcObject = new MediaStream([track]);
      video.play().catch(() => {});
    };
    this.#peer.onconnectionstatechange = () => {
      const state = this.#peer.connectionState;
      if (state === "failed" || state === "closed" || state === "disconnected") this.#end(new Error(state));
    };
    this.#offer().catch((error) => this.#end(error));
  }

  async #offer() {
    const peer = this.#peer;
    await peer.setLocalDescription(await peer.createOffer());
    await new Promise((resolve) => {
      if (peer.iceGatheringState === "complete") return resolve(undefined);
      peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve(undefined);
      setTimeout(resolve, GATHER_MS);
    });
    if (this.#closed || !peer.localDescription) return;
    const body = withoutLocalNames(peer.localDescription.sdp);
    const answer = await this.#api.fetch("POST", `${this.#api.path}/whep`, { body, type: "application/sdp" });
    this.#resource = answer.headers.get("location") ?? "";
    if (this.#closed) return this.#forget();
    await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  }

  /**
   * The tick of a picture on screen; null until the server has told where this connection's RTP time starts.
   * @param {VideoFrameCallbackMetadata & {rtpTimestamp?: number}} meta
   * @param {import("./clock.js").Clock} clock
   * @returns {number | null}
   */
  tickOf(meta, clock) {
    if (meta.rtpTimestamp === undefined || !clock.running) return null;
    if (this.#origin === null) {
      this.#ask();
      return null;
    }
    const since = (meta.rtpTimestamp - this.#origin + RTP_WRAP) % RTP_WRAP;
    const [tick, wrap] = [(since * clock.rate) / RTP_HZ, (RTP_WRAP * clock.rate) / RTP_HZ];
    return Math.round(tick + wrap * Math.round((clock.tickAt(meta.presentationTime) - tick) / wrap));
  }

  /** It is known from the second picture on. */
  async #ask() {
    const now = performance.now();
    if (!this.#resource || now - this.#asked < ASK_MS) return;
    this.#asked = now;
    const told = await this.#api.get(this.#resource).catch(() => null);
    this.#origin = told?.rtp_origin ?? null;
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#peer.close();
    this.video.srcObject = null;
    this.#forget();
  }

  #forget() {
    // Also while the page goes away: the server would notice half a minute later.
    if (this.#resource) this.#api.fetch("DELETE", this.#resource, { keepalive: true }).catch(() => {});
    this.#resource = "";
  }

  /** @param {Error} problem */
  #end(problem) {
    if (this.#closed) return;
    this.close();
    this.onclose(problem);
  }
}
