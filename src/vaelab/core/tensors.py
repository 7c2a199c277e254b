"""Tensors on disk: safetensors files, written atomically and read safely."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaelab.core.errors import UserError
from vaelab.core.files import DISK_FULL, REPAIR_HINT, atomic_write

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["read_tensors", "write_tensors"]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write tensors and JSON-able metadata as one safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    strings = {name: json.dumps(value, sort_keys=True) for name, value in (metadata or {}).items()}
    with atomic_write(path) as temporary:
        try:
            save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary, strings)
            with temporary.open("rb+") as file:  # weights must outlive a power cut, which a rename alone may not
                os.fsync(file.fileno())
        except SafetensorError as error:  # it hides the system's error in its text
            code = next((c for c in DISK_FULL if f"os error {c}" in str(error)), None)
            raise (OSError(code, os.strerror(code)) if code else error) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file and its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path} is missing: the run has not been trained, or not to its end") from None
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); {REPAIR_HINT}") from None
