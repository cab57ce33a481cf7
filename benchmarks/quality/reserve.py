"""Write the hashes of the free wording that training must not use: `python -m benchmarks.quality.reserve`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.quality.prompts import FREE, SHADES
from model.training.world import lexicon

FILE = Path(lexicon.__file__).parent / "words" / "reserved.txt"


def hashes() -> list[str]:
    """One for each free phrase, sorted."""
    free = [phrase for bank in FREE.values() for phrases in bank.values() for phrase in phrases]
    shades = [phrase for phrases in SHADES.values() for phrase in phrases]
    return sorted({lexicon.digest(lexicon.normalised(phrase.replace("{}", ""))) for phrase in [*free, *shades]})


if __name__ == "__main__":
    FILE.write_text("# See lexicon.py. Written by benchmarks.quality.reserve.\n" + "\n".join(hashes()) + "\n")
