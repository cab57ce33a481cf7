"""Several GPUs of one host, one process each: each has its own clips, all have the same weights.

`spawn` starts them; torchrun may do it too. A lone process is one rank, without a group, and nothing here costs it
anything.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn as spawn_processes


class Ranks:
    """This process among those that train together.

    Attributes:
        rank: 0 for the one that decides, saves and speaks.
        count: processes.
    """

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.count == 1 or dist.is_initialized():
            return
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one host
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # What the host must know travels by gloo, so that it never waits for the GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def agree(self, numbers: Sequence[float]) -> list[float]:
        """Return rank 0's `numbers`; every rank must call it equally often."""
        if self.count == 1:
            return list(numbers)
        told = torch.tensor(numbers, dtype=torch.float64)
        dist.broadcast(told, 0)
        return told.tolist()

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite `tensors`, parameters too, by rank 0's."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    @torch.no_grad()
    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the ranks, all in one message; a missing one counts as zero."""
        if self.count == 1:
            return
        wanted = list(parameters)
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in wanted if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat.div_(self.count)
        pieces = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [p.view(g.shape) for p, g in zip(pieces, gradients, strict=True)])

    def close(self) -> None:
        """Leave the group."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _start(rank: int, count: int, port: int, work: Callable[[Any], None], argument: Any) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    work(argument)


def spawn(count: int, work: Callable[[Any], None], argument: Any) -> None:
    """Run `work(argument)` in `count` processes that find each other as `Ranks`; one that fails ends all.

    Args:
        count: processes; 1 runs `work` here.
        work: a function of a module, so that it can be sent.
        argument: what can be pickled.
    """
    if count == 1:
        work(argument)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn_processes(_start, (count, port, work, argument), nprocs=count)
