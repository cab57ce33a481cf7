/**
 * A screen that nobody tends: awake, without words or cursor, and back by itself whatever happens.
 */

import { calm } from "./dom.js";

const RECONNECT_MS = 5000;
const RELOAD_MS = 60000;
const CHECK_MS = 1000;

/** Keep the screen on, again whenever the page comes back into view. */
async function stayAwake() {
  const ask = async () => {
    if (!document.hidden) await navigator.wakeLock?.request("screen").catch(() => {});
  };
  document.addEventListener("visibilitychange", ask);
  await ask();
}

/**
 * @param {import("./feed.js").Feed} feed
 * @param {HTMLCanvasElement} last the last picture
 * @param {() => void} reconnect
 */
export function runKiosk(feed, last, reconnect) {
  document.body.classList.add("kiosk");
  stayAwake();
  if (!calm()) {
    // Seen only while the live picture is away: a still that breathes doesn't look broken.
    last.animate([{ transform: "scale(1.02)" }, { transform: "scale(1.1) translate(1.5%, -1%)" }], {
      duration: 40000,
      direction: "alternate",
      iterations: Infinity,
      easing: "ease-in-out",
    });
  }
  let pictures = feed.pictures;
  let since = performance.now();
  let tried = 0;
  setInterval(() => {
    const now = performance.now();
    if (feed.pictures !== pictures) {
      [pictures, since, tried] = [feed.pictures, now, now];
    } else if (now - since > RELOAD_MS) {
      // A server that is away would leave the browser's error page on the wall: ask first.
      since = now;
      fetch("/healthz").then((answer) => answer.ok && location.reload(), () => {});
    } else if (now - Math.max(since, tried) > RECONNECT_MS) {
      tried = now;
      reconnect();
    }
  }, CHECK_MS);
}
