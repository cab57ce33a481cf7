"""The words of the world: every attribute, its values and what people call them.

`vocabulary()`, the captions and the renderer's tables are all made from `BANKS`, in this order, so that they
cannot disagree. The name is what a pad shows; the prompt is how a caption says it plainly; synonyms are other
ways to say the same, of the same grammatical form as the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

Attributes = dict[str, str]


@dataclass(frozen=True)
class Value:
    """One value of an attribute: pad name, plain prompt and synonyms (all lower case)."""

    name: str
    prompt: str
    synonyms: tuple[str, ...]

    @property
    def phrases(self) -> tuple[str, ...]:
        """Every way to say it, the plain prompt first."""
        return (self.prompt, *self.synonyms)


def _bank(*rows: tuple[str, str, str]) -> tuple[Value, ...]:
    return tuple(Value(name, prompt, tuple(s.split("|"))) for name, prompt, s in rows)


BANKS: dict[str, tuple[Value, ...]] = {
    "scene": _bank(
        ("sea", "the sea", "the ocean|open water|the open sea|a wide ocean|the waves of the sea|endless sea"),
        ("lake", "a lake", "a mountain lake|a quiet lake|a still lake among hills|the lakeside|a lake shore"),
        ("mountains", "the mountains", "snowy peaks|high mountains|the alps|a mountain range|rocky summits"),
        ("desert", "the desert", "sand dunes|a sandy desert|a desert with cacti|dunes and mesas|dry sands"),
        ("meadow", "a meadow", "green fields|rolling hills|a flowering meadow|the countryside|a grassy field"),
        ("forest", "a forest", "the woods|a pine forest|tall pines|a deep forest|woodland|fir trees"),
        ("city", "a city", "the city|a skyline|tall buildings|a town by the river|skyscrapers|downtown"),
        (
            "alien planet",
            "an alien planet",
            "another world|a strange planet|an alien world|a distant planet|outer space|a moon with crystals",
        ),
    ),
    "time of day": _bank(
        ("dawn", "at dawn", "at sunrise|in the early morning|at daybreak|at first light|in the morning"),
        ("day", "by day", "at noon|in daylight|in the middle of the day|in the afternoon|under a high sun"),
        ("sunset", "at sunset", "at dusk|in the evening|as the sun goes down|at golden hour|in evening light"),
        ("night", "at night", "after dark|by moonlight|in the dark|at midnight|under the night sky"),
    ),
    "weather": _bank(
        ("clear", "in clear weather", "under a clear sky|with a clear sky|in fine weather|in fair weather"),
        (
            "cloudy",
            "under clouds",
            "with a cloudy sky|under an overcast sky|with heavy clouds|on a cloudy day|under grey clouds",
        ),
        ("rain", "in the rain", "while it rains|in a shower|in rainy weather|with falling rain|in a drizzle"),
        ("snow", "in the snow", "while it snows|in snowfall|with falling snow|in a blizzard|in snowy weather"),
        ("fog", "in the fog", "in thick mist|in misty air|on a foggy day|wrapped in fog|in haze"),
        (
            "storm",
            "in a storm",
            "in a thunderstorm|with lightning|in stormy weather|under a tempest|with thunder and lightning",
        ),
    ),
    "subject": _bank(
        ("none", "nothing else", "nobody around|no one in sight|an empty view|nothing in sight"),
        ("sailboat", "a sailboat", "a boat|a sailing boat|a yacht|a ship|a schooner|a small ship"),
        ("balloon", "a balloon", "a hot air balloon|a hot-air balloon|an air balloon|a floating balloon"),
        ("birds", "birds", "a flock of birds|flying birds|seagulls|a few birds|some gulls|a flock of geese"),
        ("train", "a train", "a steam train|a locomotive|a railway train|a passing train|a steam engine"),
        ("whale", "a whale", "a flying whale|a giant whale|a big whale|a whale in the sky|a huge whale"),
        ("ufo", "a ufo", "a flying saucer|a spaceship|an alien ship|a spacecraft|a saucer"),
        ("lighthouse", "a lighthouse", "a light house|a beacon|a lighthouse with a beam|a tall lighthouse"),
        ("dragon", "a dragon", "a flying dragon|a winged dragon|a big dragon|a drake|a great dragon"),
    ),
    "colour": _bank(
        ("red", "red", "scarlet|crimson|bright red|ruby"),
        ("orange", "orange", "tangerine|bright orange|amber|deep orange"),
        ("yellow", "yellow", "golden|lemon yellow|bright yellow|gold"),
        ("green", "green", "emerald|leaf green|bright green|lime green"),
        ("blue", "blue", "azure|deep blue|bright blue|cobalt"),
        ("purple", "purple", "violet|lilac|deep purple|plum"),
        ("pink", "pink", "rose|bright pink|magenta|rose pink"),
        ("white", "white", "snow-white|pale|ivory|pure white"),
    ),
    "camera": _bank(
        ("still", "the camera is still", "a fixed camera|a static shot|the camera holds still|a still shot"),
        (
            "drift left",
            "the camera drifts left",
            "moving left|panning left|the view drifts to the left|the camera moves left",
        ),
        (
            "drift right",
            "the camera drifts right",
            "moving right|panning right|the view drifts to the right|the camera moves right",
        ),
    ),
}

KEYS: tuple[str, ...] = tuple(BANKS)
NAMES: dict[str, tuple[str, ...]] = {key: tuple(v.name for v in bank) for key, bank in BANKS.items()}


def value(key: str, name: str) -> Value:
    """The value called `name` of attribute `key`; KeyError names what is unknown."""
    for v in BANKS[key]:
        if v.name == name:
            return v
    raise KeyError(f"{key!r} has no value {name!r}; known: {', '.join(NAMES[key])}")


def index(key: str, name: str) -> int:
    """Position of `name` in its bank: the row of the renderer's tables."""
    return NAMES[key].index(value(key, name).name)


def vocabulary() -> dict[str, list[dict[str, object]]]:
    """stream.json's `vocabulary`: attribute -> [{"name", "prompt", "synonyms"}]."""
    return {
        key: [{"name": v.name, "prompt": v.prompt, "synonyms": list(v.synonyms)} for v in bank]
        for key, bank in BANKS.items()
    }
