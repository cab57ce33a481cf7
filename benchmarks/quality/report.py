"""Tables for the terminal and for results.json, and the contact sheets."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

LINE, LINES = 12, 3
LABEL = LINE * LINES + 2
JPEG_QUALITY = 90
Cell = float | str | None


@dataclass
class Table:
    """A title, column names, and rows that begin with a name; numbers are shown with `digits` decimals.

    `name` is what results.json and the card know it by.
    """

    title: str
    columns: Sequence[str]
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)
    digits: int = 1
    name: str = ""

    def add(self, name: str, *cells: Cell) -> None:
        """A row; None is shown as a dash."""
        self.rows.append((name, list(cells)))

    def __str__(self) -> str:
        first = max([24, *(len(name) + 2 for name, _ in self.rows)])
        width = max(10, *(len(column) + 2 for column in self.columns))
        lines = [self.title, " " * first + "".join(f"{column:>{width}}" for column in self.columns)]
        for name, cells in self.rows:
            lines.append(f"{name:<{first}}" + "".join(f"{self._cell(cell):>{width}}" for cell in cells))
        return "\n".join(lines)

    def _cell(self, cell: Cell) -> str:
        if cell is None:
            return "-"
        return cell if isinstance(cell, str) else f"{cell:.{self.digits}f}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers as measured."""
        rows = [{"row": name, "cells": cells} for name, cells in self.rows]
        return {"name": self.name, "title": self.title, "columns": list(self.columns), "rows": rows}


def percent(hits: Sequence[bool]) -> float | None:
    """Share of hits in per cent; None of nothing."""
    return 100 * sum(hits) / len(hits) if hits else None


@dataclass
class Sheet:
    """Rows of labelled pictures, written as one picture file."""

    columns: int = 6
    cells: list[tuple[str, Tensor | None]] = field(default_factory=list)

    def row(self, labels: Sequence[str], pictures: Sequence[Tensor]) -> None:
        """Pictures (3, h, w) uint8, on any device, from a new line on."""
        self.cells += [("", None)] * (-len(self.cells) % self.columns)
        self.cells += zip(labels, (picture.cpu() for picture in pictures), strict=True)

    def save(self, path: Path) -> None:
        """Write the file, whose suffix says the format; nothing if there is no picture."""
        shown = [picture for _, picture in self.cells if picture is not None]
        if not shown:
            return
        _, height, width = shown[0].shape
        rows = -(-len(self.cells) // self.columns)
        image = Image.new("RGB", (self.columns * (width + 2), rows * (height + LABEL)), (18, 18, 20))
        pen = ImageDraw.Draw(image)
        for i, (label, picture) in enumerate(self.cells):
            if picture is None:
                continue
            x, y = i % self.columns * (width + 2), i // self.columns * (height + LABEL)
            image.paste(Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()), (x, y + LABEL))
            for line, text in enumerate(textwrap.wrap(label, width // 6)[:LINES]):
                pen.text((x + 3, y + 1 + LINE * line), text, fill=(225, 225, 225))
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=JPEG_QUALITY)
