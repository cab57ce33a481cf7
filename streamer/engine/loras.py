"""The worker's adapters as the server knows them, and how to have others loaded while streams run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from streamer.engine.protocol import DropLora, LoadLora, LoraFailed, LoraInfo, LoraLoaded, Message, Ready

logger = logging.getLogger(__name__)


class LoraError(Exception):
    """An adapter could not be loaded; the text is one line for people."""


class Loras:
    """Adapters by name.

    Attributes:
        infos: Those that can be used; changes in place, and is `Ready.model.loras` of every worker.
    """

    def __init__(self, send: Callable[[Message], bool]) -> None:
        self.infos: dict[str, LoraInfo] = {}
        self._send = send
        self._paths: dict[str, str] = {}
        """Of those that were loaded later than the worker, which a restarted one must be told of."""
        self._dropped: set[str] = set()
        """A worker that is started anew has them again."""
        self._waiting: dict[str, asyncio.Future[LoraInfo]] = {}

    async def load(self, name: str, path: str, weight: float) -> LoraInfo:
        """Have the worker load an adapter, beside the streams that it runs.

        Args:
            name: Not in use, nor being loaded.
            path: A `.safetensors` or its folder.
            weight: What new streams have of it.

        Raises:
            LoraError: what is wrong with it, or that there is no worker.
        """
        if name in self.infos or name in self._waiting:
            raise LoraError(f"there is an adapter {name} already")
        if not self._send(LoadLora(name=name, path=path, weight=weight)):
            raise LoraError("the model is warming up")
        self._waiting[name] = asyncio.get_running_loop().create_future()
        try:
            info = await self._waiting[name]
        finally:
            del self._waiting[name]
        self._paths[name] = path
        self._dropped.discard(name)
        return info

    def drop(self, name: str) -> None:
        """Forget an adapter; nothing may use it any more."""
        gone = self.infos.pop(name)
        self._dropped.add(name)
        self._paths.pop(name, None)
        if all(info.sha256 != gone.sha256 for info in self.infos.values()):
            self._send(DropLora(sha256=gone.sha256))

    def receive(self, message: LoraLoaded | LoraFailed) -> None:
        """Take the worker's answer."""
        name = message.info.name if isinstance(message, LoraLoaded) else message.name
        waiting = self._waiting.get(name)
        if isinstance(message, LoraLoaded):
            self.infos[name] = message.info
            if waiting is not None and not waiting.done():
                waiting.set_result(message.info)
        elif waiting is not None and not waiting.done():
            waiting.set_exception(LoraError(message.reason))
        else:
            logger.error("adapter %s is lost: %s", name, message.reason)
            self.infos.pop(name, None)

    def worker_up(self, ready: Ready) -> Ready:
        """A worker is ready: tell it of what was loaded later. Gives its word with `infos` in it."""
        started = ready.model.loras
        self.infos.update(
            (name, info) for name, info in started.items() if name not in {*self._dropped, *self._paths}
        )
        for name, path in self._paths.items():
            info = self.infos[name]
            self._send(LoadLora(name=name, path=path, weight=info.weight, sha256=info.sha256))
        return msgspec.structs.replace(ready, model=msgspec.structs.replace(ready.model, loras=self.infos))

    def worker_down(self, reason: str) -> None:
        """The worker is gone, and what it was loading with it."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(LoraError(reason))
