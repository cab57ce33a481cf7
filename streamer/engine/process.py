"""`Engine`: the server's handle on the model worker, a process of its own that may die and comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from streamer.engine.child import Child
from streamer.engine.framing import Decoder, ProtocolError, encode
from streamer.engine.loras import Loras
from streamer.engine.protocol import (
    PROTOCOL_VERSION,
    LoraFailed,
    LoraLoaded,
    Message,
    Progress,
    Ready,
    Stats,
    ToServer,
)

logger = logging.getLogger(__name__)

MAX_QUEUED_BYTES = 1 << 30
"""Bytes that may wait for the worker (snapshots of many streams); beyond it the worker is taken for dead."""
SILENCE_STARTING_S = 300.0
SILENCE_READY_S = 120.0
"""A ready worker reports about once a second; after this long without a word it is killed and started anew."""
SILENCE_CLIPS_S = 3600.0
"""One that makes clips only is silent during a pass, and while it decodes a whole clip: many minutes on a CPU."""
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
HEALTHY_S = 60.0
"""A worker that got ready and lived for this long starts the back-off anew."""

T = TypeVar("T")
Listener = Callable[[Message], None]


class EngineError(Exception):
    """The worker could not be started; the text is one line for people."""


class Backoff:
    """How long to wait before the next worker: twice as long each time, anew after a healthy one."""

    def __init__(self) -> None:
        self._next_s = FIRST_BACKOFF_S

    def after(self, lived_s: float) -> float:
        """Seconds to wait after a worker that lived for so long."""
        wait_s = FIRST_BACKOFF_S if lived_s > HEALTHY_S else self._next_s
        self._next_s = min(2 * wait_s, MAX_BACKOFF_S)
        return wait_s


def patience_s(ready: Ready | None) -> float:
    """How long a worker may be silent, before it is ready (None) and after."""
    if ready is None:
        return SILENCE_STARTING_S
    return SILENCE_READY_S if ready.model.no_streams is None else SILENCE_CLIPS_S


class Engine:
    """Starts the worker, routes messages, restarts it with back-off when it dies.

    All methods and callbacks belong to the event loop that `start` ran in; callbacks must not block.

    Attributes:
        ready: What the worker measured; None while there is no worker that is warm.
        progress: The worker's last word while it starts.
        vocabulary: What the checkpoint knows, told before the worker is warm.
        stats: The last statistics of the worker that is up.
        restarts: How many times the worker was started again.
        loras: The adapters.
    """

    def __init__(self, arguments: list[str], rate_hz: float | None) -> None:
        self.ready: Ready | None = None
        self.progress = Progress(fraction=0.0, what="starting the model worker")
        self.vocabulary: dict[str, list[dict[str, Any]]] | None = None
        self.stats: Stats | None = None
        self.restarts = 0
        self.loras = Loras(self.send)
        self._arguments = arguments
        self._rate_hz = rate_hz
        self._listeners: dict[str, Listener] = {}
        self._on_down: list[Callable[[str], None]] = []
        self._on_up: list[Callable[[Ready], None]] = []
        self._settled = asyncio.Event()
        self._error: EngineError | None = None
        self._child: Child | None = None
        self._supervisor = asyncio.create_task(self._supervise(), name="engine supervisor")

    @classmethod
    async def start(
        cls,
        model: str | Path,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        rate_hz: float | None = None,
        loading: Sequence[str] = (),
        threads: int | None = None,
        batch: int | None = None,
    ) -> Engine:
        """Begin to start the worker and return at once; `wait_ready` waits for it.

        Args:
            model: Checkpoint: diffusers folder, `.pth` file or Hugging Face id.
            device: torch device name.
            dtype: "bf16", "fp16", "fp32" or None (what suits the device).
            loading: further arguments of the worker, see `streamer.engine.options`.
            rate_hz: Pictures a second; None lets the worker choose what the machine holds.
            threads: Compute threads; None means one a core.
            batch: Most streams in one transformer pass; None lets the worker choose.
        """
        arguments = ["--model", str(model), "--device", device, *loading]
        for flag, value in (("--dtype", dtype), ("--threads", threads), ("--batch", batch)):
            if value is not None:
                arguments += [flag, str(value)]
        return cls(arguments, rate_hz)

    async def wait_ready(self) -> Ready:
        """Wait for a warm worker.

        Raises:
            EngineError: the first worker could not start (bad model folder, no memory), and is not tried again; or
                the engine was closed.
        """
        while self.ready is None:
            await self._settled.wait()
            if self._error is not None:
                raise self._error
        return self.ready

    def listen(self, stream: str, callback: Listener) -> Callable[[], None]:
        """Hand every message about a stream to `callback` (one listener a stream); returns how to stop that."""
        self._listeners[stream] = callback

        def stop() -> None:
            if self._listeners.get(stream) is callback:
                del self._listeners[stream]

        return stop

    def on_down(self, callback: Callable[[str], None]) -> None:
        """Call with a one-line reason when a worker that was ready is gone; all its streams are gone with it."""
        self._on_down.append(callback)

    def on_up(self, callback: Callable[[Ready], None]) -> None:
        """Call each time a worker gets ready from now on."""
        self._on_up.append(callback)

    def send(self, message: Message) -> bool:
        """Queue a message and return at once; False when no worker is ready, or it stopped reading."""
        if self.ready is None or self._child is None:
            return False
        data = encode(message)
        writer = self._child.writer
        waiting = writer.transport.get_write_buffer_size()
        if waiting + len(data) > MAX_QUEUED_BYTES:
            self._child.kill(f"it reads nothing, {waiting} bytes wait for it")
            return False
        writer.write(data)
        return True

    async def close(self) -> None:
        """End the worker: close its socket, then SIGTERM, then SIGKILL, seconds apart. Idempotent."""
        self._supervisor.cancel()
        await asyncio.gather(self._supervisor, return_exceptions=True)
        self.ready = None
        self._fail(EngineError("the engine was closed"))

    # One worker after the other

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        ever_ready, backoff = False, Backoff()
        while True:
            started_s = loop.time()
            was_ready, reason = await self._run_child()
            ever_ready |= was_ready
            if not ever_ready:
                self._fail(EngineError(reason))
                return
            self.progress = Progress(fraction=0.0, what=f"restarting: {reason}")
            if was_ready:
                _call(self._on_down, reason)
            wait_s = backoff.after(loop.time() - started_s if was_ready else 0.0)
            logger.warning("%s; next try in %.1f s", reason, wait_s)
            await asyncio.sleep(wait_s)
            self.restarts += 1

    async def _run_child(self) -> tuple[bool, str]:
        """Run one worker until it is gone; returns whether it was ever ready, and one line: why it is gone."""
        # A restarted worker keeps the first one's rate: running streams are paced by it.
        rate = [] if self._rate_hz is None else ["--rate-hz", str(self._rate_hz)]
        try:
            child = await Child.spawn([*self._arguments, *rate])
        except OSError as error:
            return False, f"the model worker could not be started: {error}"
        self._child = child
        problem = ""
        try:
            decoder = Decoder[ToServer](ToServer)
            while data := await child.read(patience_s(self.ready)):
                for message in decoder.feed(data):
                    self._receive(message)
        except (ProtocolError, EngineError) as error:
            problem = f"the model worker does not speak our protocol: {error}"
        finally:
            self._child = None
            was_ready = self.ready is not None
            self.ready = self.stats = None
            if was_ready:
                self._settled.clear()
                self.loras.worker_down("the model worker is gone")
            reason = await child.end()
        return was_ready, problem or reason

    def _receive(self, message: ToServer) -> None:
        match message:
            case Progress():
                self.progress = message
                self.vocabulary = message.vocabulary or self.vocabulary
            case Ready():
                if message.version != PROTOCOL_VERSION:
                    raise EngineError(f"version {message.version}, ours is {PROTOCOL_VERSION}")
                self._rate_hz = message.rate_hz
                self.ready = message  # from here on messages are sent
                self.ready = message = self.loras.worker_up(message)
                self._settled.set()
                _call(self._on_up, message)
            case Stats():
                self.stats = message
            case LoraLoaded() | LoraFailed():
                self.loras.receive(message)
            case _:
                listener = self._listeners.get(message.stream)
                if listener is not None:
                    _call([listener], message)

    def _fail(self, error: EngineError) -> None:
        self._error = self._error or error
        self.progress = Progress(fraction=0.0, what=str(self._error))
        self._settled.set()


def _call(callbacks: list[Callable[[T], None]], value: T) -> None:
    for callback in callbacks:
        try:
            callback(value)
        except Exception:
            logger.exception("a callback of the engine failed")
