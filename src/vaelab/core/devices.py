"""Devices, threads and memory of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from vaelab.core.errors import UserError

__all__ = ["check_threads", "choose_device", "has_bfloat16", "num_processors", "num_threads", "tune_malloc"]

BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")

AMPERE = 8  # major compute capability of the first NVIDIA GPUs with bfloat16

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # processor time that a container may use: "quota period" or "max period"


def has_bfloat16(device: str) -> bool:
    """Whether the processor itself multiplies in bfloat16: where it is emulated, float32 is faster."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= AMPERE
    if device != "cpu":
        return False
    get_capabilities = getattr(torch.cpu, "get_capabilities", dict)  # not in every release that we admit
    capabilities = get_capabilities()
    return any(capabilities.get(name, False) for name in BFLOAT16_FEATURES)


def choose_device(device: str | None) -> str:
    """The device asked for, or the fastest of this machine.

    Args:
        device: cpu, cuda, cuda:1, mps, ... or None.

    Raises:
        UserError: This machine does not have the device.

    Example:
        >>> choose_device("cpu")
        'cpu'
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device is None:
        return available[0]
    numbered = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if device not in (*available, *numbered):
        raise UserError(f'device "{device}" is not on this machine (have: {", ".join([*available, *numbered])})')
    return device


def check_threads(threads: int) -> int:
    """The number of threads, if it is one that this machine can use.

    Raises:
        UserError: It is below 1, or above the number of processors.
    """
    if not 1 <= threads <= num_processors():
        raise UserError(f"threads must be from 1 to {num_processors()}, the processors of this machine, got {threads}")
    return threads


@contextlib.contextmanager
def num_threads(threads: int) -> Iterator[None]:
    """Compute with this many threads inside the block. Sums are rounded differently with another number of them."""
    previous = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def tune_malloc() -> None:
    """Let the C library keep the memory that a step frees for the next step.

    Returning it to the system and getting it again costs a fifth of a small step. Only glibc has the two settings. They
    change the speed and never the results.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the largest value that it accepts


def num_processors() -> int:
    """How many processors this process may use: by its affinity and, in a container, by its quota of processor time."""
    processors = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    return max(1, min(processors, _processor_quota() or processors))


def _processor_quota() -> int | None:
    """Whole processors that the container's quota amounts to; None without a quota."""
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
        return int(quota) // int(period)
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return None
