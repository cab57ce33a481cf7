"""How a command line says where, in what and how exactly a checkpoint runs. Imports nothing slow by itself."""

from __future__ import annotations

import argparse
from typing import Any

from model.source import CheckpointError

WINDOW_BLOCKS = 4096


def add_heads(parser: argparse.ArgumentParser) -> None:
    """What a `.pth` doesn't say of its transformer."""
    parser.add_argument("--heads", type=int, help="attention heads of a .pth (default: width / 112)")


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `loading` reads."""
    add_heads(parser)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: %(default)s)")
    parser.add_argument(
        "--dtype", choices=["bf16", "fp16", "fp32"], help="of the transformer (default: as the device)"
    )
    parser.add_argument("--vae-dtype", choices=["bf16", "fp32"], help="of the VAE (default: as the transformer)")
    parser.add_argument("--text-dtype", choices=["bf16", "fp32"], help="of the text encoder (default: as the device)")
    parser.add_argument("--text-offload", action="store_true", help="keep the text encoder on the CPU")
    parser.add_argument(
        "--precision",
        choices=["precise", "reference"],
        help="reference: as LongSANA's released bfloat16 code (default: the checkpoint's, else precise)",
    )
    parser.add_argument(
        "--quantize",
        action="append",
        default=[],
        metavar="[PART=]SCHEME",
        help="bnb8, bnb4, int8, int8-dynamic, fp8, fp8-dynamic or nvfp4; of either part, or both",
    )
    parser.add_argument(
        "--window", type=window, metavar="BLOCKS", help="blocks a stream remembers, or none for all of them"
    )


def window(text: str) -> int | str:
    """The value of `--window`.

    Raises:
        argparse.ArgumentTypeError: says what is allowed.
    """
    if text == "none":
        return text
    if text.isdecimal() and 1 <= int(text) <= WINDOW_BLOCKS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not none or a number of blocks, 1 to {WINDOW_BLOCKS}")


def loading(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `model.checkpoint.load_checkpoint` from the parsed options.

    Raises:
        CheckpointError: a device that this machine lacks, or an unknown scheme, in one line.
    """
    from model.devices import DTYPES, Placement, require_device
    from model.quantize import parse

    try:
        device = require_device(args.device)
    except CheckpointError as error:
        raise CheckpointError(f"--{error}") from error
    dtypes = [DTYPES[name] if name else None for name in (args.dtype, args.vae_dtype, args.text_dtype)]
    placement = Placement.of(device, *dtypes, text_offload=args.text_offload)
    schemes = parse(args.quantize)
    return {
        "num_attention_heads": args.heads,
        "placement": placement,
        "precision": args.precision,
        "window": args.window,
        "quantize": schemes,
    }
