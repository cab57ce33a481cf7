"""Where the parts of a checkpoint run, and in which dtype.

The rules are those of diffusers' documentation: the transformer in bfloat16 or float16, the VAE and the text encoder
in bfloat16 or float32 (Gemma-2 leaves float16's range), and float32 anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from model.source import CheckpointError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""By the names of the command line."""


@dataclass(frozen=True)
class Placement:
    """Devices and dtypes of a checkpoint's parts; `of` fills in what suits the device.

    Raises:
        CheckpointError: a part in a dtype outside the rules.
    """

    device: torch.device
    dtype: torch.dtype
    vae_dtype: torch.dtype
    text_device: torch.device
    text_dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES.values():
            raise CheckpointError(f"dtype: the transformer runs in bf16, fp16 or fp32, not {name_of(self.dtype)}")
        for part, dtype in (("vae_dtype", self.vae_dtype), ("text_dtype", self.text_dtype)):
            if dtype not in (torch.bfloat16, torch.float32):
                raise CheckpointError(f"{part}: must be bf16 or fp32, not {name_of(dtype)}")

    @classmethod
    def of(
        cls,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
        text_dtype: torch.dtype | None = None,
        *,
        text_offload: bool = False,
    ) -> Placement:
        """A placement with defaults for what is None.

        Args:
            device: of the transformer, the VAE and the streams' state.
            dtype: of the transformer; None takes `default_dtype`.
            vae_dtype: None takes `dtype`, or float32 where that is float16.
            text_dtype: None takes float32 for a float32 transformer and on a device that is all CPU, else bfloat16
                where the encoder's device computes in it.
            text_offload: keep the text encoder on the CPU. A prompt then takes longer, the device's memory (5 GB with
                Gemma-2-2b) is free for streams.
        """
        place = torch.device(device)
        text_place = torch.device("cpu") if text_offload else place
        dtype = dtype or default_dtype(place)
        if vae_dtype is None:
            vae_dtype = torch.float32 if dtype == torch.float16 else dtype
        if text_dtype is None:
            half = dtype != torch.float32 and place.type != "cpu" and default_dtype(text_place) == torch.bfloat16
            text_dtype = torch.bfloat16 if half else torch.float32
        return cls(place, dtype, vae_dtype, text_place, text_dtype)


def default_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the device computes in it; else float16 on a GPU and float32 on a CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float16
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_computes_in_bf16() else torch.float32
    return torch.float32


def _cpu_computes_in_bf16() -> bool:
    """Whether bfloat16 products are the processor's own (AVX-512 bf16 or AMX), and torch and oneDNN may use them.

    `ATEN_CPU_CAPABILITY=avx2` and `ONEDNN_MAX_CPU_ISA=AVX2` forbid them: this machine then stands for a lesser one.
    """
    own = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return own and torch.backends.cpu.get_cpu_capability().startswith("AVX512") and onednn_takes_bf16()


def onednn_takes_bf16() -> bool:
    """Whether oneDNN's bfloat16 kernels run on this processor, the environment's limits counted."""
    if not torch.backends.mkldnn.is_available():
        return False
    asks: Any = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return asks is not None and bool(asks())


def require_device(name: str) -> torch.device:
    """A device that this machine has.

    Raises:
        CheckpointError: why it cannot be used, in one line.
    """
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise CheckpointError(f"device {name}: must be cpu, cuda, cuda:1 or mps")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise CheckpointError(f"device {name}: this machine has none, or torch is built without it")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(f"device {name}: {str(error).splitlines()[0]}") from error
    return device


def name_of(dtype: torch.dtype) -> str:
    """A dtype's name without torch in front."""
    return str(dtype).removeprefix("torch.")
