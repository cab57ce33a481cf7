"""How good the starter's pictures are: tables, a results.json and contact sheets.

    python -m benchmarks.quality --quick
    python -m benchmarks.quality --device cuda --model PATH --out runs/quality/gpu --budget-s 150
    python -m benchmarks.quality --train-classifier --parts '' [--size 144x256]
    python -m benchmarks.quality --card --out runs/quality/gpu

Pictures are judged by classifiers trained on rendered clips only, one a shape; these are trained once (some minutes
on two cores) and kept in runs/quality. Their accuracy on held-out renders bounds every score. After a change of the
world they are trained anew: without parts that is all that is done. With `--card` nothing is measured: the results in
the folder are printed as the model card's table.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch

from benchmarks.quality import adherence, blocks, card, endurance, frechet, image, results, sharpness, steering
from benchmarks.quality.generate import Context, Options
from benchmarks.quality.judge import FOLDER, Judge, load_judge
from benchmarks.quality.report import Sheet, Table
from benchmarks.quality.results import Results
from model.checkpoint import Checkpoint, load_checkpoint
from model.source import CheckpointError

PARTS: dict[str, Callable[[Context], list[Table]]] = {
    "adherence": adherence.measure,
    "steering": steering.measure,
    "frechet": frechet.measure,
    "passes": sharpness.measure,
    "blocks": blocks.measure,
    "image": image.measure,
    "endurance": endurance.measure,
}
LONG = "endurance"  # thousands of passes one after the other: on a GPU it runs in a process beside the rest
FULL = Options(prompts=200, steers=100, minutes=(1, 5), streams=4, passes_prompts=16, batch=8)
QUICK = Options(prompts=48, steers=24, minutes=(1,), streams=2, passes_prompts=4, batch=8)
GPU = Options(prompts=200, steers=100, minutes=(1, 5, 30), streams=12, passes_prompts=48, batch=100)
FRESH_CLIPS = {"cuda": 400, "cpu": 60}  # by which the classifier is measured anew


def main() -> None:
    """Measure, print, write."""
    options = _arguments()
    if options.card:
        _print_card(options.out)
        return
    begin = time.monotonic()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    names = [name for name in PARTS if name in options.parts.split(",")]
    beside = _beside(options, names, begin)
    try:
        checkpoint = load_checkpoint(options.model, options.device)
    except CheckpointError as error:
        sys.exit(f"benchmarks.quality: {error}")
    size = _size(options, checkpoint)
    judge = _judge(options, size)
    if not names:
        return
    context = Context(
        checkpoint, judge, _amounts(options, checkpoint), "steering" in names, size, begin + options.budget_s
    )
    found = Results(options.out, _about(options, checkpoint, judge, size))
    found.write()
    for name in names:
        if beside is not None and name == LONG:
            continue
        if context.late:
            print(f"\n{options.budget_s:.0f} s are over: {name} is left out", flush=True)
            continue
        _measure(name, context, found)
    if beside is not None:
        beside.wait()
        found.take(_beside_folder(options))
    print("\n" + (adherence.note() if "adherence" in names else "adherence is left out"))
    left = [*(name for name in PARTS if name not in found.seconds), "whether it is beautiful"]
    print(f"left out: {', '.join(left)}\n{options.out}: {results.FILE}, {', '.join(found.sheets)}")
    print(f"seconds: {found.seconds}, {time.monotonic() - begin:.0f} in all\n")
    print(card.markdown(results.read(options.out)))


def _measure(name: str, context: Context, found: Results) -> None:
    began, context.sheet = time.monotonic(), Sheet()
    tables = PARTS[name](context)
    print("\n" + "\n\n".join(str(table) for table in tables) + "\n", flush=True)
    found.add(name, tables, context.sheet, time.monotonic() - began)


def _print_card(folder: Path) -> None:
    try:
        print(card.markdown(results.read(folder)))
    except (OSError, ValueError) as error:
        sys.exit(f"benchmarks.quality: --out: {error}")


def _judge(options: argparse.Namespace, size: tuple[int, int]) -> Judge:
    judge = load_judge(options.cache, options.device, size, anew=options.train_classifier)
    if judge.stale:
        print(
            f"WARNING: the classifier in {options.cache} was trained before {', '.join(judge.stale)} of the world "
            "changed: look at its accuracy below, or train it anew with --train-classifier",
            flush=True,
        )
    if not options.alone and (judge.stale or not options.quick):
        began = time.monotonic()
        judge.measure_anew(FRESH_CLIPS.get(judge.device.type, 60), *size)
        print(f"classifier: measured on fresh renders in {time.monotonic() - began:.0f} s", flush=True)
    if not options.alone:
        own = ", ".join(f"{key} {100 * share:.1f}" for key, share in judge.accuracy.items())
        print(f"classifier on renders of {size[1]}x{size[0]}, %: {own}", flush=True)
    return judge


def _about(
    options: argparse.Namespace, checkpoint: Checkpoint, judge: Judge, size: tuple[int, int]
) -> dict[str, object]:
    where = (
        torch.cuda.get_device_name() if judge.device.type == "cuda" else f"{judge.device}, {options.threads} threads"
    )
    weights = checkpoint.weights_hash[:12]
    print(f"{options.model}, weights {weights}, {where}, {checkpoint.transformer.dtype}", flush=True)
    return {
        "model": str(options.model),
        "weights": weights,
        "device": where,
        "size": f"{size[1]}×{size[0]}",
        "classifier": judge.accuracy,
        "command": f"python -m benchmarks.quality {' '.join(sys.argv[1:])}".strip(),
    }


def _beside_folder(options: argparse.Namespace) -> Path:
    return Path(options.out) / LONG


def _beside(options: argparse.Namespace, names: list[str], begin: float) -> subprocess.Popen[bytes] | None:
    """Start the long part in a process of its own, where it does not take the others' device time."""
    if options.alone or torch.device(options.device).type != "cuda" or LONG not in names or len(names) == 1:
        return None
    own = ["--parts", LONG, "--alone", "--out", str(_beside_folder(options))]
    left = options.budget_s - (time.monotonic() - begin)
    budget = [] if math.isinf(left) else ["--budget-s", f"{left:.0f}"]
    return subprocess.Popen([sys.executable, "-u", "-m", "benchmarks.quality", *sys.argv[1:], *own, *budget])


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(sorted(float(part) for part in text.split(",")))


def _lengths(text: str) -> tuple[int, ...]:
    found = tuple(int(part) for part in text.split(","))
    if not all(1 <= length <= 64 for length in found):
        raise ValueError(text)
    return found


def _wide_high(text: str) -> tuple[int, int]:
    width, height = (int(part) for part in text.lower().split("x"))
    return height, width


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="comma-separated, of %(default)s; '' for the classifier alone"
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} instead of {FULL} ({GPU} on a GPU)")
    for name in ("prompts", "steers", "streams", "passes-prompts"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--minutes", type=_numbers, help="of the endurance streams that are looked at, e.g. 1,5,30")
    parser.add_argument("--blocks", type=_lengths, help="block lengths to compare, e.g. 2,3,4,5")
    parser.add_argument(
        "--size", type=_wide_high, help="WIDTHxHEIGHT of the pictures, the checkpoint's own by default"
    )
    parser.add_argument("--batch", type=int, help="streams side by side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budget-s", type=float, default=math.inf, help="start nothing new after so many seconds")
    parser.add_argument("--out", type=Path, default=FOLDER / "latest", help="folder of results.json and sheets")
    parser.add_argument("--card", action="store_true", help="print the results in --out as the model card's table")
    parser.add_argument("--cache", type=Path, default=FOLDER, help="folder of the classifier's weights")
    parser.add_argument("--train-classifier", action="store_true", help="train it anew")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(filter(None, options.parts.split(","))) - PARTS.keys():
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    return options


def _amounts(options: argparse.Namespace, checkpoint: Checkpoint) -> Options:
    full = GPU if torch.device(options.device).type == "cuda" else FULL
    trained = checkpoint.config.block_latent_frames
    base = replace(QUICK if options.quick else full, blocks=trained if len(trained) > 1 else (2, 3, 4, 5))
    names = {field.name for field in fields(Options)}
    given = {name: value for name, value in vars(options).items() if name in names and value is not None}
    return replace(base, **given)


def _size(options: argparse.Namespace, checkpoint: Checkpoint) -> tuple[int, int]:
    height, width = options.size or (checkpoint.config.height, checkpoint.config.width)
    factor = checkpoint.vae.spatial_factor * checkpoint.transformer.config.patch_size[1]
    if height % factor or width % factor:
        sys.exit(f"benchmarks.quality: --size: {width}x{height} must be multiples of {factor}")
    return height, width


if __name__ == "__main__":
    main()
