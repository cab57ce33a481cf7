"""What is asked for: combinations of the grammar, combinations held out by rule, and wording that it doesn't make."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.quality.classifier import random_attributes
from model.training.world import KEYS, Attributes, caption, held_out, sample_scripts, short_caption
from model.training.world.script import draw

Kind = Literal["seen", "unseen", "free"]
KINDS: tuple[Kind, ...] = ("seen", "unseen", "free")
COMBINED = ("scene", "time of day", "weather", "subject", "colour")
HELD_OUT_OF = 5  # one combination in so many is held out

# Other words for the values than `world.BANKS` has; "{}" stands where the colour goes.
FREE: dict[str, dict[str, tuple[str, ...]]] = {
    "scene": {
        "sea": ("the atlantic", "rolling ocean swell", "a seascape", "far out on the water"),
        "lake": ("calm inland waters", "a glassy tarn", "beside a lake in the hills"),
        "mountains": ("an alpine valley", "jagged peaks", "the himalayas"),
        "desert": ("the sahara", "endless dunes", "a sea of sand"),
        "meadow": ("a green pasture", "open grassland with flowers", "gentle farmland"),
        "forest": ("among the pines", "a dense wood of firs", "deep in the trees"),
        "city": ("manhattan", "a metropolis of towers", "high-rise buildings"),
        "alien planet": ("the surface of another planet", "a weird alien landscape", "mars with crystals"),
    },
    "time of day": {
        "dawn": ("just as the sun comes up", "in the small hours as it gets light", "at first morning light"),
        "day": ("at midday", "in broad daylight", "around lunchtime"),
        "sunset": ("as dusk settles in", "while the sun sinks", "late in the evening glow"),
        "night": ("in the dead of night", "long after sundown", "with stars overhead"),
    },
    "weather": {
        "clear": ("not a cloud in the sky", "with a bright cloudless sky"),
        "cloudy": ("with a grey ceiling of clouds", "everything overcast"),
        "rain": ("it is pouring", "soaked by steady rain", "in a downpour"),
        "snow": ("snowflakes everywhere", "in heavy snow", "flurries of snow coming down"),
        "fog": ("with low mist all around", "in a thick fog bank", "barely visible through the haze"),
        "storm": ("bolts of lightning flashing", "under a raging thunderstorm", "wild stormy skies"),
    },
    "subject": {
        "none": ("and not a soul anywhere", "completely empty"),
        "sailboat": ("a little {} sailing ship", "a {} boat under sail", "one {} sloop"),
        "balloon": ("someone flying a {} hot air balloon", "one big {} balloon"),
        "birds": ("{} gulls wheeling about", "a bunch of {} birds", "{} geese overhead"),
        "train": ("a long {} train crossing a bridge", "an old {} steam locomotive"),
        "whale": ("an enormous {} whale floating by", "a {} whale soaring"),
        "ufo": ("one {} flying saucer hovering", "a {} alien spaceship"),
        "lighthouse": ("an old {} lighthouse", "one {} lighthouse shining"),
        "dragon": ("a fierce {} dragon", "a {} dragon beating its wings"),
    },
    "camera": {
        "still": ("locked-off camera", "tripod shot"),
        "drift left": ("the shot slides slowly left", "camera tracking to the left"),
        "drift right": ("the shot slides slowly right", "camera tracking to the right"),
    },
}
SHADES: dict[str, tuple[str, ...]] = {
    "red": ("cherry red", "blood-red"), "orange": ("pumpkin orange", "orange-coloured"),
    "yellow": ("canary yellow", "sunny yellow"), "green": ("grass green", "dark green"),
    "blue": ("navy blue", "sky blue"), "purple": ("purple-coloured", "grape purple"),
    "pink": ("hot pink", "pastel pink"), "white": ("white-painted", "chalk white"),
}  # fmt: skip
TEMPLATES = (
    "{scene} {hour}, {weather}, {subject}",
    "please show me {subject}, {scene}, {weather} {hour}",
    "imagine {scene}: {weather}, {subject}, {hour}",
    "{subject}! {hour}. {scene}, {weather}",
    "i would love to see {scene} {hour} and {subject}, {weather}",
    "cinematic wide shot, {scene}, {hour}, {weather}, featuring {subject}",
)


@dataclass(frozen=True)
class Wish:
    """A prompt and what must be seen: `asked` are the attributes that it names."""

    kind: Kind
    prompt: str
    attributes: Attributes
    asked: tuple[str, ...]


def held_out_share(scripts: int = 400, seed: int = 0) -> float:
    """Share of blocks that the training's own sampler draws from held-out combinations: 0 if it obeys the rule."""
    drawn = sample_scripts(scripts, 4, 12, torch.Generator().manual_seed(seed))
    blocks = [held_out(attributes) for script in drawn for attributes in script.attributes]
    return sum(blocks) / len(blocks)


def _free(attributes: Attributes, camera: bool, rng: random.Random) -> str:
    said = {key: rng.choice(bank[attributes[key]]) for key, bank in FREE.items()}
    shade = rng.choice(SHADES[attributes["colour"]])
    text = rng.choice(TEMPLATES).format(
        scene=said["scene"], hour=said["time of day"], weather=said["weather"], subject=said["subject"].format(shade)
    )
    return f"{text}, {said['camera']}" if camera else text


def wish(kind: Kind, rng: random.Random) -> Wish:
    """One prompt that names scene, hour, weather, subject and colour, and every second time the camera's way."""
    attributes = random_attributes(rng)
    while held_out(attributes) != (kind == "unseen"):
        attributes = random_attributes(rng)
    camera = rng.random() < 0.5
    named = [
        key for key in KEYS if (key != "camera" or camera) and (key != "colour" or attributes["subject"] != "none")
    ]
    text = _free(attributes, camera, rng) if kind == "free" else caption(attributes, rng, mention=named)
    return Wish(kind, text, attributes, tuple(named))


def wishes(count: int, seed: int) -> list[Wish]:
    """`count` prompts, a third of each kind, kind by kind."""
    rng = random.Random(seed)
    return [wish(KINDS[i * len(KINDS) // count], rng) for i in range(count)]


@dataclass(frozen=True)
class Turn:
    """A steer that changes one attribute: its words, the attribute, and all attributes that hold afterwards."""

    prompt: str
    key: str
    after: Attributes


def turns(before: list[Wish], seed: int) -> Iterator[Turn]:
    """A steer for each wish, attributes in turn: every second one a short order, the others whole descriptions."""
    rng = random.Random(seed)
    for i, start in enumerate(before):
        now = start.attributes
        keys = [key for key in KEYS if key != "colour" or now["subject"] != "none"]
        key = keys[i % len(keys)]
        after = now | {key: draw(key, rng, now[key])}
        short = i // len(keys) % 2 == 0
        change = {key: after[key]}
        if key == "subject" and after[key] != "none":
            change["colour"] = now["colour"]
        text = short_caption(change, rng, before=now) if short else caption(after, rng, mention=[key])
        yield Turn(text, key, after)
