"""The worker's adapters as the server knows them, and how to have others loaded while streams run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from streamer.engine.info import LoraInfo
from streamer.engine.protocol import DropLora, LoadLora, LoraFailed, LoraLoaded, Message, Ready

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
        self._waiting: dict[str, tuple[str, asyncio.Future[LoraInfo]]] = {}
        """Path and answer of what is being loaded, also when who asked has gone."""

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
        answer: asyncio.Future[LoraInfo] = asyncio.get_running_loop().create_future()
        self._waiting[name] = (path, answer)
        return await answer

    def drop(self, name: str) -> None:
        """Forget an adapter; nothing may use it any more."""
        gone = self.infos.pop(name)
        self._dropped.add(name)
        self._paths.pop(name, None)
        if all(info.sha256 != gone.sha256 for info in self.infos.values()):
            self._send(DropLora(sha256=gone.sha256))

    def receive(self, message: LoraLoaded | LoraFailed) -> None:
        """Take the worker's answer."""
        if isinstance(message, LoraLoaded):
            name = message.info.name
            self.infos[name] = message.info
            self._dropped.discard(name)
            if name in self._waiting:
                self._paths[name], answer = self._waiting.pop(name)
                if not answer.done():
                    answer.set_result(message.info)
        elif message.name in self._waiting:
            _refuse(self._waiting.pop(message.name)[1], message.reason)
        else:
            logger.error("adapter %s is lost: %s", message.name, message.reason)
            self.infos.pop(message.name, None)
            self._paths.pop(message.name, None)

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
        for _, answer in self._waiting.values():
            _refuse(answer, reason)
        self._waiting.clear()


def _refuse(answer: asyncio.Future[LoraInfo], reason: str) -> None:
    if not answer.done():
        answer.set_exception(LoraError(reason))
