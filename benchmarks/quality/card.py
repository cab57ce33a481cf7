"""The scores as a Markdown table, for the model card: each with its bar where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from model.training.world import KEYS

Rows = Mapping[str, Mapping[str, Any]]
Line = tuple[str, str, str]
ADHERENCE = {
    "seen": ("combinations seen in training, the grammar's words", 90),
    "unseen": ("combinations never seen in training", 75),
    "free": ("wording that the grammar does not make", 75),
}
MINUTES = "minute "


def markdown(results: Mapping[str, Any]) -> str:
    """The table of everything in results.json that the card tells."""
    tables = {table["name"]: _rows(table) for table in results["tables"]}
    lines: list[Line] = []
    for name, read in READERS.items():
        if name in tables:
            lines += read(tables[name])
    body = [f"| {what} | {found} | {bar} |" for what, found, bar in lines]
    about = results["about"]
    return "\n".join(["| measure | found | bar |", "|---|---|---|", *body, "", _sentence(about)])


def _sentence(about: Mapping[str, Any]) -> str:
    own = ", ".join(f"{key} {100 * share:.1f}" for key, share in about["classifier"].items())
    return (
        f"`{about['command']}`, weights `{about['weights']}`, {about['size']}, {about['device']}. "
        f"Classifier on held-out renders, %: {own}."
    )


def _rows(table: Mapping[str, Any]) -> Rows:
    return {row["row"]: dict(zip(table["columns"], row["cells"], strict=True)) for row in table["rows"]}


def _met(value: float, bar: float, least: bool = True) -> str:
    good = value >= bar if least else value <= bar
    return f"{'≥' if least else '≤'} {bar:g}{'' if good else ' (not met)'}"


def _adherence(rows: Rows) -> Iterator[Line]:
    for kind, (words, bar) in ADHERENCE.items():
        for name, cells in rows.items():
            if name.startswith(f"{kind} ("):
                known = [key for key in KEYS if cells[key] is not None]
                if not known:
                    continue
                mean = fmean(cells[key] for key in known)
                worst = min(known, key=lambda key: cells[key])
                found = f"{mean:.0f}% (least: {worst} {cells[worst]:.0f}%)"
                yield f"{words}, {name.split('(')[1][:-1]} prompts: attributes recognised", found, _met(mean, bar)


def _steering(rows: Rows) -> Iterator[Line]:
    one, two, kept = (rows[f"streams, {what}"]["all"] for what in ("seen at 1 s", "seen at 2 s", "others kept"))
    if None not in (one, two):
        yield "steers: new attribute recognised within 1 s / 2 s", f"{one:.0f}% / {two:.0f}%", _met(two, 90)
    if kept is not None:
        yield "attributes that a steer did not mention, kept", f"{kept:.0f}%", _met(kept, 85)


def _marks(rows: Rows) -> dict[str, Mapping[str, Any]]:
    return {name.removeprefix(MINUTES): cells for name, cells in rows.items() if name.startswith(MINUTES)}


def _endurance(rows: Rows) -> Iterator[Line]:
    marks = _marks(rows)
    found = {minute: cells["all named"] for minute, cells in marks.items() if cells["all named"] is not None}
    if found:
        first, *_, last = [*found.values(), *found.values()]
        words = f"one prompt held: attributes recognised in minute {', '.join(found)}"
        yield words, ", ".join(f"{value:.0f}%" for value in found.values()), f"last {_met(last, round(first - 5, 1))}"


def _look(rows: Rows) -> Iterator[Line]:
    marks = {"start": rows["start"], **_marks(rows)} if "start" in rows else _marks(rows)
    when = ", ".join(marks)
    for column in ("saturation", "contrast"):
        values = ", ".join(f"{cells[column]:.0f}" for cells in marks.values())
        yield f"{column} at {when} (renders {rows['renders'][column]:.0f})", values, ""
    gaps = ", ".join(f"{cells['colour gap']:.1f}" for cells in marks.values())
    yield f"mean colour's distance from renders of the same, {when} (of 255)", gaps, ""
    distances = ", ".join(f"{cells['fréchet']:.0f}" for cells in marks.values())
    floor = f"{rows['renders']['fréchet']:.0f}"
    yield f"Fréchet distance to renders, few pictures, {when} (renders {floor})", distances, ""
    worst = max(cells["borders/inside"] for cells in marks.values())
    ratios = ", ".join(f"{cells['borders/inside']:.2f}" for cells in marks.values())
    yield f"picture difference at block borders against inside, {when}", ratios, _met(worst, 1.3, least=False)
    motion = ", ".join(f"{cells['least motion']:.1f}" for cells in marks.values())
    yield f"least motion of a stream, {when} (renders {rows['renders']['motion']:.1f} on average)", motion, "> 0"


def _passes(rows: Rows) -> Iterator[Line]:
    ours = rows.get("as shipped")
    if ours is not None:
        rest = ", ".join(f"{name} {cells['sharpness']:.1f}" for name, cells in rows.items() if cells is not ours)
        yield f"sharpness as shipped ({rest})", f"{ours['sharpness']:.1f}", _met(ours["sharpness"], 4.3)


def _blocks(rows: Rows) -> Iterator[Line]:
    for name, cells in rows.items():
        found = f"{cells['scores %']:.0f}%, {cells['sharpness']:.1f}, {cells['borders/inside']:.2f}"
        yield f"blocks of {name} latent frames: recognised, sharpness, borders/inside", found, ""


def _image(rows: Rows) -> Iterator[Line]:
    for name, cells in rows.items():
        if name != "renders":
            found = f"{cells['all kept']:.0f}%, {cells['motion']:.1f} (renders {rows['renders']['motion']:.1f})"
            yield f"started from a render, {name}: its attributes after 5 s, motion", found, ""


def _frechet(rows: Rows) -> Iterator[Line]:
    floor = rows["other renders (floor)"]["distance"]
    found = f"{rows['streams']['distance']:.1f}"
    yield f"Fréchet distance of classifier features to renders (renders to renders {floor:.1f})", found, ""


READERS = {
    "adherence": _adherence,
    "steering": _steering,
    "endurance scores": _endurance,
    "endurance look": _look,
    "passes": _passes,
    "blocks": _blocks,
    "image start": _image,
    "frechet": _frechet,
}
