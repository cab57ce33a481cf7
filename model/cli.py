"""`streamer check` and `streamer convert`: what needs the model and no server."""

from __future__ import annotations

import argparse
import sys

from model.loading import add_heads, add_loading_arguments
from model.lora_source import located
from model.source import CheckpointError, resolve

BAD_INPUT = 2
"""Exit status of the command line for what its user can put right."""


class Check:
    """The subcommand."""

    help = "load a checkpoint, run one block, and say what it is and how fast it runs here"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--model", required=True, help="diffusers folder, .pth file or Hugging Face id")
        add_loading_arguments(parser)
        parser.add_argument(
            "--lora",
            action="append",
            default=[],
            metavar="NAME=PATH[:WEIGHT]",
            help="run the block under an adapter: .safetensors, folder or Hugging Face id (default weight: 1)",
        )
        parser.add_argument("--height", type=int, help="of the pictures (default: the checkpoint's)")
        parser.add_argument("--width", type=int, help="of the pictures (default: the checkpoint's)")
        parser.add_argument("--latent-frames", type=int, help="of the block (default: the checkpoint's)")

    def run(self, args: argparse.Namespace) -> int:
        try:
            source = resolve(args.model)  # a wrong path is told before seconds of imports
            loras = located(args.lora)
            from transformers.utils import logging

            from model.check import check
            from model.loading import loading

            logging.disable_progress_bar()
            lines = check(
                source,
                **loading(args),
                height=args.height,
                width=args.width,
                latent_frames=args.latent_frames,
                loras=loras,
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
        add_heads(parser)

    def run(self, args: argparse.Namespace) -> int:
        try:
            source = resolve(args.src)
            from model.checkpoint import DC_AE_CHANNELS, TRANSFORMER_ONLY
            from model.convert import convert
            from model.weights import latent_channels

            print(convert(source, args.dst, args.heads))
            if latent_channels(source) == DC_AE_CHANNELS:
                print(f"streamer convert: {TRANSFORMER_ONLY}", file=sys.stderr)
        except CheckpointError as error:
            print(f"streamer convert: {error}", file=sys.stderr)
            return BAD_INPUT
        return 0


check = Check()
convert = Convert()
