"""What a training needs of the machine: it is refused before it starts where there is too little."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from vaelab.core.errors import UserError
from vaelab.core.folders import check_folder, existing_parent
from vaelab.models.networks import Shape
from vaelab.runs.spec import Spec, build_model

__all__ = ["check_resources", "num_parameters"]

BYTES_PER_PARAMETER = 4

COPIES_IN_MEMORY = 4  # weights, gradients and two moments of Adam

COPIES_ON_DISK = 4  # weights, and those of a state with two moments


def num_parameters(spec: Spec, shape: Shape) -> int:
    """The parameters of a model for images of `shape` (C, H, W); the model is not built in memory."""
    with torch.device("meta"):
        model = build_model(spec, shape)
    return sum(parameter.numel() for parameter in model.parameters())


def check_resources(spec: Spec, shape: Shape, out: Path, device: str) -> None:
    """Refuse a training that has no room, before anything is written.

    Args:
        spec: What is trained.
        shape: The shape of an image, (C, H, W).
        out: The folder that receives the run.
        device: The device that it is trained on.

    Raises:
        UserError: The folder cannot be written to, or the model is too large for the memory or the disk.
    """
    check_folder(out, "weights.safetensors")
    num_bytes = BYTES_PER_PARAMETER * num_parameters(spec, shape)
    memory = _memory_bytes()
    if device == "cpu" and memory is not None and COPIES_IN_MEMORY * num_bytes > memory:
        needed = _gigabytes(COPIES_IN_MEMORY * num_bytes)
        raise UserError(
            f"training this model needs at least {needed} of memory, this machine has {_gigabytes(memory)};\n"
            "take a smaller network or latent_dim",
            settings=["latent_dim"],
        )
    folder = existing_parent(out)
    free = shutil.disk_usage(folder).free
    if COPIES_ON_DISK * num_bytes > free:
        needed = _gigabytes(COPIES_ON_DISK * num_bytes)
        raise UserError(
            f"the run needs {needed} on the disk, {folder} has {_gigabytes(free)} free;\n"
            "give another place with --out, or train a smaller network"
        )


def _memory_bytes() -> int | None:
    """The memory of this machine, where the system tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2g} GB" if num_bytes < 1e11 else f"{num_bytes / 1e9:,.0f} GB"
