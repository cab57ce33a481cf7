"""How good the starter's pictures are: tables and a contact sheet.

    python -m benchmarks.quality --quick
    python -m benchmarks.quality --parts adherence,steering,endurance,passes,frechet --prompts 200 --minutes 5

Pictures are judged by classifiers trained on rendered clips only; these are trained once for a state of the world's
sources (some minutes on two cores) and kept in runs/quality. Their accuracy on held-out renders bounds every score.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.quality import adherence, endurance, frechet, sharpness, steering
from benchmarks.quality.generate import Context, Options
from benchmarks.quality.judge import FOLDER, load_judge
from benchmarks.quality.report import Table
from model.checkpoint import load_checkpoint

PARTS: dict[str, Callable[[Context], list[Table]]] = {
    "adherence": adherence.measure,
    "steering": steering.measure,
    "endurance": endurance.measure,
    "passes": sharpness.measure,
    "frechet": frechet.measure,
}
FULL = Options(prompts=200, steers=100, minutes=5, streams=4, passes_prompts=16)
QUICK = Options(prompts=48, steers=24, minutes=1, streams=2, passes_prompts=4)


def main() -> None:
    """Measure, print, write the sheet."""
    options = _arguments()
    size = _size(options)
    parts = [name for name in PARTS if name in options.parts.split(",")]
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    begin = time.monotonic()
    with torch.enable_grad():
        judge = load_judge(options.cache)
    checkpoint = load_checkpoint(options.model, options.device)
    print(f"{options.model}, weights {checkpoint.weights_hash[:12]}, {options.device}, {options.threads} threads")
    context = Context(checkpoint, judge, size, steering="steering" in parts)
    tables = [table for name in parts for table in PARTS[name](context)]
    print("\n" + "\n\n".join(str(table) for table in tables))
    print("\n" + adherence.note())
    missing = [f"parts {', '.join(sorted(PARTS.keys() - set(parts)))}" if len(parts) < len(PARTS) else ""]
    missing += [
        endurance.left_out(size.minutes) if "endurance" in parts else "",
        "9:16 pictures; whether it is beautiful",
    ]
    print(f"left out: {'; '.join(text for text in missing if text)}")
    context.sheet.save(options.sheet)
    print(f"contact sheet: {options.sheet}; {time.monotonic() - begin:.0f} s in all")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated, of %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} instead of {FULL}")
    for name in ("prompts", "steers", "streams", "passes-prompts"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--minutes", type=float, help="length of the endurance streams")
    parser.add_argument("--batch", type=int, default=8, help="streams side by side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sheet", type=Path, default=FOLDER / "sheet.png")
    parser.add_argument("--cache", type=Path, default=FOLDER, help="folder of the classifier's weights")
    options = parser.parse_args()
    if unknown := set(options.parts.split(",")) - PARTS.keys():
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    return options


def _size(options: argparse.Namespace) -> Options:
    base = QUICK if options.quick else FULL
    given = {
        name: getattr(options, name)
        for name in ("prompts", "steers", "minutes", "streams", "passes_prompts", "batch", "seed")
        if getattr(options, name) is not None
    }
    return Options(**{**vars(base), **given})


if __name__ == "__main__":
    main()
