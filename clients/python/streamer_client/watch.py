"""`streamer watch URL`: record a live stream to a file while steering it."""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av

from streamer_client.cli import UsageError, end_progress, show_progress
from streamer_client.client import Client
from streamer_client.errors import Problem, StreamerError
from streamer_client.steer import Steer
from streamer_client.stream import Stream
from streamer_client.video import packets

_STEER = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*s?\s*:\s*(\S.*)$", re.DOTALL)


def parse_steer(text: str) -> tuple[float, str]:
    """`"10s: night falls"` to (10.0, "night falls")."""
    match = _STEER.match(text)
    if not match:
        raise UsageError(f'--steer {text!r}: expected "SECONDS s: PROMPT", e.g. "10s: night falls"')
    return float(match[1]), match[2].strip()


class Recorder:
    """Puts fragments into a file without encoding again; the file's time starts at 0."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._init = b""
        self._output: av.container.OutputContainer | None = None
        self._origin = 0
        self.pictures = 0
        self.bytes = 0
        self.seconds = 0.0

    def write(self, message: bytes) -> None:
        """Add a message of the video WebSocket: the init segment first, then fragments."""
        if not self._init:
            self._init = message
            return
        if self._output is None:
            self._output = av.open(str(self._path), "w")
            with av.open(io.BytesIO(self._init + message), format="mp4") as source:
                self._stream = self._output.add_stream_from_template(source.streams.video[0])
        for packet in packets(self._init, message):
            if not self.pictures:
                self._origin = packet.pts
            self.seconds = float((packet.pts - self._origin + (packet.duration or 0)) * packet.time_base)
            packet.pts = packet.dts = packet.pts - self._origin
            packet.stream = self._stream
            self.bytes += packet.size
            self._output.mux(packet)
            self.pictures += 1

    def close(self) -> None:
        if self._output is not None:
            self._output.close()


class Watch:
    """The subcommand."""

    help = "record a live stream to a file, steering it on the way"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("url", help="server, or a stream's page: http://host:8000[/s/STREAM]")
        parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write, e.g. clip.mp4")
        parser.add_argument("--seconds", type=float, default=30.0, help="length of the recording (default 30)")
        parser.add_argument(
            "--steer",
            action="append",
            default=[],
            metavar='"10s: PROMPT"',
            help="change the prompt at this second",
        )
        parser.add_argument("--prompt", help="record a new stream that starts with this prompt")
        parser.add_argument("--image", type=Path, metavar="FILE", help="picture that the new stream starts from")
        parser.add_argument("--size", metavar="WIDTHxHEIGHT", help="of the new stream's pictures")
        parser.add_argument("--token", help="control token, for a server elsewhere")

    def run(self, args: argparse.Namespace) -> int:
        steers = sorted(parse_steer(text) for text in args.steer)
        if not args.seconds > 0:
            raise UsageError(f"--seconds {args.seconds}: must be above 0")
        if args.out.suffix not in (".mp4", ".mkv", ".mov"):
            raise UsageError(f"--out {args.out}: must end in .mp4, .mkv or .mov")
        if not args.out.resolve().parent.is_dir():
            raise UsageError(f"--out {args.out}: its folder does not exist")
        if args.prompt is None and (args.image or args.size):
            raise UsageError("--image and --size are of a new stream, which needs a --prompt")
        new: dict[str, Any] | None = None if args.prompt is None else {"prompt": args.prompt}
        if new is not None and args.size:
            new["size"] = args.size
        if new is not None and args.image:
            try:
                new["image"] = args.image.read_bytes()
            except OSError as error:
                raise UsageError(f"--image {args.image}: {error.strerror or error}") from error
        try:
            return asyncio.run(record(args.url, args.out, args.seconds, steers, new, args.token))
        except Problem as problem:
            raise UsageError(str(problem)) from problem
        except StreamerError as error:
            print(f"streamer watch: {error}", file=sys.stderr)
            return 1


async def record(
    url: str,
    out: Path,
    seconds: float,
    steers: list[tuple[float, str]],
    new: dict[str, Any] | None,
    token: str | None,
) -> int:
    """Record `seconds` of a stream to `out`; status 1 if a steer was refused.

    Args:
        url: the stream's page, or the server.
        out: file to write.
        seconds: to record.
        steers: (second, prompt).
        new: what a new stream is created with (`Streams.create`), instead of recording one that is there.
        token: that controls it.
    """
    page = re.search(r"/(?:s|streams)/([A-Za-z0-9_]+)", urlsplit(url).path)
    async with Client(url, token=token) as client:
        if new is not None:
            stream = await client.streams.create(**new)
        else:
            stream = await client.streams.get(page[1] if page else "main")
        recorder = Recorder(out)
        asked: list[Steer] = []
        try:
            await _record(stream, recorder, seconds, list(steers), asked)
        finally:
            recorder.close()
            if new is not None:
                await stream.end()
    if not recorder.pictures:
        raise StreamerError("no picture came")
    end_progress()
    print(f"{out}: {recorder.seconds:.1f} s, {recorder.pictures} pictures, {recorder.bytes / 1000:.0f} kB")
    refused = [steer for steer in asked if steer.queued.done() and steer.queued.exception()]
    for steer in refused:
        print(f"streamer watch: --steer {steer.prompt!r}: {steer.queued.exception()}", file=sys.stderr)
    return 1 if refused else 0


async def _record(
    stream: Stream, recorder: Recorder, seconds: float, due: list[tuple[float, str]], asked: list[Steer]
) -> None:
    """Record, and add each steer to `asked` when it is made."""
    async with aclosing(stream.fragments()) as messages:
        async for message in messages:
            recorder.write(message)
            while due and recorder.seconds >= due[0][0]:
                asked.append(stream.steer(due.pop(0)[1]))
            _progress(recorder, seconds, asked[-1] if asked else None)
            if recorder.seconds >= seconds:
                return


def _progress(recorder: Recorder, seconds: float, steer: Steer | None) -> None:
    note = ""
    if steer is not None:
        state = f"{steer.latency_s:.1f} s" if steer.latency_s is not None else "…"
        note = f" · {steer.prompt} ({state})"
    show_progress(recorder.seconds / seconds, f"{recorder.seconds:5.1f}/{seconds:g} s{note[:60]}")


watch = Watch()
