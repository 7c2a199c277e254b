"""Devices, threads and memory of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from vaelab.core.errors import UserError

__all__ = ["choose_device", "has_bfloat16", "num_processors", "num_threads", "tune_malloc"]


def has_bfloat16(device: str) -> bool:
    """Whether the processor multiplies in bfloat16 itself: emulation would be slower than float32."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    told = getattr(torch.cpu, "get_capabilities", dict)  # not in every release that we admit
    capabilities = told() if device == "cpu" else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def choose_device(device: str | None) -> str:
    """The device asked for, or the fastest there is."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device is None:
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    names = [name for name, is_there in there.items() if is_there]
    names += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if device not in names:
        raise UserError(f'device "{device}" is not on this machine (have: {", ".join(names)})')
    return device


@contextlib.contextmanager
def num_threads(threads: int) -> Iterator[None]:
    """Compute with so many threads, and as before afterwards. Sums round differently with another number of them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tune_malloc() -> None:
    """Let the C library keep what a step frees for the next one: giving it back and faulting it in again costs a fifth.

    Known to glibc alone; it changes speed and never results.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**30)
        mallopt(mmap_threshold, 2**25)  # the largest that it takes


def num_processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
