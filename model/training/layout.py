"""Where the rows of a training pass stand: which rows' sums each reads and which are its neighbours in time.

Laying out costs the host little: a few vectors a row. The matrix of who reads whom is made where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

ALL_BLOCKS = 2**30


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on `device`, without waiting for the work that a GPU has to do first."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Layout:
    """Rows, one latent frame each, clean ones first.

    Attributes:
        clean: number of clean rows.
        window: blocks that a block reads back.
        table: `(6, rows)` int64, see the properties below.
        columns: `(3, columns)` clip, block and copy of the rows that can be read.
    """

    clean: int
    window: int
    table: Tensor
    columns: Tensor

    @property
    def left(self) -> Tensor:
        """`(rows,)` the column to the left in time; the number of columns means none."""
        return self.table[0]

    @property
    def right(self) -> Tensor:
        """`(rows,)` the column to the right in time, like `left`."""
        return self.table[1]

    @property
    def frame(self) -> Tensor:
        """`(rows,)` absolute latent frame."""
        return self.table[2]

    @property
    def clip(self) -> Tensor:
        """`(rows,)` index of the row's clip; -1 for filler."""
        return self.table[3]

    @property
    def block(self) -> Tensor:
        """`(rows,)` index of the row's block in its clip."""
        return self.table[4]

    @property
    def copy(self) -> Tensor:
        """`(rows,)` index of the noisy copy; -1 for clean rows."""
        return self.table[5]

    @property
    def rows(self) -> int:
        """Number of rows, clean and noisy."""
        return self.table.shape[1]

    @cached_property
    def reads(self) -> Tensor:
        """`(rows, columns)` float32, 1 where a row reads that row's sums: its own block's, and clean ones of the
        past."""
        clip, block, copy = self.table[3:, :, None]
        other_clip, other_block, other_copy = self.columns[:, None]
        distance = block - other_block
        own = (distance == 0) & (copy == other_copy)
        past = (distance > 0) & (distance <= self.window) & (other_copy == -1)
        return ((clip == other_clip) & (own | past)).float()

    @cached_property
    def there(self) -> Tensor:
        """`(2, rows, 1, 1)` whether a row has a left, and a right, neighbour."""
        return (self.table[:2] < self.columns.shape[1])[..., None, None]

    def to(self, device: torch.device) -> Layout:
        """Return the same layout on `device`."""
        return replace(self, table=send(self.table, device), columns=send(self.columns, device))

    def padded(self, rows: int) -> Layout:
        """Return the layout with filler rows at the end that read nothing, `rows` in all.

        Raises:
            ValueError: it has more rows already.
        """
        more = rows - self.rows
        if more < 0:
            raise ValueError(f"the layout has {self.rows} rows, more than {rows}")
        nothing = self.columns.shape[1]
        around = self.table[:2]
        around = F.pad(torch.where(around == nothing, nothing + more, around), (0, more), value=nothing + more)
        place = F.pad(self.table[2:], (0, more))
        place[1, self.rows :] = -1
        columns = F.pad(self.columns, (0, more), value=-2)
        return replace(self, table=torch.cat([around, place]), columns=columns)

    def kept(self, mask: Tensor) -> Layout:
        """Return the rows where `mask` `(rows,)` holds; it must hold for all clean rows and for whole blocks."""
        keep = mask.nonzero().flatten()
        number = torch.full((self.rows + 1,), len(keep))
        number[keep] = torch.arange(len(keep))
        table = self.table[:, keep]
        table[:2] = number[table[:2]]
        return replace(self, table=table, columns=self.columns[:, keep])

    def clean_part(self) -> Layout:
        """Return the clean rows alone."""
        n = self.clean
        table = self.table[:, :n].clone()
        table[:2] = table[:2].clamp(max=n)
        return replace(self, table=table, columns=self.columns[:, :n])

    def noisy_part(self) -> Layout:
        """Return the noisy rows alone. `reads` and the neighbours still count from the first clean row on: the
        clean rows come from a `Past`."""
        return replace(self, table=self.table[:, self.clean :])


def clip_layout(lengths: Sequence[Sequence[int]] | Tensor, copies: int, window: int | None) -> Layout:
    """Lay out `copies` noisy copies of clips.

    Rows are ordered (clean: clip, frame), then (noisy: copy, clip, frame). A clip's last block needs no clean rows:
    nobody reads them.

    Args:
        lengths: `(clips, blocks)` latent frames of each block, on the CPU; all clips have as many in all.
        copies: noisy copies of each clip.
        window: blocks that a block reads back; None for all.
    """
    lengths = torch.as_tensor(lengths)
    clips, blocks = lengths.shape
    frames = int(lengths[0].sum())
    block = torch.repeat_interleave(torch.arange(blocks).repeat(clips), lengths.flatten()).view(clips, frames)
    clip = torch.arange(clips)[:, None].expand(clips, frames)
    frame = torch.arange(frames).expand(clips, frames)
    kept = (block < blocks - 1).flatten()

    def rows_of(t: Tensor) -> Tensor:
        flat = t.flatten()
        return torch.cat([flat[kept], flat.repeat(copies)])

    row_clip, row_block, row_frame = rows_of(clip), rows_of(block), rows_of(frame)
    clean = int(kept.sum())
    copy = F.pad(torch.arange(copies).repeat_interleave(clips * frames), (clean, 0), value=-1)
    nothing = len(row_clip)
    # Position of each (clip, frame) among the clean rows; those of last blocks are never asked for.
    at = torch.cumsum(kept, 0).sub(1).view(clips, frames)
    number = torch.arange(nothing)
    starts = F.pad(row_block[1:] != row_block[:-1], (1, 0), value=True) | (row_frame == 0)
    ends = F.pad(starts[1:], (0, 1), value=True)
    before = torch.where(row_frame == 0, nothing, at[row_clip, (row_frame - 1).clamp(min=0)])
    left = torch.where(starts, before, number - 1)
    right = torch.where(ends, nothing, number + 1)
    table = torch.stack([left, right, row_frame, row_clip, row_block, copy])
    return Layout(clean, ALL_BLOCKS if window is None else window, table, table[3:])
