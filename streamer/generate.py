"""`streamer generate`: one clip into a file, made here or by a running server."""

from __future__ import annotations

import argparse
import asyncio
import math
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer_client import Client, Problem, StreamerError
from streamer_client.cli import UsageError, end_progress, show_progress

from streamer.engine.options import add_loading_options, worker_arguments
from streamer.settings import Settings

if TYPE_CHECKING:
    from streamer.engine.process import Engine
    from streamer.engine.protocol import Ready

LOOK_S = 0.2
"""How often the worker's progress is looked at while it starts."""
OPTIONS = {"guidance_scale": "--guidance", "negative_prompt": "--negative-prompt", "input_reference": "--image"}
FIELDS = ("seconds", "size", "seed", "negative_prompt", "guidance_scale", "steps", "motion_score")


class GenerateError(Exception):
    """The clip could not be made; one line for people."""


class Generate:
    """The subcommand."""

    help = "make a clip: prompt in, MP4 out"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("prompt", help="what it shows")
        parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write, e.g. clip.mp4")
        parser.add_argument("--seconds", type=float, help="its length (default 4)")
        parser.add_argument("--size", metavar="WxH", help="in pixels (default: the checkpoint's)")
        parser.add_argument("--seed", type=int, help="the same seed gives the same clip (default: random)")
        parser.add_argument("--image", type=Path, metavar="FILE", help="picture that it starts from")
        parser.add_argument("--negative-prompt", metavar="TEXT", help="what guidance leads away from")
        parser.add_argument(
            "--guidance", type=float, dest="guidance_scale", metavar="SCALE", help="above 1 doubles the work"
        )
        parser.add_argument("--steps", type=int, help="denoising steps (default: the checkpoint's)")
        parser.add_argument("--motion-score", type=int, help="0 to 100 (default: the checkpoint's)")
        parser.add_argument("--url", help="let a running server make it, e.g. http://127.0.0.1:8000")
        parser.add_argument("--token", help="token, for a server elsewhere")
        parser.add_argument(
            "--model", default=Settings().model, help="folder, .pth or Hugging Face id (default: the shipped starter)"
        )
        parser.add_argument("--threads", type=int, help="CPU threads of the model (default: all cores)")
        add_loading_options(parser)

    def run(self, args: argparse.Namespace) -> int:
        if args.out.suffix.lower() != ".mp4":
            raise UsageError(f"--out {args.out}: must end in .mp4")
        if not args.out.resolve().parent.is_dir():
            raise UsageError(f"--out {args.out}: its folder does not exist")
        if args.threads is not None and args.threads < 1:
            raise UsageError(f"--threads {args.threads}: must be at least 1")
        if args.seconds is not None and not math.isfinite(args.seconds):
            raise UsageError(f"--seconds {args.seconds}: must be a number")
        wanted = {name: getattr(args, name) for name in FIELDS if getattr(args, name) is not None}
        image = None if args.image is None else read_image(args.image)
        try:
            made = asyncio.run((_there if args.url else _here)(args, wanted, image))
        except Problem as problem:
            raise UsageError(_line(problem.field, problem.detail)) from problem
        except (GenerateError, StreamerError) as error:
            end_progress()
            print(f"streamer generate: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            raise UsageError(f"--out {args.out}: {error.strerror or error}") from error
        end_progress()
        print(f"{args.out}: {made}")
        return 0


def read_image(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        UsageError: it can't be read, or is too large.
    """
    from streamer.api.images import MAX_IMAGE_BYTES

    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--image {path}: {error.strerror or error}") from error
    if len(data) > MAX_IMAGE_BYTES:
        raise UsageError(f"--image {path}: has more than {MAX_IMAGE_BYTES} bytes")
    return data


async def _there(args: argparse.Namespace, wanted: dict[str, Any], image: bytes | None) -> str:
    """Let a server make it."""
    async with Client(args.url, token=args.token) as client:
        video = await client.videos.create(args.prompt, image=image, **wanted)
        try:
            await video.made(lambda video: _show(video.progress, video.status, video.info["reason"]))
            await video.download(args.out)
        finally:
            with suppress(StreamerError):
                await video.delete()
        info = video.info
    return _summary(info["pictures"], info["rate_hz"], info["size"], info["seed"], info["bytes"])


async def _here(args: argparse.Namespace, wanted: dict[str, Any], image: bytes | None) -> str:
    """Make it with a worker of our own, on the same way as a server."""
    from msgspec.structs import replace

    from streamer.api import images
    from streamer.api.problems import Problem as Refused
    from streamer.clips.manager import Clips
    from streamer.clips.spec import CreateClip, clip_order
    from streamer.session.errors import SessionError

    async with _engine(args) as (engine, ready):
        clips = Clips(engine, Settings())
        await clips.start()
        try:
            order = clip_order(CreateClip(prompt=args.prompt, **wanted), ready)
            if image is not None:
                order = replace(order, image=await images.fitted(image, order.width, order.height, "input_reference"))
            video = await clips.create(order)
            while not video.over:
                await video.change(within_s=60.0)
                _show(video.progress, video.status, video.reason)
            if video.record.error is not None:
                raise GenerateError(video.record.error.message)
            await asyncio.to_thread(shutil.copyfile, clips.file(video), args.out)
        except SessionError as error:
            raise UsageError(_line(error.field, str(error))) from error
        except Refused as error:
            raise UsageError(_line(error.field, error.detail)) from error
        finally:
            await clips.close()
    size = f"{order.width}x{order.height}"
    return _summary(order.frames, order.rate_hz, size, order.seed, video.record.bytes)


@asynccontextmanager
async def _engine(args: argparse.Namespace) -> AsyncIterator[tuple[Engine, Ready]]:
    from streamer.engine.process import Engine, EngineError

    engine = await Engine.start(
        args.model, device=args.device, dtype=args.dtype, loading=worker_arguments(args), threads=args.threads
    )
    looking = asyncio.create_task(_look(engine))
    try:
        ready = await engine.wait_ready()
        looking.cancel()
        yield engine, ready
    except EngineError as error:
        option = "" if str(error).startswith("--") else f"--model {args.model}: "
        raise UsageError(f"{option}{error}") from error
    finally:
        looking.cancel()
        await engine.close()


async def _look(engine: Engine) -> None:
    while True:
        show_progress(engine.progress.fraction, engine.progress.what)
        await asyncio.sleep(LOOK_S)


def _show(percent: int, status: str, reason: str | None) -> None:
    show_progress(percent / 100, f"{percent:3d}% {reason or status.replace('_', ' ')}")


def _line(field: str | None, message: str) -> str:
    """A refusal by the option that it is about."""
    if field is None or field == "prompt":
        return message
    return f"{OPTIONS.get(field, f'--{field}')}: {message.replace('input_reference', 'the picture')}"


def _summary(pictures: int, rate_hz: float, size: str, seed: int, length: int) -> str:
    return f"{pictures / rate_hz:.1f} s, {pictures} pictures, {size}, seed {seed}, {length / 1000:.0f} kB"


generate = Generate()
