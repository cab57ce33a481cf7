/**
 * Small helpers for elements and numbers; nothing here knows of streams.
 */

/**
 * Make an element.
 * @param {string} tag name, with an optional `.class`
 * @param {Record<string, unknown>} [props] properties; `aria-*`, `data-*` and `role` become attributes, `on*` listeners
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function h(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), /** @type {EventListener} */ (value));
    else if (/^(aria-|data-|role$)/.test(key)) node.setAttribute(key, String(value));
    else /** @type {any} */ (node)[key] = value;
  }
  node.append(...children);
  return node;
}

/**
 * The one element that a selector names; a missing one is a mistake in the page.
 * @param {string} selector
 * @returns {any}
 */
export function $(selector) {
  const node = document.querySelector(selector);
  if (!node) throw new Error(`no element ${selector}`);
  return node;
}

/** @param {number} value @param {number} low @param {number} high */
export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/**
 * Seconds as `0:51`, `12:05` or `1:02:05`.
 * @param {number} seconds
 */
export function clockText(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

/** @param {number} seconds */
export const secondsText = (seconds) => `${seconds.toFixed(1)} s`;

/** Whether the person asked for less motion. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/**
 * Wait, unless the signal ends it.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

/** Waits that double from a quarter of a second to eight, a little apart from those of other viewers. */
export class Backoff {
  #tries = 0;

  /** @returns {number} milliseconds to wait before the next try */
  next() {
    return Math.min(8000, 250 * 2 ** this.#tries++) * (0.8 + 0.4 * Math.random());
  }

  reset() {
    this.#tries = 0;
  }
}

/** What the browser keeps for us; private windows and full disks must not break the page. */
export const store = {
  /** @param {string} key @param {any} [fallback] @returns {any} */
  get(key, fallback = null) {
    try {
      const text = localStorage.getItem(key);
      return text === null ? fallback : JSON.parse(text);
    } catch {
      return fallback;
    }
  },
  /** @param {string} key @param {unknown} value */
  set(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // Nothing depends on it.
    }
  },
};
