/**
 * Live video by WebRTC, asked for by WHEP: one offer, one answer, no signalling afterwards.
 */

const GATHER_MS = 300;
/** RTP ticks of video a second. */
const RTP_HZ = 90000;
const SAMPLES = 48;

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
  #wraps = 0;
  #last = -1;
  /** @type {number[]} server tick minus RTP time in ticks, one a picture */
  #offsets = [];

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
   * The tick of a picture on screen. RTP time starts anywhere, so its origin is learnt from when pictures arrive.
   * @param {VideoFrameCallbackMetadata & {rtpTimestamp?: number, receiveTime?: number}} meta
   * @param {import("./clock.js").Clock} clock
   * @returns {number | null}
   */
  tickOf(meta, clock) {
    if (meta.rtpTimestamp === undefined || !clock.running) return null;
    if (this.#last - meta.rtpTimestamp > 2 ** 31) this.#wraps++;
    this.#last = meta.rtpTimestamp;
    const ticks = ((meta.rtpTimestamp + this.#wraps * 2 ** 32) * clock.rate) / RTP_HZ;
    const offset = clock.tickAt(meta.receiveTime ?? meta.presentationTime) - ticks;
    // The clock itself was set anew (the stream had stood still): so is this.
    if (Math.abs(offset - Math.min(...this.#offsets)) > clock.rate / 2) this.#offsets = [];
    this.#offsets.push(offset);
    if (this.#offsets.length > SAMPLES) this.#offsets.shift();
    return Math.round(ticks + Math.min(...this.#offsets));
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#peer.close();
    this.video.srcObject = null;
    this.#forget();
  }

  #forget() {
    if (this.#resource) this.#api.fetch("DELETE", this.#resource).catch(() => {});
    this.#resource = "";
  }

  /** @param {Error} problem */
  #end(problem) {
    if (this.#closed) return;
    this.close();
    this.onclose(problem);
  }
}
