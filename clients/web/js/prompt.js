/**
 * What a prompt says, attribute by attribute, and the prompt that says it. A bank of the model's vocabulary is an
 * attribute; a pad replaces one of them and keeps the rest, so a tap sends a whole caption.
 */

/** @typedef {import("./api.js").VocabularyEntry} Entry */
/** @typedef {Record<string, Entry>} Attributes by bank */

/** How a caption is told; a bank named otherwise comes last. */
const ORDER = ["subject", "scene", "time of day", "weather"];

/** @param {string} text @returns {string[]} */
export const words = (text) => text.toLowerCase().match(/[\p{L}\p{N}'’-]+/gu) ?? [];

/**
 * The last place where `part` stands in `whole`, word by word; -1 where it doesn't.
 * @param {string[]} whole
 * @param {string[]} part
 */
function lastPlace(whole, part) {
  for (let i = whole.length - part.length; part.length && i >= 0; i--) {
    if (part.every((word, j) => whole[i + j] === word)) return i;
  }
  return -1;
}

/** @param {string[]} list words without a leading article */
const bare = (list) => (list.length > 1 && /^(a|an|the)$/.test(list[0]) ? list.slice(1) : list);

/**
 * The attributes that a prompt names. Of two values of one bank the longer match wins, then the later one.
 * @param {string} prompt
 * @param {Record<string, Entry[]>} vocabulary
 * @returns {Attributes}
 */
export function parse(prompt, vocabulary) {
  const said = words(prompt);
  /** @type {Attributes} */
  const found = {};
  for (const [bank, entries] of Object.entries(vocabulary)) {
    let best = { length: 0, place: -1 };
    for (const entry of entries) {
      for (const phrase of [entry.prompt, entry.name, ...(entry.synonyms ?? [])]) {
        const part = bare(words(phrase));
        const place = lastPlace(said, part);
        const better = part.length > best.length || (part.length === best.length && place > best.place);
        if (place >= 0 && better) {
          best = { length: part.length, place };
          found[bank] = entry;
        }
      }
    }
  }
  return found;
}

/** Whether there is something that can have a colour. @param {Attributes} attributes */
export const colourable = (attributes) => Boolean(attributes.subject) && attributes.subject.name !== "none";

/**
 * "a sailboat" in red is "a red sailboat".
 * @param {Attributes} attributes
 */
function subjectOf(attributes) {
  const subject = attributes.subject.prompt;
  const colour = attributes.colour?.prompt;
  if (!colour || !colourable(attributes)) return subject;
  const [first, ...rest] = subject.split(" ");
  if (!/^(a|an|the)$/i.test(first)) return `${colour} ${subject}`;
  const article = /^an?$/i.test(first) ? (/^[aeiou]/i.test(colour) ? "an" : "a") : first;
  return [article, colour, ...rest].join(" ");
}

/**
 * One caption: subject in its colour, scene, time of day, weather, then whatever else there is.
 * @param {Attributes} attributes
 * @returns {string}
 */
export function compose(attributes) {
  const rest = Object.keys(attributes).filter((bank) => bank !== "colour" && !ORDER.includes(bank));
  let text = "";
  for (const bank of [...ORDER, ...rest]) {
    const entry = attributes[bank];
    if (!entry) continue;
    const phrase = bank === "subject" ? subjectOf(attributes) : entry.prompt;
    // "the sea at sunset", but "the sea, rain".
    const joined = /^(at|by|in|on|during|under|with) /i.test(phrase);
    text += text ? (joined ? " " : ", ") + phrase : phrase;
  }
  return text;
}

/**
 * A caption nobody thought of.
 * @param {Record<string, Entry[]>} vocabulary
 */
export function surprise(vocabulary) {
  const chosen = Object.entries(vocabulary)
    .filter(([bank]) => bank !== "camera")
    .map(([bank, entries]) => [bank, entries[Math.floor(Math.random() * entries.length)]]);
  return compose(Object.fromEntries(chosen));
}

/**
 * What a row of prompts leaves in force: a later one that names only some attributes keeps the others.
 * @param {Attributes} before
 * @param {string} prompt
 * @param {Record<string, Entry[]>} vocabulary
 * @returns {Attributes}
 */
export function apply(before, prompt, vocabulary) {
  return { ...before, ...parse(prompt, vocabulary) };
}
