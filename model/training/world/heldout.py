"""Combinations that training never sees, so that a score on them tells whether attributes combine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

COMBINED = ("scene", "time of day", "weather", "subject", "colour")
HELD_OUT_OF = 5


def held_out(attributes: Mapping[str, str]) -> bool:
    """Whether the combination of scene, hour, weather, subject and colour is kept from training: one in five.

    By the first byte of the SHA-256 of the five names joined by "|"; with no subject the colour counts as "-".
    """
    names = [attributes[key] for key in COMBINED]
    if attributes["subject"] == "none":
        names[-1] = "-"
    return hashlib.sha256("|".join(names).encode()).digest()[0] % HELD_OUT_OF == 0
