"""The lexicon behind the wide wording: phrases and sentences in `words/*.txt`, one tuple for each value and form.

Kept from training: one phrase in ten (`held_out`), to measure on; and every phrase that holds a phrase of the
benchmark's free wording. Those stand in `words/reserved.txt` as hashes, so that whoever adds to the lexicon does not
read them; `python -m benchmarks.quality.reserve` writes the file.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import resources

from model.training.world.attributes import KEYS, NAMES, Attributes

HELD_OUT_OF = 10
FILES = {
    "scene": "scene", "time of day": "hour", "weather": "weather", "subject": "subject", "colour": "colour",
    "camera": "camera",
}  # fmt: skip
FORMS = ("phrase", "adj", "order")
_SLOT = re.compile(r"\{\w*\}")
_ARTICLES = {"a", "an", "the", "some"}
_LONGEST_RESERVED = 10  # words

Phrases = dict[tuple[str, str, str], tuple[str, ...]]


def normalised(text: str) -> list[str]:
    """The words of a phrase: lower case, without punctuation, slots and articles."""
    return [word for word in re.findall(r"[^\W_]+", text.lower()) if word not in _ARTICLES]


def digest(words: Iterable[str]) -> str:
    """What stands in `reserved.txt` for a phrase of these words."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def held_out(phrase: str) -> bool:
    """Whether a phrase is kept from training to measure on: one in ten, by the first byte of its SHA-256."""
    return hashlib.sha256(phrase.encode()).digest()[0] % HELD_OUT_OF == 0


def reserved(phrase: str) -> bool:
    """Whether a phrase equals or holds one of the benchmark's."""
    words = normalised(phrase)
    spans = (words[i:j] for i in range(len(words)) for j in range(i + 1, min(len(words), i + _LONGEST_RESERVED) + 1))
    return any(digest(span) in _reserved() for span in spans)


@functools.cache
def _reserved() -> frozenset[str]:
    return frozenset(_lines("reserved"))


def _lines(name: str) -> Iterator[str]:
    text = resources.files("model.training.world").joinpath("words", f"{name}.txt").read_text(encoding="utf-8")
    yield from (line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


def _split(line: str) -> list[str]:
    return [phrase.strip() for phrase in line.split("|") if phrase.strip()]


@functools.cache
def all_phrases() -> Phrases:
    """(attribute, value, form) -> phrases, nothing left out.

    Raises:
        ValueError: a file names a value or a form that is not there.
    """
    found: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for key, file in FILES.items():
        where = (key, "", "")
        for line in _lines(file):
            if line.startswith("["):
                words = line.strip("[]").split()
                form = words.pop() if words[-1] in FORMS else "phrase"
                where = (key, " ".join(words), form)
                if where[1] not in NAMES[key]:
                    raise ValueError(f"words/{file}.txt: {line} is no value of {key}")
            else:
                found[where] += _split(line)
    return {where: tuple(dict.fromkeys(phrases)) for where, phrases in found.items()}


@functools.cache
def all_combined() -> tuple[tuple[str, Attributes], ...]:
    """Phrases that tell several attributes at once, each with these attributes.

    Raises:
        ValueError: the file names an attribute or a value that is not there.
    """
    found: list[tuple[str, Attributes]] = []
    for line in _lines("combined"):
        head, _, tail = line.partition(":")
        told = dict(part.strip().split("=") for part in head.split(","))
        if any(key not in KEYS or name not in NAMES[key] for key, name in told.items()):
            raise ValueError(f"words/combined.txt: {head} names no attributes")
        found += [(phrase, told) for phrase in _split(tail)]
    return tuple(found)


@functools.cache
def phrases(unseen: bool = False) -> Phrases:
    """The phrases for training, or with `unseen` those kept from it to measure on."""
    return {
        where: kept
        for where, bank in all_phrases().items()
        if (kept := tuple(p for p in bank if held_out(p) == unseen and not reserved(p)))
    }


@functools.cache
def combined() -> dict[frozenset[tuple[str, str]], tuple[str, ...]]:
    """Combined phrases for training, by the attributes that they tell."""
    found: defaultdict[frozenset[tuple[str, str]], list[str]] = defaultdict(list)
    for phrase, told in all_combined():
        if not held_out(phrase) and not reserved(phrase):
            found[frozenset(told.items())].append(phrase)
    return {told: tuple(bank) for told, bank in found.items()}


@functools.cache
def templates() -> dict[str, tuple[str, ...]]:
    """Sentences by their section: one a line, or several between bars where they are short."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    section = ""
    for line in _lines("templates"):
        if line.startswith("[") and line.endswith("]"):
            section = line.strip("[]")
        else:
            found[section] += _split(line)
    return {name: tuple(lines) for name, lines in found.items()}


@functools.cache
def words() -> tuple[str, ...]:
    """Every word that training's wide wording uses, sorted; what `stream.json` calls `known_words`."""
    from model.text import WORD  # slow to import: transformers

    texts = [phrase for bank in phrases().values() for phrase in bank]
    texts += [phrase for bank in combined().values() for phrase in bank]
    texts += [_SLOT.sub(" ", line) for lines in templates().values() for line in lines]
    return tuple(sorted({word for text in texts for word in WORD.findall(text)}))
