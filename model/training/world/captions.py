"""Captions: what a person might type for a set of attributes, or for a change of some of them.

Wide on purpose: synonyms, order, joining words and omissions vary, and every second caption is of the far wider
wording of `wording.py`, because the transformer learns English from these sentences only. Always lower case.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping

import torch

from model.training.world.attributes import NAMES, value
from model.training.world.wording import insert, training

Generator = torch.Generator | random.Random

# How often a full caption leaves an attribute out; the renderer shows it all the same.
OMIT = {"scene": 0.04, "time of day": 0.15, "weather": 0.25, "subject": 0.06, "colour": 0.12, "camera": 0.75}
WIDE = 0.5  # share of captions and orders in wide wording
PLAIN_PHRASE = 0.4  # share of the plain prompt among all phrases of a value

_NIGHTFALL: dict[str, tuple[str, ...]] = {
    "dawn": ("the sun rises", "morning comes", "dawn breaks", "now it is dawn", "a new day begins"),
    "day": ("daylight comes", "now it is day", "the sun is high", "make it daytime", "noon"),
    "sunset": ("the sun sets", "evening comes", "now it is sunset", "the sun goes down", "dusk falls"),
    "night": ("night falls", "it gets dark", "now it is night", "the moon rises", "make it night"),
}
_WEATHER: dict[str, tuple[str, ...]] = {
    "clear": ("the sky clears", "the clouds go away", "the weather clears up", "clear sky", "the storm is over"),
    "cloudy": ("clouds gather", "it gets cloudy", "clouds roll in", "the sky clouds over", "cloudy sky"),
    "rain": ("it starts to rain", "rain falls", "it begins to rain", "let it rain", "rain comes down"),
    "snow": ("it starts to snow", "snow falls", "it begins to snow", "let it snow", "a blizzard comes"),
    "fog": ("fog rolls in", "mist rises", "it gets foggy", "the fog comes down", "fog everywhere"),
    "storm": ("a storm comes", "a thunderstorm begins", "lightning strikes", "a storm breaks", "thunder rolls"),
}
_CAMERA: dict[str, tuple[str, ...]] = {
    "still": ("the camera stops", "hold still", "stop moving", "stay here", "keep the camera still"),
    "drift left": ("drift left", "pan left", "move to the left", "go left", "turn the camera left"),
    "drift right": ("drift right", "pan right", "move to the right", "go right", "turn the camera right"),
}
_SCENE = ("go to {}", "we come to {}", "now {}", "change to {}", "take us to {}", "{} appears", "switch to {}")
_ADD = ("add {}", "{} appears", "now {}", "{} comes into view", "put in {}", "show {}", "here comes {}")
_REMOVE = ("remove the {}", "the {} goes away", "no {}", "the {} disappears", "take away the {}", "without the {}")
_RECOLOUR = ("make the {s} {c}", "the {s} turns {c}", "a {c} {s}", "paint the {s} {c}", "now the {s} is {c}")
_OPENERS = ("", "", "", "", "a view of ", "a picture of ", "we see ", "here is ", "a scene with ", "footage of ")


def as_random(generator: Generator) -> random.Random:
    """A `random.Random`; from a torch generator it is seeded by one draw of that generator."""
    if isinstance(generator, random.Random):
        return generator
    return random.Random(int(torch.randint(0, 2**62, (1,), generator=generator, device=generator.device)))


def phrase(key: str, name: str, rng: random.Random) -> str:
    """One way to say a value."""
    v = value(key, name)
    if rng.random() < PLAIN_PHRASE:
        return v.prompt
    if rng.random() < 0.12 and (key, name) != ("subject", "none"):
        return v.name
    return rng.choice(v.synonyms)


def _subject(attributes: Mapping[str, str], rng: random.Random, keep_colour: bool) -> str:
    noun = phrase("subject", attributes["subject"], rng)
    if attributes["subject"] == "none" or not keep_colour:
        return noun
    return insert(noun, phrase("colour", attributes["colour"], rng))


def caption(attributes: Mapping[str, str], generator: Generator, *, mention: Iterable[str] = ()) -> str:
    """A full description. `attributes` has every key of `attributes.KEYS`; those in `mention` are never left out."""
    rng = as_random(generator)
    return compose(attributes, choose_told(attributes, rng, mention), rng)


def choose_told(attributes: Mapping[str, str], rng: random.Random, mention: Iterable[str] = ()) -> set[str]:
    """The attributes that a full description tells, at least one; those in `mention` always."""
    must = set(mention)
    told = {
        k
        for k, p in OMIT.items()
        if k in must or rng.random() >= (max(p, 0.55) if attributes[k] in ("clear", "still") else p)
    }
    if attributes["subject"] == "none":
        told.discard("colour")
        if "subject" not in must and rng.random() < 0.7:
            told.discard("subject")
    elif "colour" in must:
        told.add("subject")
    elif "subject" not in told:
        told.discard("colour")
    return told or {"scene"}


def compose(attributes: Mapping[str, str], told: Collection[str], rng: random.Random) -> str:
    """A full description that tells the attributes in `told`, in either wording."""
    if rng.random() < WIDE:
        return training().describe(attributes, told, rng)
    parts = {k: phrase(k, attributes[k], rng) for k in ("scene", "time of day", "weather", "camera") if k in told}
    if "subject" in told:
        parts["subject"] = _subject(attributes, rng, "colour" in told)
    return _join(parts, rng)


def _join(parts: dict[str, str], rng: random.Random) -> str:
    """Sentence or list of the parts, in an order drawn at random."""
    style = rng.random()
    if style < 0.3:  # a list: 'a red balloon, sea, at night'
        order = list(parts.values())
        rng.shuffle(order)
        return ", ".join(order)
    head = [k for k in ("scene", "subject") if k in parts]
    rng.shuffle(head)
    text = ""
    if len(head) == 2:
        first, second = parts[head[0]], parts[head[1]]
        if head[0] == "subject":
            text = f"{first} {rng.choice(('in', 'at', 'over', 'before', 'in front of', 'near'))} {second}"
        else:
            text = f"{first} {rng.choice(('with', 'and', 'with', 'where we see'))} {second}"
    elif head:
        text = parts[head[0]]
    tail = [parts[k] for k in ("time of day", "weather") if k in parts]
    rng.shuffle(tail)
    if text and style < 0.75:
        body = " ".join([rng.choice(_OPENERS) + text, *tail])
    elif text and tail:  # 'at night in the rain, a red balloon over the sea'
        body = f"{' '.join(tail)}, {text}"
    else:
        body = " ".join([text, *tail]).strip()
    if "camera" in parts:
        camera = parts["camera"]
        body = f"{body}, {camera}" if body and rng.random() < 0.8 else f"{camera}, {body}" if body else camera
    return body


def short_caption(
    changes: Mapping[str, str], generator: Generator, *, before: Mapping[str, str] | None = None
) -> str:
    """A short order for a change ('night falls', 'add a red balloon').

    `changes`: attribute -> new value, at least one. `before`: the attributes that held until now; they name what
    is removed or painted.
    """
    rng = as_random(generator)
    held = dict(before or {})
    now = {**held, **changes}
    if rng.random() < WIDE:
        return training().order(changes, held, rng)
    said: list[str] = []
    if "scene" in changes:
        said.append(rng.choice(_SCENE).format(phrase("scene", changes["scene"], rng)))
    if "time of day" in changes:
        said.append(_state("time of day", changes["time of day"], _NIGHTFALL, rng))
    if "weather" in changes:
        said.append(_state("weather", changes["weather"], _WEATHER, rng))
    if "subject" in changes:
        said.append(_subject_change(now, held.get("subject", "none"), rng))
    elif "colour" in changes:
        subject = now.get("subject", "none")
        noun = subject if subject != "none" else "subject"
        said.append(rng.choice(_RECOLOUR).format(s=noun, c=phrase("colour", changes["colour"], rng)))
    if "camera" in changes:
        said.append(_state("camera", changes["camera"], _CAMERA, rng))
    rng.shuffle(said)
    return rng.choice((", ", " and ")).join(said)


def _state(key: str, name: str, table: dict[str, tuple[str, ...]], rng: random.Random) -> str:
    return phrase(key, name, rng) if rng.random() < 0.25 else rng.choice(table[name])


def _subject_change(now: Mapping[str, str], old: str, rng: random.Random) -> str:
    if now["subject"] == "none":
        return rng.choice(_REMOVE).format(old) if old != "none" else phrase("subject", "none", rng)
    coloured = "colour" in now and rng.random() < 0.9
    return rng.choice(_ADD).format(_subject(now, rng, coloured))


assert all(
    set(t) == set(NAMES[k]) for k, t in (("time of day", _NIGHTFALL), ("weather", _WEATHER), ("camera", _CAMERA))
)
