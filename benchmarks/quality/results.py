"""What was measured, on disk as soon as it is known: results.json and a contact sheet a part."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.quality.report import Sheet, Table

FILE = "results.json"


@dataclass
class Results:
    """Tables and seconds of each part so far; `folder` is where they go at every change.

    What the folder holds of other parts, for the same weights and size, is kept.
    """

    folder: Path
    about: dict[str, Any]
    tables: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    sheets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            before = read(self.folder)
        except (OSError, ValueError):
            return
        if all(before["about"].get(key) == self.about.get(key) for key in ("weights", "size")):
            self.tables, self.seconds, self.sheets = before["tables"], before["seconds"], before["sheets"]

    def add(self, part: str, tables: list[Table], sheet: Sheet, seconds: float) -> None:
        """Take a part's tables and sheet, and write."""
        self._forget(part)
        self.tables += [{"part": part, **table.to_dict()} for table in tables]
        self.seconds[part] = round(seconds, 1)
        if sheet.cells:
            sheet.save(self.folder / f"{part}.jpg")
            self.sheets.append(f"{part}.jpg")
        self.write()

    def _forget(self, part: str) -> None:
        self.tables = [table for table in self.tables if table["part"] != part]
        self.sheets = [name for name in self.sheets if name != f"{part}.jpg"]
        self.seconds.pop(part, None)

    def write(self) -> None:
        """Write results.json, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"about": self.about, "seconds": self.seconds, "sheets": self.sheets, "tables": self.tables}
        rough = self.folder / f"{FILE}.part"
        rough.write_text(json.dumps(content, indent=1) + "\n")
        rough.replace(self.folder / FILE)

    def take(self, other: Path) -> None:
        """Take in what a run beside this one left in its folder, and remove that."""
        if (other / FILE).is_file():
            content = read(other)
            for part in content["seconds"]:
                self._forget(part)
            self.tables += content["tables"]
            self.seconds |= content["seconds"]
            for name in content["sheets"]:
                (other / name).replace(self.folder / name)
            self.sheets += content["sheets"]
            self.write()
        shutil.rmtree(other, ignore_errors=True)


def read(folder: Path) -> dict[str, Any]:
    """The content of results.json.

    Raises:
        OSError: there is none.
        ValueError: it isn't JSON.
    """
    content: dict[str, Any] = json.loads((folder / FILE).read_text())
    return content
