r"""Ranks: the processes that train one model together, each on its share of every batch.

    gradient of the batch's mean = sum_r (n_r / n) gradient of the mean over the n_r images of rank r

`torchrun` starts them. Each draws the whole batch's order and noise, as a single process does, and takes its share; the
sum over ranks is what a single process computes, to rounding. All hold the same weights; the first one writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vaelab.core.console import is_distributed
from vaelab.core.errors import UserError

__all__ = ["DistributedContext", "distributed_context"]


@dataclass(frozen=True)
class DistributedContext:
    """This process among `size` that train together."""

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1  # how many of them are on this machine

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The part of a batch of `count` images that is this process's; it may be empty."""
        return slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def broadcast(self, value: Any) -> Any:
        """The leader's value, everywhere."""
        if self.world_size == 1:
            return value
        held = [value]
        torch.distributed.broadcast_object_list(held)
        return held[0]

    def any(self, flag: bool) -> bool:
        """Whether it holds for any of the processes."""
        found = torch.tensor(float(flag))
        torch.distributed.all_reduce(found)
        return bool(found)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The leader goes through the block before the others do; what the user has to mend there, all of them say."""
        if not self.is_main and (error := self.broadcast(None)):
            raise UserError(error)
        try:
            yield
        except UserError as error:
            if self.is_main:
                self.broadcast(str(error))
            raise
        if self.is_main:
            self.broadcast(None)

    def all_reduce(self, weight: float, gradients: Sequence[Tensor], scalars: Sequence[Tensor]) -> list[Tensor]:
        """Sum gradients, in place, and scalars over the processes, each times its weight; gives the scalars."""
        parts = [*gradients, *scalars]
        flat = torch.cat([part.detach().float().reshape(-1) for part in parts]) * weight
        torch.distributed.all_reduce(flat)
        summed = flat.split([part.numel() for part in parts])
        for gradient, found in zip(gradients, summed, strict=False):
            gradient.copy_(found.view_as(gradient))
        return [found.view(()) for found in summed[len(gradients) :]]


@cache
def distributed_context() -> DistributedContext:
    """This process among those that `torchrun` started, once it has joined them; alone where it started none."""
    if not is_distributed():
        return DistributedContext()
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo")
    size = distributed.get_world_size()
    return DistributedContext(distributed.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
