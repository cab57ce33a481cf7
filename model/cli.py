"""`streamer check` and `streamer convert`: what needs the model and no server."""

from __future__ import annotations

import argparse
import sys

from model.source import CheckpointError, resolve

BAD_INPUT = 2
"""Exit status of the command line for what its user can put right."""


class Check:
    """The subcommand."""

    help = "load a checkpoint, run one block, and say what it is and how fast it runs here"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--model", required=True, help="diffusers folder, .pth file or Hugging Face id")
        parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: %(default)s)")
        parser.add_argument("--dtype", choices=["bf16", "fp16", "fp32"], help="default: what suits the device")
        _add_heads(parser)
        parser.add_argument("--height", type=int, help="of the pictures (default: the checkpoint's)")
        parser.add_argument("--width", type=int, help="of the pictures (default: the checkpoint's)")
        parser.add_argument("--latent-frames", type=int, help="of the block (default: the checkpoint's)")

    def run(self, args: argparse.Namespace) -> int:
        try:
            source = resolve(args.model)  # a wrong path is told before seconds of imports
            import torch
            from transformers.utils import logging

            from model.check import check

            logging.disable_progress_bar()
            dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, None: None}
            lines = check(
                source,
                _device(args.device),
                dtypes[args.dtype],
                num_attention_heads=args.heads,
                height=args.height,
                width=args.width,
                latent_frames=args.latent_frames,
            )
            for line in lines:
                print(line, flush=True)
        except CheckpointError as error:
            print(f"streamer check: {error}", file=sys.stderr)
            return BAD_INPUT
        return 0


class Convert:
    """The subcommand."""

    help = "write any checkpoint as a diffusers folder"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("src", metavar="SRC", help=".pth file, folder or Hugging Face id")
        parser.add_argument("dst", metavar="DST", help="folder to write; must not exist, or be empty")
        _add_heads(parser)

    def run(self, args: argparse.Namespace) -> int:
        try:
            source = resolve(args.src)
            from model.convert import convert

            print(convert(source, args.dst, args.heads))
        except CheckpointError as error:
            print(f"streamer convert: {error}", file=sys.stderr)
            return BAD_INPUT
        return 0


def _add_heads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--heads", type=int, help="attention heads of a .pth (default: width / 112)")


def _device(name: str) -> str:
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return name


check = Check()
convert = Convert()
