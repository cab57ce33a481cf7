"""`streamer serve`: bind, start the worker, answer."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from streamer_client.cli import UsageError

from streamer.engine.options import add_loading_options, worker_arguments
from streamer.settings import Settings

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from streamer.engine.protocol import Ready

SEND_BUFFER_BYTES = 64 << 10
PING_INTERVAL_S, PONG_TIMEOUT_S = 5.0, 15.0
"""A WebSocket whose peer vanished without a word is closed 15 to 21 s later. On a slow link the ping waits behind the
video that is under way, so it has to be patient."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UsageError: the address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit it: a stalled viewer holds at most seconds of video in the kernel, not minutes.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UsageError(f"--host {host} --port {port}: {error.strerror or error}") from error
    listener.listen(128)
    return listener


class Serve:
    """The subcommand."""

    help = "serve live streams and the page that shows them"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        default = Settings()
        parser.add_argument(
            "--model",
            default=default.model,
            help="diffusers folder, .pth file or Hugging Face id (default: the shipped starter)",
        )
        parser.add_argument("--host", default=default.host, help="address to bind (default %(default)s)")
        parser.add_argument("--port", type=int, default=default.port, help="port, 0 for any (default %(default)s)")
        add_loading_options(parser)
        parser.add_argument("--rate-hz", type=float, help="pictures a second (default: what this machine holds)")
        parser.add_argument("--threads", type=int, help="CPU threads of the model (default: all cores)")
        parser.add_argument("--prompt", help="first prompt of the stream everybody shares")
        parser.add_argument("--seed", type=int, help="its seed (default: random)")
        parser.add_argument("--max-streams", type=int, help="streams at once (default: as measured)")
        parser.add_argument(
            "--origin", action="append", default=[], help="another site whose pages may use this server"
        )
        parser.add_argument("--allow-host", action="append", default=[], help="another name this server is called by")
        parser.add_argument("--admin-token", help="token that may do everything from anywhere")
        parser.add_argument(
            "--videos",
            type=Path,
            metavar="FOLDER",
            help="keep finished clips here, for the next server too (default: a temporary folder)",
        )
        parser.add_argument(
            "--videos-gb", type=float, default=4.0, help="most gigabytes of them (default %(default)g)"
        )
        parser.add_argument(
            "--videos-hours", type=float, default=24.0, help="how long they are kept (default %(default)g)"
        )
        parser.add_argument(
            "--lora-dir", type=Path, metavar="FOLDER", help="let POST /v1/loras load adapters from here"
        )
        parser.add_argument(
            "--no-trust-loopback",
            dest="trust_loopback",
            action="store_false",
            help="ask for tokens on this machine too (behind a proxy that adds no X-Forwarded-For)",
        )
        parser.add_argument("--ice-server", action="append", default=[], help="STUN or TURN URL (default: none)")
        parser.add_argument("--log-level", default="warning", choices=["debug", "info", "warning", "error"])

    def run(self, args: argparse.Namespace) -> int:
        settings = settings_of(args)
        listener = listen(settings.host, settings.port)
        logging.basicConfig(level=args.log_level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s")
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(serve_on(listener, settings))


def settings_of(args: argparse.Namespace) -> Settings:
    """Checked settings.

    Raises:
        UsageError: names the option and its limit.
    """
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port {args.port}: must be 0 to 65535")
    if args.rate_hz is not None and not 1 <= args.rate_hz <= 60:
        raise UsageError(f"--rate-hz {args.rate_hz:g}: must be 1 to 60")
    for name in ("threads", "max_streams"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    for name in ("videos_gb", "videos_hours"):
        if not 0 < getattr(args, name) <= 1e6:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(args, name):g}: must be above 0, at most 1000000")
    if args.seed is not None and not 0 <= args.seed < 1 << 64:
        raise UsageError(f"--seed {args.seed}: must be 0 to 2^64 - 1")
    if args.lora_dir is not None and not args.lora_dir.is_dir():
        raise UsageError(f"--lora-dir {args.lora_dir}: no such folder")
    return Settings(
        model=args.model,
        host=args.host,
        port=args.port,
        device=args.device,
        dtype=args.dtype,
        loading=worker_arguments(args),
        rate_hz=args.rate_hz,
        prompt=args.prompt,
        seed=args.seed,
        max_streams=args.max_streams,
        threads=args.threads,
        origins=tuple(args.origin),
        hosts=tuple(args.allow_host),
        admin_token=args.admin_token,
        ice_servers=tuple(args.ice_server),
        videos=args.videos,
        videos_bytes=int(args.videos_gb * 2**30),
        videos_keep_s=args.videos_hours * 3600,
        lora_dir=args.lora_dir,
        trust_loopback=args.trust_loopback,
    )


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it runs."""
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


async def serve_on(listener: socket.socket, settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings = dataclasses.replace(settings, port=listener.getsockname()[1])
    print(f"Streamer: {settings.url}  (warming up)", flush=True)

    from streamer.api.app import create_app
    from streamer.clips.manager import Clips
    from streamer.engine.process import Engine, EngineError
    from streamer.session.errors import SessionError
    from streamer.session.manager import Sessions

    engine = await Engine.start(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        loading=settings.loading,
        rate_hz=settings.rate_hz,
        threads=settings.threads,
    )
    sessions, clips = Sessions(engine, settings), Clips(engine, settings)

    server = http_server(create_app(settings, sessions, engine, clips))
    try:
        await clips.start()
    except OSError as error:
        print(f"streamer serve: --videos {settings.videos}: {error.strerror or error}", file=sys.stderr)
        await engine.close()
        return 2
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    starting = asyncio.create_task(engine.wait_ready())
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({starting, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        if starting in done:
            ready = starting.result()
            await sessions.start(ready)
            print(f"Streamer: ready, {served(ready)}", flush=True)
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        return 0
    except EngineError as error:
        option = "" if str(error).startswith("--") else f"--model {settings.model}: "
        print(f"streamer serve: {option}{error}", file=sys.stderr)
        return 2
    except SessionError as error:
        print(f"streamer serve: --prompt: {error}", file=sys.stderr)
        return 2
    finally:
        starting.cancel()
        stopping.cancel()
        await sessions.close()
        await clips.close()
        server.should_exit = True
        await serving
        await engine.close()


def http_server(app: FastAPI) -> uvicorn.Server:
    """What speaks HTTP and WebSocket. It leaves signals alone: streams must end before connections close."""
    import uvicorn

    from streamer.api.keepalive import WebSocketProtocol

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    # uvicorn's words for every handshake that was answered with a refusal; who was refused has the problem.
    refused = "ASGI callable returned without completing handshake."
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != refused)
    return Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            ws=WebSocketProtocol,
            ws_per_message_deflate=False,
            ws_max_size=1 << 16,
            ws_ping_interval=PING_INTERVAL_S,
            ws_ping_timeout=PONG_TIMEOUT_S,
            timeout_graceful_shutdown=3,
            lifespan="off",
        )
    )


def served(ready: Ready) -> str:
    """What is served, and on what."""
    model = ready.model
    if model.no_streams is not None:
        words = f"on {model.device}, clips only: {model.no_streams}; the page and POST /v1/videos make them"
        clips = model.clips
        if clips is not None and clips.max_pixels_in_all is not None:
            longest_s = clips.most_pictures(clips.width, clips.height) / clips.rate_hz
            room = f"up to {int(10 * longest_s) / 10:g} s" if longest_s else "none"
            words += f", of {clips.width}x{clips.height} {room}: memory has room for no more"
        return words
    return f"{ready.rate_hz:g} Hz on {model.device}"


serve = Serve()
