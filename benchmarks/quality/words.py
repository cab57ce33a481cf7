"""What the text encoder alone makes of the benchmark's prompts: `python -m benchmarks.quality.words --text DIR`.

The share of the asked attributes that its training heads name rightly, for each kind of prompt. It says what the
transformer can be told at all, in seconds and without a picture.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from benchmarks.quality.prompts import KINDS, wish
from model.training.text import Namer


def main() -> None:
    """Parse the command line and print one line a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="folder that model.training.text wrote")
    parser.add_argument("--prompts", type=int, default=500, help="of each kind")
    args = parser.parse_args()
    namer = Namer.load(args.text)
    for kind in KINDS:
        rng = random.Random(0)
        wishes = [wish(kind, rng) for _ in range(args.prompts)]
        scores = namer.accuracy([(w.prompt, {key: w.attributes[key] for key in w.asked}) for w in wishes])
        each = ", ".join(f"{key} {score:.1%}" for key, score in scores.items())
        print(f"{kind}: {each}; mean {sum(scores.values()) / len(scores):.1%}")


if __name__ == "__main__":
    main()
