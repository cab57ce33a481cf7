"""How the command line says where, in what and how exactly the model runs; read by `serve`, handed to the worker."""

from __future__ import annotations

import argparse

WINDOW_BLOCKS = 4096
FLAGS = ("vae_dtype", "text_dtype", "text_offload", "precision", "window", "quantize", "lora", "heads")
"""Those that `serve` hands on as they are, by their names in the parsed arguments."""


def add_loading_options(parser: argparse.ArgumentParser) -> None:
    """The options of `serve` and of the worker."""
    add = parser.add_argument
    add("--heads", type=int, help="attention heads of a .pth (default: width / 112)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: %(default)s)")
    add("--dtype", choices=["bf16", "fp16", "fp32"], help="of the transformer (default: what suits the device)")
    add("--vae-dtype", choices=["bf16", "fp32"], help="of the VAE (default: as the transformer)")
    add("--text-dtype", choices=["bf16", "fp32"], help="of the text encoder (default: what suits the device)")
    add("--text-offload", action="store_true", help="keep the text encoder on the CPU")
    add(
        "--precision",
        choices=["precise", "reference"],
        help="reference: as LongSANA's released bfloat16 code (default: the checkpoint's, else precise)",
    )
    add(
        "--quantize",
        action="append",
        default=[],
        metavar="[PART=]SCHEME",
        help="bnb8, bnb4, int8, int8-dynamic, fp8, fp8-dynamic or nvfp4; of either part, or both",
    )
    add(
        "--window",
        type=window,
        metavar="BLOCKS",
        help="blocks a stream remembers, or none for all (default: the model's)",
    )
    add(
        "--lora",
        action="append",
        default=[],
        metavar="NAME=PATH[:WEIGHT]",
        help="an adapter: .safetensors, folder or Hugging Face id; WEIGHT (default 1) is on new streams",
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


def worker_arguments(args: argparse.Namespace) -> tuple[str, ...]:
    """What was given of `FLAGS`, as the worker's command line."""
    found: list[str] = []
    for name in FLAGS:
        value, flag = getattr(args, name), f"--{name.replace('_', '-')}"
        if value is True:
            found.append(flag)
        elif isinstance(value, list):
            found += [part for each in value for part in (flag, each)]
        elif value is not None and value is not False:
            found += [flag, str(value)]
    return tuple(found)
