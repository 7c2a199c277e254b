r"""Processes that train one model together, each on its share of every batch.

    gradient of the mean over n images = sum_r (n_r / n) gradient of the mean over the n_r images of process r

`torchrun` starts the processes. Each of them draws the order and the noise of the whole batch, as a single process
does, and computes its share; the sum over the processes is what a single process computes, to rounding. All hold the
same weights. The main process, of rank 0, writes the files.
"""

from __future__ import annotations

import atexit
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
    """This process among the `world_size` processes that train together.

    Attributes:
        rank: The number of this process, from 0.
        world_size: How many processes train together; 1 where a process trains alone.
        local_world_size: How many of them are on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of a batch of `count` images; it may be empty.

        Example:
            >>> DistributedContext(rank=1, world_size=2).share(5)
            slice(2, 5, None)
        """
        return slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)

    def broadcast(self, value: Any) -> Any:
        """The main process's value, in every process."""
        if self.world_size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any of the processes."""
        if self.world_size == 1:
            return flag
        count = torch.tensor(float(flag))
        torch.distributed.all_reduce(count)
        return bool(count)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process run the block before the others do; a UserError there is raised in all of them."""
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
        """Sum gradients and scalars over the processes, each times the weight of its process.

        Args:
            weight: The weight of this process, its part of the batch.
            gradients: Tensors of any shape; they receive the sums in place.
            scalars: Tensors of shape ().

        Returns:
            The sums of the scalars.
        """
        tensors = [*gradients, *scalars]
        flat = torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors]) * weight
        torch.distributed.all_reduce(flat)
        sums = flat.split([tensor.numel() for tensor in tensors])
        for gradient, gradient_sum in zip(gradients, sums, strict=False):
            gradient.copy_(gradient_sum.view_as(gradient))
        return [scalar_sum.view(()) for scalar_sum in sums[len(gradients) :]]


@cache
def distributed_context() -> DistributedContext:
    """This process among those that `torchrun` started, after it has joined them; alone where there are no others."""
    if not is_distributed():
        return DistributedContext()
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cuda:nccl,cpu:gloo"
    else:
        backend = "gloo"
    distributed.init_process_group(backend)
    # The threads of the group must end before the interpreter does: one that wants its lock later aborts the process.
    atexit.register(distributed.destroy_process_group)
    world_size = distributed.get_world_size()
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return DistributedContext(distributed.get_rank(), world_size, local_world_size)
