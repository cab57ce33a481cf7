"""Wide wording: what people may type beside the captions' own grammar, made from the lexicon. Always lower case."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Collection, Mapping

from model.training.world import lexicon
from model.training.world.attributes import value

_OWN = 0.2  # share of the plain prompt and its synonyms among the phrases
_COMBINED = 0.15
_ADJECTIVE = 0.2
_FILLER = 0.15
_COLOUR_BEHIND = ("{} in {}", "{}, {},", "{} painted {}", "{} coloured {}", "{}, all {},", "{} of {} colour")
_PART = re.compile(r"<[^>]*>|\{\w+\}|[^<{]+")
_SLOT = re.compile(r"\{(\w+)\}")


class Wording:
    """Sentences from one set of phrases: those for training, or with `unseen` those kept from it."""

    def __init__(self, unseen: bool = False) -> None:
        """`unseen`: only measured with; a value without such a phrase keeps its training phrases."""
        self.unseen = unseen
        self.phrases = lexicon.phrases() | (lexicon.phrases(unseen=True) if unseen else {})
        self.combined = {} if unseen else lexicon.combined()
        self.templates = lexicon.templates()

    def describe(self, attributes: Mapping[str, str], told: Collection[str], rng: random.Random) -> str:
        """A full description that names the attributes in `told`."""
        parts: dict[str, str] = {}
        left = set(told)
        if not self.unseen and rng.random() < _COMBINED:
            left -= self._combine(attributes, left, parts, rng)
        if "scene" in left:
            parts["scene"] = self._place(attributes, left, rng)
        for key, slot in (("time of day", "hour"), ("weather", "weather"), ("camera", "camera")):
            if key in left:
                parts[slot] = self.say(key, attributes[key], rng)
        empty = attributes["subject"] == "none"
        if "subject" in left and not empty:
            colour = attributes["colour"] if "colour" in left else None
            parts["subject"] = self.subject(attributes["subject"], colour, rng)
        text = self._sentence(parts, rng)
        if "subject" in left and empty:
            text = self._around("empty", "none", text, self.say("subject", "none", rng), rng)
        if "camera" in parts:
            text = self._around("camera", "camera", text, parts["camera"], rng)
        return text

    def say(self, key: str, name: str, rng: random.Random, form: str = "phrase") -> str:
        """One way to say a value, in a form that it has."""
        bank = self.phrases.get((key, name, form), ())
        if form == "phrase" and (not bank or (not self.unseen and rng.random() < _OWN)):
            return rng.choice(value(key, name).phrases)
        return rng.choice(bank)

    def has(self, key: str, name: str, form: str) -> bool:
        """Whether a value has phrases of this form."""
        return (key, name, form) in self.phrases

    def subject(self, name: str, colour: str | None, rng: random.Random) -> str:
        """A subject as a noun with its article, in a colour (a value's name) unless that is None."""
        noun = self.say("subject", name, rng)
        shade = "" if colour is None else self.say("colour", colour, rng)
        if "{}" in noun:
            noun = noun.replace("{}", shade) if shade else noun.replace("{} ", "")
        elif shade:
            noun = rng.choice(_COLOUR_BEHIND).format(noun, shade) if rng.random() < 0.15 else insert(noun, shade)
        return insert(noun, rng.choice(self.templates["filler"])) if rng.random() < _FILLER else noun

    def order(self, changes: Mapping[str, str], held: Mapping[str, str], rng: random.Random) -> str:
        """A short order for `changes`; `held` is what was there before, as far as it is known."""
        said = []
        if "scene" in changes:
            said.append(self._visit(changes["scene"], held.get("scene"), rng))
        for key in ("time of day", "weather", "camera"):
            if key in changes:
                said.append(self._state(key, changes[key], held.get(key), rng))
        if "subject" in changes:
            said.append(self._subject_order(changes, held, rng))
        elif "colour" in changes:
            said.append(self._recolour(changes["colour"], held.get("subject", "none"), rng))
        rng.shuffle(said)
        text = said[0]
        for more in said[1:]:
            glue = rng.choice(self.templates["glue"])
            text += f"{glue} {more}" if glue in ",.;" else f" {glue} {more}".replace(" ,", ",")
        return text

    def _combine(
        self, attributes: Mapping[str, str], told: set[str], parts: dict[str, str], rng: random.Random
    ) -> set[str]:
        """Say several attributes by one phrase if there is one; return those said."""
        now = frozenset((key, attributes[key]) for key in told if key in ("scene", "time of day", "weather"))
        fitting = [said for said in self.combined if said <= now]
        if not fitting:
            return set()
        said = rng.choice(fitting)
        phrase = rng.choice(self.combined[said])
        keys = {key for key, _ in said}
        if "scene" in keys:
            parts["scene"] = phrase
        else:
            parts["hour"] = f"{rng.choice(('on', 'in', 'during', '-', 'it is'))} {phrase}"
        return keys

    def _place(self, attributes: Mapping[str, str], left: set[str], rng: random.Random) -> str:
        """The scene, now and then with the hour or the weather as its adjective, which is then said."""
        noun = self.say("scene", attributes["scene"], rng)
        for key in ("time of day", "weather"):
            if key in left and rng.random() < _ADJECTIVE and self.has(key, attributes[key], "adj"):
                noun = insert(noun, self.say(key, attributes[key], rng, "adj"))
                left.discard(key)
        return insert(noun, rng.choice(self.templates["filler"])) if rng.random() < _FILLER else noun

    def _sentence(self, parts: Mapping[str, str], rng: random.Random) -> str:
        section = (
            ("both" if "subject" in parts else "scene")
            if "scene" in parts
            else ("subject" if "subject" in parts else "bare")
        )
        slots = dict(parts)
        if "scene" in parts:
            slots["place"] = f"{rng.choice(self.templates['place'])} {parts['scene']}"
        slots["verbs"], slots["verbing"] = rng.choice(self.templates["verbs"]), rng.choice(self.templates["verbing"])
        return fill(rng.choice(self.templates[section]), slots)

    def _around(self, section: str, slot: str, text: str, phrase: str, rng: random.Random) -> str:
        return fill(rng.choice(self.templates[section]), {"text": text, slot: phrase}) if text else phrase

    def _visit(self, new: str, old: str | None, rng: random.Random) -> str:
        if rng.random() < 0.25 and self.has("scene", new, "order"):
            return self.say("scene", new, rng, "order")
        place = self.say("scene", new, rng)
        if old is not None and rng.random() < 0.2:
            return rng.choice(self.templates["leave"]).format(new=place, old=self.say("scene", old, rng))
        return rng.choice(self.templates["visit"]).format(place)

    def _state(self, key: str, new: str, old: str | None, rng: random.Random) -> str:
        if rng.random() < 0.5 and self.has(key, new, "order"):
            return self.say(key, new, rng, "order")
        phrase = self.say(key, new, rng)
        if key == "camera":
            return phrase
        if old is not None and rng.random() < 0.1:
            return rng.choice(self.templates["leave"]).format(new=phrase, old=self.say(key, old, rng))
        return rng.choice(self.templates["become"]).format(phrase)

    def _subject_order(self, changes: Mapping[str, str], held: Mapping[str, str], rng: random.Random) -> str:
        old = held.get("subject", "none")
        before = definite(self.subject(old, None, rng)) if old != "none" else ""
        if changes["subject"] == "none":
            if not before or rng.random() < 0.4:
                return self.say("subject", "none", rng, "order" if rng.random() < 0.7 else "phrase")
            return rng.choice(self.templates["remove"]).format(before)
        colour = changes.get("colour", held.get("colour"))
        new = self.subject(changes["subject"], colour if rng.random() < 0.85 else None, rng)
        if before and rng.random() < 0.35:
            return rng.choice(self.templates["replace"]).format(new=new, old=before)
        return rng.choice(self.templates["add"]).format(new)

    def _recolour(self, colour: str, subject: str, rng: random.Random) -> str:
        noun = definite(self.subject(subject, None, rng)) if subject != "none" else "the subject"
        template = rng.choice(self.templates["recolour"])
        if "a {c} {s}" in template or template == "{c} {s}":
            noun = noun.removeprefix("the ")
        return template.format(s=noun, c=self.say("colour", colour, rng))


@functools.cache
def training() -> Wording:
    """The wording that training may use."""
    return Wording()


def insert(noun: str, word: str) -> str:
    """'a sailboat', 'red' -> 'a red sailboat'; 'birds' -> 'red birds'."""
    for article in ("a few ", "some ", "the ", "a ", "an "):
        if noun.startswith(article):
            shown = article if len(article) > 3 else "an " if word[0] in "aeiou" else "a "
            return f"{shown}{word} {noun.removeprefix(article)}"
    return f"{word} {noun}"


def definite(noun: str) -> str:
    """'a sailboat' -> 'the sailboat'."""
    for article in ("a few ", "some ", "the ", "a ", "an "):
        noun = noun.removeprefix(article)
    return f"the {noun}"


@functools.cache
def _parsed(template: str) -> tuple[tuple[str, str], ...]:
    """(text, the slot that must be there or "") for each piece of a template."""
    pieces = []
    for part in _PART.findall(template):
        slot = _SLOT.search(part)
        pieces.append((part.strip("<>"), slot.group(1) if slot else ""))
    return tuple(pieces)


def fill(template: str, slots: Mapping[str, str]) -> str:
    """The sentence of a template; a piece in <...> without its slot falls out."""
    text = "".join(
        part.replace(f"{{{slot}}}", slots[slot]) if slot else part
        for part, slot in _parsed(template)
        if not slot or slot in slots
    )
    return " ".join(text.split()).strip(" ,;:").replace(" ,", ",").replace(",,", ",")
