"""`python -m streamer.engine.worker`: loads a checkpoint, warms up, and runs streams for the server on a socket.

It ends when the socket closes. Exit status 2: the last line on stderr says, for people, why it could not start.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.engine.budget import capacity, choose_rate, picture_s
from streamer.engine.info import LoraInfo, ModelInfo
from streamer.engine.link import Link
from streamer.engine.options import add_loading_options
from streamer.engine.protocol import CANNOT_START_EXIT, PROTOCOL_VERSION, Progress, Ready

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.stream_config import StreamConfig
    from streamer.engine.worker_warmup import Measured

NICENESS = 5
"""Below the server, whose event loop and encoders must never wait for the model."""
MAX_GUIDANCE_SCALE = 20.0
CHARS_PER_TOKEN = 8
"""A prompt of more characters than this a token would be cut anyway."""
PR_SET_PDEATHSIG = 1
TELL_EVERY_S = 2.0


def parser() -> argparse.ArgumentParser:
    """The worker's options."""
    options = argparse.ArgumentParser(prog="python -m streamer.engine.worker", description=__doc__)
    options.add_argument("--fd", type=int, required=True, help="inherited socket")
    options.add_argument("--model", required=True, help="diffusers folder, .pth file or Hugging Face id")
    add_loading_options(options)
    options.add_argument("--rate-hz", type=float, help="pictures a second; default: what this machine holds")
    options.add_argument("--threads", type=int, help="compute threads; default: one a core")
    options.add_argument("--batch", type=int, help="rows of a transformer pass; default: what costs nothing much")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker; returns its exit status."""
    options = parser().parse_args(arguments)
    _follow_parent()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    link = Link(socket.socket(fileno=options.fd))
    try:
        return run(link, options)
    except _StartError as error:
        print(error, file=sys.stderr)
        return CANNOT_START_EXIT


class _StartError(Exception):
    """Why the worker can't start, in one line for people."""


def run(link: Link, options: argparse.Namespace) -> int:
    """Load, warm up, say `Ready`, then work until the socket closes.

    Raises:
        _StartError: a bad checkpoint or device.
    """
    from model.loading import loading as loading_of
    from model.lora_source import located
    from model.source import CheckpointError, display_name, resolve

    name = display_name(options.model)
    try:
        with _telling(link, f"fetching {name}"):
            source = resolve(options.model)  # what is wrong is told at once, before seconds of imports
            adapters = located(options.lora)
    except CheckpointError as error:
        raise _StartError(str(error)) from error
    link.send(Progress(fraction=0.05, what="importing torch"))
    # OpenMP's threads spin where they wait for each other. Left alone they spin so long that a pass takes 10 to 20
    # times as long when others need the same cores (the server, an encoder, a browser); without any spinning a pass
    # on quiet cores takes half as long again. This many turns are some microseconds: the gap between two operations.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # from here on nothing is looked up
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # stderr is for what went wrong
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        loading = loading_of(options)
    except CheckpointError as error:
        raise _StartError(str(error)) from error
    link.send(Progress(fraction=0.2, what="importing the model", vocabulary=_vocabulary(source.folder)))
    from model.checkpoint import load_checkpoint
    from model.weights import Kind
    from streamer.engine import worker_loras
    from streamer.engine.worker_loop import WorkerLoop
    from streamer.engine.worker_models import Models
    from streamer.engine.worker_warmup import warm_up, warm_up_clips

    link.send(Progress(fraction=0.5, what=f"loading {name}"))
    try:
        models = Models(load_checkpoint(source, **loading))
        for part, share in models.checkpoint.quantised.items():
            link.send(Progress(fraction=0.6, what=f"{part} in {share}"))
        loras = worker_loras.load_all(models, adapters)
    except CheckpointError as error:
        raise _StartError(str(error)) from error
    if models.checkpoint.kind is Kind.CLIP and models.checkpoint.no_streams is None:
        logging.warning(
            "%s was made for whole clips: its streams are clips in a row, each from the last picture", name
        )

    def report(share: float, what: str) -> None:
        link.send(Progress(fraction=0.7 + 0.3 * share, what=what))

    clips_only = models.checkpoint.no_streams is not None
    measured = warm_up_clips(models, report) if clips_only else warm_up(models, options.batch, report)
    ready, why = _ready(models.checkpoint, measured, options, loras)
    link.send(Progress(fraction=1.0, what=why))
    link.send(ready)
    WorkerLoop(link, models, ready, measured.bucket, measured.text_s).run()
    return 0


@contextlib.contextmanager
def _telling(link: Link, what: str) -> Iterator[None]:
    """Say `what` now and then: the server takes minutes of silence for death, and a download may take longer."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(TELL_EVERY_S):
            link.send(Progress(fraction=0.02, what=what))

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _vocabulary(folder: Path) -> dict[str, list[dict[str, Any]]] | None:
    from model.stream_config import StreamConfig

    try:
        return StreamConfig.load(folder).to_dict()["vocabulary"]
    except ValueError:
        return None  # the loader says what is wrong with it


def _ready(
    checkpoint: Checkpoint, measured: Measured, options: argparse.Namespace, loras: dict[str, LoraInfo]
) -> tuple[Ready, str]:
    from model.source import display_name
    from streamer.engine.worker_clip import clip_info
    from streamer.engine.worker_warmup import most_clip_pixels, slots

    config, device = checkpoint.config, checkpoint.transformer.device
    cost_s = picture_s(measured.timings, config.block)
    if checkpoint.no_streams is not None:
        rate_hz, why = config.rate_hz, f"clips only: {checkpoint.no_streams}"
    elif options.rate_hz:
        rate_hz, why = options.rate_hz, f"{options.rate_hz:g} Hz, as asked: a picture costs {cost_s * 1e3:.1f} ms"
    else:
        rate_hz, why = choose_rate(cost_s, config.rate_hz, alone=device.type != "cpu")
    allowed = 0 if checkpoint.no_streams is not None else slots(device, measured.stream_nbytes)
    holds = min(allowed, capacity(cost_s, rate_hz))
    info = ModelInfo(
        name=display_name(options.model),
        weights_hash=checkpoint.weights_hash,
        device=str(device),
        dtype=str(checkpoint.transformer.dtype).removeprefix("torch."),
        height=config.height,
        width=config.width,
        portrait=config.portrait,
        streaming=_streaming(checkpoint),
        no_streams=checkpoint.no_streams,
        rate_hz=config.rate_hz,
        block_latent_frames=list(config.block_latent_frames),
        first_block_latent_frames=config.first_block_latent_frames,
        steer_block_latent_frames=config.steer_block_latent_frames,
        cut_blocks=config.cut_blocks,
        sampler=config.sampler,
        state_options=state_options(checkpoint),
        max_guidance_scale=MAX_GUIDANCE_SCALE,
        guidance_scale=config.guidance_scale,
        motion_score=config.motion_score,
        max_prompt_chars=CHARS_PER_TOKEN * config.max_tokens,
        prompt=config.prompt,
        vocabulary=config.to_dict()["vocabulary"],
        known_words=[*config.known_words],
        clips=clip_info(checkpoint, most_clip_pixels(checkpoint)),
        loras=loras,
    )
    ready = Ready(
        version=PROTOCOL_VERSION,
        pid=os.getpid(),
        model=info,
        timings=measured.timings,
        slots=allowed,
        capacity=holds,
        rate_hz=rate_hz,
        rate_reason=why,
    )
    return ready, why


def _streaming(checkpoint: Checkpoint) -> str:
    from model.weights import Kind

    if checkpoint.no_streams is not None:
        return "clips only"
    return "chained clips" if checkpoint.kind is Kind.CLIP else "blocks"


def state_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a log's header says of the model beside size and seed: with another value it makes another video."""
    config = checkpoint.config
    return {
        "sampler": config.sampler,
        "timesteps": list(config.timesteps),
        "first_block_timesteps": list(config.first_block_timesteps or config.timesteps),
        "shift": config.shift,
        "window": config.window_blocks,
        "window_group": config.window_group,
        "sink": config.sink_blocks,
        "decay": config.decay,
        "precision": config.precision,
        "recache": config.recache,
        **_cuts(config),
        **{f"{part}_weights": share.scheme for part, share in checkpoint.quantised.items()},
    }


def _cuts(config: StreamConfig) -> dict[str, Any]:
    """Lengths that a log must know, for its steers' latent frames alone don't give them where blocks are cut."""
    if not config.cut_blocks:
        return {}
    steer = config.steer_block_latent_frames or config.block
    return {"blocks": {"first": config.first_block_latent_frames, "default": config.block, "steer": steer}}


def _follow_parent() -> None:
    """Step back behind the server, and die with it even if it is killed."""
    parent = os.getppid()
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            raise SystemExit("the server is gone")


if __name__ == "__main__":
    sys.exit(main())
