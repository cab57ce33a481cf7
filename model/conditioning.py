"""What a stream is told: its prompt, guidance and adapters, those in force and those of a steer that waits."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import torch
from torch import Tensor

from model.adapted import Adapter, AdapterSet, adapter_set
from model.passes import Guidance, Text
from model.snapshot import FORMAT, REQUIRED, Snapshot
from model.transformer import SanaVideoTransformer3DModel


class Conditioning:
    """The prompt, guidance and adapters of one stream, whatever kind of stream it is.

    Args:
        transformer: that reads the prompts.
        text, text_mask: prompt embeddings (1, tokens, channels) and mask (1, tokens), 1 = read.
        guidance_scale: 1 for none.
        negative_text, negative_mask: what guidance leads away from.
        loras: adapters in force from the start.
        adapters: where `read` finds the adapters of a snapshot, by SHA-256; it is added to. None for a table of its
            own.

    Attributes:
        text, guidance: what is in force.

    Raises:
        ValueError: guidance without a negative text.
    """

    def __init__(
        self,
        transformer: SanaVideoTransformer3DModel,
        *,
        text: Tensor,
        text_mask: Tensor | None,
        guidance_scale: float,
        negative_text: Tensor | None,
        negative_mask: Tensor | None,
        loras: AdapterSet,
        adapters: MutableMapping[str, Adapter] | None,
    ) -> None:
        self._transformer = transformer
        self._adapters = {} if adapters is None else adapters
        self.text = self._encode(text, text_mask, loras)
        negative = None if negative_text is None else self._encode(negative_text, negative_mask, loras)
        self.guidance = Guidance(guidance_scale, negative)
        self._waiting: tuple[Text, Guidance] | None = None

    def steer(
        self,
        text: Tensor,
        text_mask: Tensor | None,
        *,
        guidance_scale: float | None,
        negative_text: Tensor | None,
        negative_mask: Tensor | None,
        loras: AdapterSet | None,
    ) -> None:
        """Have something else wait to be put into force; it replaces what waited. None keeps what was told last.

        Raises:
            ValueError: guidance without a negative text.
        """
        last_text, last = self._waiting or (self.text, self.guidance)
        loras = last_text.loras if loras is None else loras
        negative = last.negative
        if negative_text is not None:
            negative = self._encode(negative_text, negative_mask, loras)
        elif negative is not None and negative.loras != loras:
            negative = self._encode(negative.embeds, negative.mask, loras)
        scale = last.scale if guidance_scale is None else guidance_scale
        self._waiting = (self._encode(text, text_mask, loras), Guidance(scale, negative))

    def take(self) -> bool:
        """Put what waits into force; whether anything did."""
        if self._waiting is None:
            return False
        self.text, self.guidance = self._waiting
        self._waiting = None
        return True

    def snapshot(self) -> Snapshot:
        """Entries of a snapshot: copies of what is in force."""
        negative = self.guidance.negative
        tensors = {
            "text": self.text.embeds,
            "text_mask": self.text.mask,
            "negative_text": None if negative is None else negative.embeds,
            "negative_mask": None if negative is None else negative.mask,
        }
        plain = {"format": FORMAT, "guidance_scale": self.guidance.scale, "loras": self.text.loras.plain()}
        return plain | {name: value.clone() for name, value in tensors.items() if value is not None}

    def read(self, snapshot: Snapshot) -> tuple[Text, Guidance]:
        """What was in force at a snapshot; changes nothing.

        Raises:
            ValueError: a snapshot of another format, or one of its adapters is not known.
        """
        if snapshot.get("format") != FORMAT or not snapshot.keys() >= REQUIRED:
            raise ValueError("not a snapshot of a known format")
        loras = _loras_of(snapshot, self._adapters)
        negative = snapshot.get("negative_text")
        if negative is not None:
            negative = self._encode(negative, snapshot.get("negative_mask"), loras)
        text = self._encode(snapshot["text"], snapshot.get("text_mask"), loras)
        return text, Guidance(snapshot["guidance_scale"], negative)

    def put(self, text: Text, guidance: Guidance) -> None:
        """Put into force what `read` gave; nothing waits any more."""
        self.text, self.guidance, self._waiting = text, guidance, None

    def _encode(self, embeds: Tensor, mask: Tensor | None, loras: AdapterSet) -> Text:
        self._adapters.update({adapter.sha256: adapter for adapter, _ in loras.members})
        return Text.of(self._transformer, embeds, mask, loras)


def given_latent(image: Tensor, channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """The latent of a picture to start from, float32, on the device.

    Raises:
        ValueError: any shape but (1, channels, 1, height, width).
    """
    expected = (1, channels, 1, height, width)
    if tuple(image.shape) != expected:
        raise ValueError(f"image must be a latent {expected}, not {tuple(image.shape)}")
    return image.detach().to(device, torch.float32, copy=True)


def _loras_of(snapshot: Snapshot, adapters: Mapping[str, Adapter]) -> AdapterSet:
    members = []
    for name, sha256, weight in snapshot.get("loras", []):
        if sha256 not in adapters:
            raise ValueError(f"the snapshot's adapter {name} (SHA-256 {sha256[:12]}...) is not loaded")
        members.append((adapters[sha256], weight))
    return adapter_set(members)
