"""What a stream remembers: slots in pools.

One pool a (transformer, height, width): one preallocated tensor a kind, with a leading slot dimension, grown in
slabs, bytes counted. Slot 0 is the null slot: padding rows read and write it, nobody else does. A slot holds the
*roll* part of a stream's state, whose size does not depend on how long the stream runs:

* `sums`, float32: per layer and head the sum over remembered blocks of v rope(k)^T (rows = value, columns = key) and,
  as one more row, of k itself: what the next block adds to its own sums;
* `tail`: per layer the Mix-FFN's last latent frame, before the temporal convolution;
* `ring`, with a window of W blocks: the own sums of the last W blocks, which `sums` is made of anew at each commit,
  because subtracting the block that leaves would lose digits. Blocks may share an entry, `window_group` to each: the
  ring is that much smaller, and forgets so many blocks at once (it remembers W - group + 1 to W of them);
* `sink`: the sums of the first S blocks, never decayed nor dropped; those blocks enter neither ring nor fold;
* `fold`, only with a sink but no window: the decayed sum of the blocks after the sink.

With decay g, a block that is n commits old counts g^(n-1) times.

`key_dtype` other than float32 rounds the sums of k, and no others, at every addition: how LongSANA's released code
keeps them (`model.stream_config`, precision "reference").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NULL_SLOT = 0


@dataclass(frozen=True)
class StateLayout:
    """Sizes of a slot: `tokens` are those of one latent frame; `window` None remembers every block.

    Raises:
        ValueError: a memory rule outside its limit.
    """

    layers: int
    heads: int
    head_dim: int
    channels: int
    tokens: int
    window: int | None = None
    sink: int = 0
    decay: float = 1.0
    window_group: int = 1
    key_dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 block or None, not {self.window}")
        if self.window_group < 1 or (self.window or 0) % self.window_group:
            raise ValueError(f"window_group must divide the window of {self.window}, not be {self.window_group}")
        if self.sink < 0:
            raise ValueError(f"sink must be at least 0 blocks, not {self.sink}")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay must be above 0 and at most 1, not {self.decay}")

    @property
    def ring(self) -> int:
        """Entries of the ring."""
        return (self.window or 0) // self.window_group


def layout_of(config: Any, height: int, width: int, **memory: Any) -> StateLayout:
    """The layout for a transformer's config and latents of height x width; `memory`: the rules of `StateLayout`.

    Raises:
        ValueError: a size not made of whole patches, or a memory rule outside its limit.
    """
    p_t, p_h, p_w = config.patch_size
    if p_t != 1:
        raise ValueError(f"a patch of {p_t} latent frames cannot be streamed frame by frame")
    if height < p_h or width < p_w or height % p_h or width % p_w:
        raise ValueError(f"latents of {height}x{width} are not made of whole {p_h}x{p_w} patches")
    return StateLayout(
        layers=config.num_layers,
        heads=config.num_attention_heads,
        head_dim=config.attention_head_dim,
        channels=config.num_attention_heads * config.attention_head_dim,
        tokens=(height // p_h) * (width // p_w),
        **memory,
    )


class StatePool:
    """Slots of one layout on one device.

    Args:
        layout: sizes and memory rules.
        dtype: of the Mix-FFN tails (the sums are float32).
        device: where the tensors live.
        slab: by how many slots the pool grows.
    """

    def __init__(
        self, layout: StateLayout, dtype: torch.dtype, device: torch.device | str = "cpu", slab: int = 2
    ) -> None:
        self.layout = layout
        self.dtype = dtype
        self.device = torch.device(device)
        self._slab = slab
        self._free: list[int] = []
        self._tensors = {name: self._zeros(1, name) for name in self._kinds()}

    def _kinds(self) -> tuple[str, ...]:
        layout = self.layout
        kinds = ["sums", "tail"]
        if layout.window is not None:
            kinds.append("ring")
        if layout.sink:
            kinds.append("sink")
            if layout.window is None:
                kinds.append("fold")
        return tuple(kinds)

    def _zeros(self, slots: int, name: str) -> Tensor:
        layout = self.layout
        sums = (layout.layers, layout.heads, layout.head_dim + 1, layout.head_dim)
        shape: tuple[int, ...] = {
            "tail": (layout.layers, layout.tokens, layout.channels),
            "ring": (layout.ring, *sums),
        }.get(name, sums)
        dtype = self.dtype if name == "tail" else torch.float32
        return torch.zeros((slots, *shape), dtype=dtype, device=self.device)

    @property
    def capacity(self) -> int:
        """Slots allocated, the null slot not counted."""
        return self._tensors["sums"].shape[0] - 1

    @property
    def in_use(self) -> int:
        """Slots that streams hold."""
        return self.capacity - len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, the null slot counted."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    @property
    def slot_nbytes(self) -> int:
        """Bytes of one slot."""
        return sum(tensor[0].nbytes for tensor in self._tensors.values())

    def reserve(self, slots: int) -> None:
        """Allocate so many slots at least."""
        while self.capacity < slots:
            self._grow()

    def acquire(self) -> int:
        """A zeroed slot. The pool grows by a slab if none is free."""
        if not self._free:
            self._grow()
        slot = self._free.pop(0)
        self.clear(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back; its content may stay dirty."""
        if slot == NULL_SLOT or slot in self._free or slot > self.capacity:
            raise ValueError(f"slot {slot} is not in use")
        self._free.append(slot)
        self._free.sort()

    def _grow(self) -> None:
        first = self.capacity + 1
        for name, tensor in self._tensors.items():
            self._tensors[name] = torch.cat([tensor, self._zeros(self._slab, name)])
        self._free.extend(range(first, first + self._slab))

    def clear(self, slot: int) -> None:
        """Forget everything in a slot."""
        for tensor in self._tensors.values():
            tensor[slot].zero_()

    def read(self, slot: int) -> dict[str, Tensor]:
        """Copies of a slot's tensors, by kind."""
        return {name: tensor[slot].clone() for name, tensor in self._tensors.items()}

    def write(self, slot: int, content: dict[str, Tensor]) -> None:
        """Overwrite a slot with what `read` gave.

        Raises:
            ValueError: kinds, shapes or dtypes of another pool.
        """
        self.check(content)
        for name, tensor in self._tensors.items():
            tensor[slot].copy_(content[name])

    def check(self, content: dict[str, Tensor]) -> None:
        """Raise ValueError unless `write` would take this content."""
        if content.keys() != self._tensors.keys():
            raise ValueError(f"the state holds {sorted(content)}, this pool {sorted(self._tensors)}")
        for name, tensor in self._tensors.items():
            given = content[name]
            if given.shape != tensor.shape[1:] or given.dtype != tensor.dtype:
                raise ValueError(f"the state's {name} is {tuple(given.shape)} {given.dtype}")

    def copy(self, source: int, target: int) -> None:
        """Make slot `target` equal to slot `source`."""
        for tensor in self._tensors.values():
            tensor[target].copy_(tensor[source])

    def gather(self, name: str, slots: Sequence[int]) -> Tensor:
        """The slots' tensors of one kind, stacked: a view for one slot, a copy for more."""
        tensor = self._tensors[name]
        if len(slots) == 1:
            return tensor[slots[0] : slots[0] + 1]
        return tensor[torch.tensor(slots, device=self.device)]

    def commit(self, slot: int, block: int, own: Tensor, tail: Tensor) -> None:
        """Write one block into a slot.

        Args:
            slot: the slot.
            block: the block's index in its stream, from 0: its place in the ring, and whether it is a sink.
            own: (layers, heads, head_dim + 1, head_dim) float32, the block's own sums.
            tail: (layers, tokens, channels), the block's last frame.
        """
        layout, kinds = self.layout, self._tensors
        if block == 0:
            self.clear(slot)  # it may be committed twice, see `model.precision`
        kinds["tail"][slot].copy_(tail)
        sums = kinds["sums"][slot]
        sink = kinds["sink"][slot] if layout.sink else None
        if sink is not None and block < layout.sink:
            self._fold(sink, own, 1.0)
            sums.copy_(sink)
        elif layout.window is not None:
            entry = kinds["ring"][slot, block // layout.window_group % layout.ring]
            if block % layout.window_group:
                self._fold(entry, own, layout.decay)
            else:
                entry.copy_(own)
            sums.copy_(self._window_sum(slot, block))
            if sink is not None:
                self._fold(sums, sink, 1.0)
        elif sink is not None:
            fold = kinds["fold"][slot]
            self._fold(fold, own, layout.decay)
            sums.copy_(fold)
            self._fold(sums, sink, 1.0)
        else:
            self._fold(sums, own, layout.decay)

    def _window_sum(self, slot: int, newest: int) -> Tensor:
        # Oldest first, as LongSANA's authors add. An entry was decayed up to its own last block.
        layout, ring = self.layout, self._tensors["ring"][slot]
        group = newest // layout.window_group
        since = newest % layout.window_group + 1
        total = torch.zeros_like(ring[0])
        for age in reversed(range(min(layout.ring, group + 1))):
            entry = ring[(group - age) % layout.ring]
            commits = since + (age - 1) * layout.window_group if age else 0
            self._fold(total, entry, 1.0, layout.decay**commits)
        return total

    def _fold(self, total: Tensor, part: Tensor, decay: float, weight: float = 1.0) -> None:
        """total = decay total + weight part, the row of k rounded as the layout wants it."""
        if decay != 1:
            total.mul_(decay)
        total.add_(part, alpha=weight)
        if self.layout.key_dtype != torch.float32:
            keys = total[..., -1, :]
            keys.copy_(keys.to(self.layout.key_dtype))


@dataclass(frozen=True)
class StateView:
    """Whose state the rows of one transformer pass read, and which rows write theirs.

    `slots`, `frames` (absolute latent frame of each row's first frame), `blocks` (index of the block that a
    committing row writes) and `commit` have one entry a row; a padding row has slot 0.
    """

    pool: StatePool
    slots: Sequence[int]
    frames: Sequence[int]
    blocks: Sequence[int]
    commit: Sequence[bool]

    @property
    def commits(self) -> list[int]:
        """The rows that write."""
        return [row for row, flag in enumerate(self.commit) if flag]

    def sums(self) -> Tensor:
        """(rows, layers, heads, head_dim + 1, head_dim) float32: what the past adds to a block's own sums."""
        return self.pool.gather("sums", self.slots)

    def tails(self) -> Tensor:
        """(rows, layers, tokens, channels): last frame of each row's past, zeros where there is none."""
        return self.pool.gather("tail", self.slots)

    def write(self, own: Sequence[Tensor], tails: Sequence[Tensor]) -> None:
        """Commit the committing rows, after the whole pass: a pass that fails has written nothing.

        Args:
            own: one (commits, heads, head_dim + 1, head_dim) a layer.
            tails: one (commits, tokens, channels) a layer.
        """
        sums, last = torch.stack(list(own), 1), torch.stack(list(tails), 1)
        for index, row in enumerate(self.commits):
            self.pool.commit(self.slots[row], self.blocks[row], sums[index], last[index])
