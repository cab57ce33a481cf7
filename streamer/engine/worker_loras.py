"""The adapters of a worker: loaded at its start, or while streams run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from model.lora_source import LoraOption
from model.source import CheckpointError
from streamer.engine.info import LoraInfo, by_default
from streamer.engine.protocol import LoadLora, LoraFailed, LoraLoaded, Message
from streamer.engine.worker_models import Models

logger = logging.getLogger(__name__)

MAX_LOADED = 64
"""Adapters of a worker."""


def load(models: Models, wanted: LoraOption, sha256: str | None = None) -> LoraInfo:
    """Load an adapter for all streams.

    Raises:
        CheckpointError: what is wrong with it, that it is another one than `sha256`, or that there are too many.
    """
    from model.lora import load_adapter  # imports peft, seconds that nobody needs to spend without adapters

    adapter = load_adapter(wanted.path, models.checkpoint.transformer, wanted.name)
    if sha256 not in (None, adapter.sha256):
        raise CheckpointError(f"{wanted.path}: the file has changed since it was first loaded")
    if adapter.sha256 not in models.adapters and len(models.adapters) >= MAX_LOADED:
        raise CheckpointError(f"{MAX_LOADED} adapters are loaded already")
    # One that is loaded under another name stays as it is: views of it are shared.
    models.adapters.setdefault(adapter.sha256, adapter)
    return LoraInfo(
        name=wanted.name,
        sha256=adapter.sha256,
        weight=wanted.weight,
        rank=adapter.rank,
        layers=len(adapter.layers),
        nbytes=adapter.nbytes,
    )


def load_all(models: Models, wanted: Sequence[LoraOption]) -> dict[str, LoraInfo]:
    """Load what the worker is started with, by name; those of a weight are on in the warm-up.

    Raises:
        CheckpointError: names the option, and what is wrong with its file.
    """
    infos = {}
    for option in wanted:
        try:
            infos[option.name] = load(models, option)
        except CheckpointError as error:
            raise CheckpointError(f"--lora {option.name}: {error}") from error
    models.default_loras = by_default(infos)
    return infos


def handle(models: Models, message: LoadLora, send: Callable[[Message], None]) -> None:
    """Load as asked and answer; in a thread of its own where streams may be running."""

    def work() -> None:
        wanted = LoraOption(message.name, message.path, message.weight)
        try:
            answer: Message = LoraLoaded(info=load(models, wanted, message.sha256))
        except CheckpointError as error:
            answer = LoraFailed(name=message.name, reason=str(error))
        except Exception as error:
            logger.exception("adapter %s could not be loaded", message.name)
            answer = LoraFailed(name=message.name, reason=f"{type(error).__name__}: {error}")
        send(answer)

    if message.sha256 is None:
        threading.Thread(target=work, name="adapter loader", daemon=True).start()
    else:
        work()
