/**
 * Which words of a prompt the checkpoint doesn't know, and the nearest that it does.
 */

import { words } from "./prompt.js";

/** Words that carry no picture; every prompt may use them. */
const FUNCTION_WORDS =
  "a an the and or of with without in on at by to from into over under above below near beside behind through " +
  "is are it its this that there then now again very more less some go goes going get gets let make becomes " +
  "turn turns start starts begin begins appear appears come comes add adds fade fades fly flies move moves " +
  "falls rises rolls gathers sets breaks clears change changes scene view while as for up down here no not " +
  "remove removed disappears away gone paint painted put take show shows see stop stops stay hold keep switch " +
  "pan drift camera picture sky sun moon weather everywhere after before around";

/** Everyday words and what a world of landscapes would call them; used only where the vocabulary has the target. */
const NEAR = {
  sea: "water waves beach shore coast harbour harbor bay seaside surf marine",
  lake: "pond lagoon reservoir river",
  mountains: "mountain hill hills peak peaks alps ridge cliff volcano glacier",
  desert: "sahara dunes sand canyon arid",
  meadow: "field fields grass grassland prairie garden flowers farm countryside valley",
  forest: "wood woods tree trees jungle pines woodland",
  city: "town street streets buildings skyscrapers castle village houses downtown metropolis",
  moon: "space mars planet alien lunar galaxy",
  dawn: "sunrise morning daybreak",
  day: "noon midday daylight afternoon sunny",
  sunset: "dusk evening twilight sundown golden",
  night: "midnight dark darkness stars starry nighttime",
  clear: "sunshine cloudless bright",
  cloudy: "overcast cloud grey gray gloomy",
  rain: "rainy drizzle shower wet raining",
  snow: "snowy blizzard snowfall winter snowing",
  fog: "mist misty haze foggy hazy",
  storm: "thunder lightning thunderstorm stormy hurricane tornado",
  sailboat: "boat ship yacht sail vessel ferry",
  balloon: "balloons airship zeppelin",
  birds: "bird gull gulls seagull eagle swan geese flock",
  train: "railway locomotive rail tram",
  whale: "fish dolphin shark",
  ufo: "spaceship saucer aliens rocket",
  lighthouse: "tower beacon",
  dragon: "lizard dinosaur monster wyvern",
  red: "crimson scarlet ruby",
  orange: "amber tangerine",
  yellow: "gold lemon",
  green: "emerald lime",
  blue: "azure navy turquoise",
  purple: "violet lilac magenta",
  white: "ivory silver",
  black: "ebony charcoal",
};

/**
 * Letters to change to get from one word to the other, neighbours swapped counting as one.
 * @param {string} a
 * @param {string} b
 */
export function distance(a, b) {
  let before = /** @type {number[]} */ (Array(b.length + 1).fill(0));
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) next[j] = Math.min(next[j], before[j - 2] + 1);
    }
    before = row;
    row = next;
  }
  return row[b.length];
}

export class Words {
  /** Words of the vocabulary. @type {Set<string>} */
  #content = new Set();
  /** @type {Set<string>} */
  #known = new Set(FUNCTION_WORDS.split(" "));
  /** Words beside the vocabulary's that a slip of the finger may mean. @type {string[]} */
  #more = [];
  /** Everyday word to known word. @type {Map<string, string>} */
  #near = new Map();

  /**
   * @param {Record<string, import("./api.js").VocabularyEntry[]>} vocabulary empty: everything counts as known
   * @param {string[]} [more] words that the checkpoint was trained with beside the vocabulary's
   */
  constructor(vocabulary, more = []) {
    for (const entry of Object.values(vocabulary).flat()) {
      const named = words([entry.name, entry.prompt, ...(entry.synonyms ?? [])].join(" "));
      for (const word of named) {
        if (!this.#known.has(word)) this.#content.add(word);
      }
      for (const [target, others] of Object.entries(NEAR)) {
        if (named.includes(target)) others.split(" ").forEach((word) => this.#near.set(word, target));
      }
    }
    this.#content.forEach((word) => this.#known.add(word));
    if (this.#content.size) more.forEach((word) => this.#known.add(word));
    this.#more = more.filter((word) => word.length > 4);
  }

  /**
   * The words of a text that the checkpoint doesn't know, in place.
   * @param {string} text
   * @returns {{word: string, start: number, end: number, nearest: string}[]} `nearest` is empty where nothing is near
   */
  unknown(text) {
    if (!this.#content.size) return [];
    const found = [];
    for (const match of text.matchAll(/[\p{L}'’-]+/gu)) {
      const word = match[0].toLowerCase();
      if (this.#knows(word)) continue;
      found.push({ word: match[0], start: match.index, end: match.index + word.length, nearest: this.nearest(word) });
    }
    return found;
  }

  /** @param {string} word */
  #knows(word) {
    return this.#known.has(word) || (word.endsWith("s") && this.#known.has(word.slice(0, -1))) || this.#known.has(`${word}s`);
  }

  /**
   * The known word that means or looks most like this one.
   * @param {string} word in lower case
   * @returns {string} empty where none is near
   */
  nearest(word) {
    const meant = this.#near.get(word) ?? this.#near.get(word.replace(/s$/, ""));
    if (meant) return meant;
    let best = "";
    let least = Math.max(1, Math.floor(word.length / 3)) + 0.5;
    for (const known of [...this.#content, ...this.#more]) {
      const far = distance(word, known);
      if (far < least) [best, least] = [known, far];
    }
    return best;
  }
}
