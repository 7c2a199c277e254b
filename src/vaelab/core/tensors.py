"""Tensors on disk: safetensors files, written whole or not at all, and read safely."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaelab.core.errors import UserError
from vaelab.core.files import atomic_write, content_digest, damaged_error, read_bytes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["parse_tensors", "read_tensors", "tensor_digest", "write_tensors"]

DIGEST = "digest"  # the name in the metadata under which a file holds the digest of its content

HEADER_LENGTH_BYTES = 8


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None, *, with_digest: bool = False
) -> None:
    """Write tensors and metadata as one safetensors file.

    Args:
        path: The file.
        tensors: The tensors by name.
        metadata: Values by name, each of which JSON can hold.
        with_digest: Whether the file holds a digest of its content, so that `read_tensors` notices any change. Files
            whose digest is stored elsewhere do without.

    Raises:
        UserError: The file cannot be written.
    """
    from safetensors.torch import save

    strings = {name: json.dumps(value, sort_keys=True) for name, value in (metadata or {}).items()}
    plain_tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(plain_tensors, strings)
    if with_digest:
        content = save(plain_tensors, strings | {DIGEST: _own_digest(content)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file by name, and its metadata.

    Raises:
        UserError: The file is missing, cannot be read or is damaged.
    """
    if not path.exists() and not path.is_symlink():
        raise UserError(f"{path} is missing: the run has not been trained, or not to its end")
    return parse_tensors(read_bytes(path), path)


def parse_tensors(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata in the content of a safetensors file.

    Args:
        content: The bytes.
        path: The file that they come from, for the error.

    Raises:
        UserError: The content is damaged, or has changed since it was written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        strings = dict(_header(content).get("__metadata__") or {})
        stored_digest = strings.pop(DIGEST, None)
        metadata = {name: json.loads(text) for name, text in strings.items()}
    except (SafetensorError, ValueError, RuntimeError, KeyError, RecursionError, MemoryError) as error:
        raise damaged_error(path, " ".join(str(error).split())[:100]) from None
    if stored_digest is not None and stored_digest != _own_digest(content):
        raise damaged_error(path, "its content has changed since it was written")
    return tensors, metadata


def tensor_digest(tensor: Tensor) -> str:
    """A short hash of a tensor's type, shape and values."""
    from safetensors.torch import save

    return content_digest(save({"tensor": tensor.detach().cpu().contiguous()}))


def _own_digest(content: bytes) -> str:
    """The digest of tensors and metadata, without the stored digest and whatever the order of the header."""
    header = _header(content)
    header["__metadata__"] = {n: text for n, text in (header.get("__metadata__") or {}).items() if n != DIGEST}
    canonical = json.dumps(header, sort_keys=True).encode()
    return content_digest(canonical + content[_header_end(content) :])


def _header(content: bytes) -> dict[str, Any]:
    """What a safetensors file says of its tensors, and its metadata."""
    return json.loads(content[HEADER_LENGTH_BYTES : _header_end(content)])


def _header_end(content: bytes) -> int:
    """Where the values begin."""
    return HEADER_LENGTH_BYTES + int.from_bytes(content[:HEADER_LENGTH_BYTES], "little")
