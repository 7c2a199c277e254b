"""Work on many pictures in chunks: here at first, on all processors where it takes longer, and resumable.

The result of a chunk is written down before it counts, so that a build that was interrupted or killed goes on where it
was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaelab.core.console import progress
from vaelab.core.errors import UserError
from vaelab.core.jobs import in_worker, run_jobs
from vaelab.datasets.decoding import suppress_warnings
from vaelab.datasets.sources.source import RawSplit

__all__ = ["CHUNK", "ChunkFunction", "ChunkKey", "EncodedImages", "process_chunks"]

CHUNK = 256  # pictures that are worked on together

SINGLE_PROCESS_SECONDS = 2.0  # seconds after which other processes are called to help

EncodedImages = Sequence[Any] | np.ndarray

ChunkFunction = Callable[[EncodedImages, int], dict[str, Any]]  # pictures and the index of the first -> JSON


class ChunkKey(NamedTuple):
    """Which pictures a chunk holds: those of a split from an index on."""

    split: str
    start: int


class Chunk(NamedTuple):
    """A chunk to be worked on, and the file that receives its result."""

    key: ChunkKey
    checkpoint: Path
    length: int
    job: Callable[[], dict[str, Any]]


def process_chunks(
    stage: str,
    raw_splits: dict[str, RawSplit],
    function_for: Callable[[str], ChunkFunction],
    checkpoints: Path,
    label: str,
) -> dict[ChunkKey, dict[str, Any]]:
    """Work on all pictures of all splits, with progress.

    Args:
        stage: The name of the work, which is part of the names of its checkpoints.
        raw_splits: The pictures.
        function_for: Gives the function for a split.
        checkpoints: The folder of the checkpoints.
        label: What is shown to be going on.

    Returns:
        The result of each chunk, in order.

    Raises:
        UserError: A picture cannot be read for a reason that may pass, or there is no room.
    """
    chunks = list(_chunks(stage, raw_splits, function_for, checkpoints))
    total = sum(chunk.length for chunk in chunks)
    num_done, start_time = 0, time.monotonic()
    results: dict[ChunkKey, dict[str, Any]] = {}
    pending: list[Chunk] = []
    with progress(label, total) as advance:
        for chunk in chunks:
            if not _is_worth_sharing(chunk, start_time):
                results[chunk.key] = chunk.job()
                num_done += chunk.length
                advance(num_done)
            else:
                pending.append(chunk)
        for chunk, value in _run_in_workers(pending):
            results[chunk.key] = value
            num_done += chunk.length
            advance(num_done)
    return dict(sorted(results.items()))


def _chunks(
    stage: str, raw_splits: dict[str, RawSplit], function_for: Callable[[str], ChunkFunction], checkpoints: Path
) -> Iterable[Chunk]:
    for split, raw_split in raw_splits.items():
        for start in range(0, len(raw_split.images), CHUNK):
            checkpoint = checkpoints / f"{stage}-{split}-{start:09d}.json"
            images = raw_split.images[start : start + CHUNK]
            job = partial(_process_chunk, function_for(split), images, start, checkpoint)
            yield Chunk(ChunkKey(split, start), checkpoint, len(images), job)


def _is_worth_sharing(chunk: Chunk, start_time: float) -> bool:
    """Whether other processes should work on a chunk: the work takes long, and this chunk is not done yet."""
    if chunk.checkpoint.exists() or in_worker() or _num_processors() == 1:
        return False
    return time.monotonic() - start_time >= SINGLE_PROCESS_SECONDS


def _num_processors() -> int:
    from vaelab.core.devices import num_processors

    return num_processors()


def _run_in_workers(pending: list[Chunk]) -> Iterable[tuple[Chunk, dict[str, Any]]]:
    for result in run_jobs([chunk.job for chunk in pending], _num_processors()):
        if result.is_user_error:
            raise UserError(str(result.error))
        if result.error:
            raise RuntimeError(result.log)
        yield pending[result.job_index], result.value


def _process_chunk(function: ChunkFunction, images: EncodedImages, start: int, checkpoint: Path) -> dict[str, Any]:
    """The result of a chunk, worked out now or read from its checkpoint."""
    try:
        return json.loads(checkpoint.read_text())
    except FileNotFoundError:
        pass
    with suppress_warnings():
        result = function(images, start)
    temporary = checkpoint.with_suffix(".tmp")
    temporary.write_text(json.dumps(result))
    temporary.replace(checkpoint)
    return result
