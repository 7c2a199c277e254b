"""Building: from the pictures of a source to an entry of the cache, in pieces, on all processors.

    look     at the header of every picture: its size, mode and format   -> one shape for all
    decode   every picture into its row of one array                     -> SPLIT.npy, and a digest of each
    judge    fingerprint, duplicates, what a user should know            -> meta.json

What came of a piece is written down before it counts, beside the entry in the making, so that a build that was
interrupted or killed goes on where it was. An entry is renamed when it is whole, and never changed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from vaelab.core.console import notice, progress
from vaelab.core.devices import num_processors
from vaelab.core.errors import UserError
from vaelab.core.files import cache_folder
from vaelab.core.jobs import in_worker, run_jobs
from vaelab.datasets.decoding import ImageHeader, decode_image, error_text, read_header, suppress_warnings
from vaelab.datasets.images import Images
from vaelab.datasets.sources.raw import SPLITS, DataSource, RawDataset, RawSplit, Skipped
from vaelab.datasets.splits import make_splits

__all__ = ["SIDE_LIMITS", "SizeError", "TargetSize", "build_entry", "open_entry", "read_splits"]

SIDE_LIMITS = (8, 256)  # pixels a side that the networks are made for

CHUNK = 256  # pictures that are worked on together

SINGLE_PROCESS_SECONDS = 2.0  # seconds after which other processes are called to help

COPY_ROWS = 4096  # rows that are moved at once

TargetSize = tuple[int, int] | None  # height and width asked for

EncodedImages = Sequence[Any] | np.ndarray

ChunkResults = dict[tuple[str, int], dict[str, Any]]  # what came of each piece, by split and first picture


class SizeError(UserError):
    """Pictures of several sizes, or of one that no network takes: they must be resized to be trained on."""


def build_entry(folder: Path, source: DataSource, sides: TargetSize, channels: int | None) -> None:
    """Build a cache entry beside its place and rename it; where another process builds it, wait for that."""
    from filelock import FileLock, Timeout

    aside = folder.with_name(f".{folder.name}.part")
    try:
        (aside / "marks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the cache folder {folder.parent} cannot be written: {error_text(error)}"
        raise UserError(f"{what}\nname another by the environment variable VAELAB_CACHE") from error
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notice(f"another process is decoding {source.location}: waiting for it")
        lock.acquire()
    try:
        if folder.is_dir():
            shutil.rmtree(aside, ignore_errors=True)  # ours, made after the other process had renamed its own
            return
        (aside / "marks").mkdir(parents=True, exist_ok=True)
        if not (aside / "meta.json").exists():  # an interruption may have come after it
            _write_entry(source, sides, channels, aside)
        shutil.rmtree(aside / "marks")
        aside.rename(folder)
    except Exception:  # what an interruption leaves is what the next build goes on from
        shutil.rmtree(aside, ignore_errors=True)
        raise
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def read_splits(folder: Path, meta: dict[str, Any]) -> dict[str, Images]:
    """The stored splits of an entry, whose files must have the lengths they were written with."""
    for name, length in meta["files"].items():
        if (folder / name).stat().st_size != length:
            raise ValueError(f"{name} has not its {length} bytes")

    def stored(name: str, mode: Any = None) -> np.ndarray | None:
        return np.load(folder / name, mmap_mode=mode) if name in meta["files"] else None

    parts = {}
    for split in meta["splits"]:
        pixels = np.load(folder / f"{split}.npy", mmap_mode="r")
        labels, names = stored(f"{split}-labels.npy"), stored(f"{split}-names.npy", "r")
        parts[split] = Images(pixels, np.arange(len(pixels)), labels, tuple(meta["categories"]), split, names)
    return parts


def _write_entry(source: DataSource, sides: TargetSize, channels: int | None, partial_dir: Path) -> None:
    """Look at every picture, decode those that can be read, and write the entry."""
    raw, label = source.read(), Path(source.location).name
    kept, looks = _collect_headers(raw, label, partial_dir)
    if "train" not in kept:
        raise _unreadable_error(source.location, raw.skipped)
    shape = _common_shape(looks, source.location, sides, channels)
    with _check_disk_space(partial_dir, sum(len(part.images) for part in kept.values()) * (math.prod(shape) + 64)):
        digests = _decode_splits(kept, shape, raw.skipped, partial_dir)
        if not len(digests["train"]):
            raise _unreadable_error(source.location, raw.skipped)
        files = {file.name: file.stat().st_size for file in partial_dir.glob("*.npy")}
        full = [split for split in digests if len(digests[split])]
        meta: dict[str, Any] = {"splits": full, "categories": raw.categories, "files": files, "skipped": raw.skipped}
        _finalise(raw, looks, read_splits(partial_dir, meta), digests, meta)
        with _atomic(partial_dir / "meta.json") as stored:
            stored.write(json.dumps(meta, indent=1).encode())


def _finalise(
    raw: RawDataset,
    headers: Counter[ImageHeader],
    stored_splits: dict[str, Images],
    digests: dict[str, np.ndarray],
    meta: dict[str, Any],
) -> None:
    """Add to an entry's `meta` what can be said of the pictures as a whole: fingerprint, duplicates, notes, facts."""
    splits, made = make_splits(stored_splits, 0.0)
    every = {**stored_splits, **splits}  # a stored validation split counts, whether it is asked for or not
    hashes = {
        split: digests[split if split in stored_splits else "train"][images.rows] for split, images in every.items()
    }
    common = _find_duplicates(splits, hashes)
    meta["fingerprint"] = _fingerprint(every, hashes)
    meta["notes"] = [*raw.notes, *_dataset_notes(splits, made, len(common))]
    duplicates = {"count": len(common), "examples": common[:5]}
    meta["facts"] = {**_count_headers(headers), "other_files": 0, **raw.facts, "duplicates": duplicates}


# Pieces.


def _process_chunks(
    stage: str,
    raw_splits: dict[str, RawSplit],
    function_for: Callable[[str], Callable[..., Any]],
    partial_dir: Path,
    label: str,
) -> ChunkResults:
    """Work on all pictures, piece by piece, with progress: here at first, by all processors where it takes longer."""
    total, done, begun = sum(len(part.images) for part in raw_splits.values()), 0, time.monotonic()
    found: ChunkResults = {}
    left: list[tuple[tuple[str, int], Callable[[], Any]]] = []
    with progress(label, total) as advance:
        for split, part in raw_splits.items():
            for start in range(0, len(part.images), CHUNK):
                mark = partial_dir / "marks" / f"{stage}-{split}-{start:09d}.json"
                job = partial(_process_chunk, function_for(split), part.images[start : start + CHUNK], start, mark)
                if (
                    mark.exists()
                    or in_worker()
                    or num_processors() == 1
                    or time.monotonic() - begun < SINGLE_PROCESS_SECONDS
                ):
                    found[split, start] = job()
                    done += min(CHUNK, len(part.images) - start)
                    advance(done)
                else:
                    left.append(((split, start), job))
        for result in run_jobs([job for _, job in left], num_processors()):
            if result.error:
                full = any(f"[Errno {code}]" in result.error for code in (errno.ENOSPC, errno.EDQUOT))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else RuntimeError(result.log)
            found[left[result.job_index][0]] = result.value
            done += CHUNK
            advance(min(done, total))
    return dict(sorted(found.items()))


def _process_chunk(
    function: Callable[..., dict[str, Any]], pictures: EncodedImages, start: int, checkpoint: Path
) -> dict[str, Any]:
    """What `call` makes of some pictures, or made of them before."""
    if checkpoint.exists():
        return json.loads(checkpoint.read_text())
    with suppress_warnings():
        result = function(pictures, start)
    written = checkpoint.with_suffix(".tmp")
    written.write_text(json.dumps(result))
    written.replace(checkpoint)
    return result


def _read_headers(pictures: EncodedImages, start: int) -> dict[str, Any]:
    """Looks with their counts; apart from these, pictures that cannot be opened, and very small ones."""
    if isinstance(pictures, np.ndarray):
        look = read_header(pictures[0])
        small = [[start + i, look] for i in range(len(pictures))] if min(look.size) < SIDE_LIMITS[0] else []
        return {"bad": [], "small": small, "looks": [] if small else [[look, len(pictures)]]}
    counts: Counter[ImageHeader] = Counter()
    small, bad = [], []
    for i, picture in enumerate(pictures, start):
        try:
            look = read_header(picture)
        except Exception as error:  # damaged files raise nearly anything in Pillow's decoders
            bad.append([i, error_text(error)])
        else:
            if min(look.size) < SIDE_LIMITS[0]:
                small.append([i, look])
            else:
                counts[look] += 1
    return {"bad": bad, "small": small, "looks": list(counts.items())}


def _decode_chunk(
    pictures: EncodedImages, start: int, *, shape: tuple[int, int, int], file: Path, offset: int
) -> dict[str, Any]:
    """Decode pictures into their rows of an array on disk; gives their digests, and those that cannot be read."""
    pixels, bad = np.zeros((len(pictures), *shape), np.uint8), []
    if isinstance(pictures, np.ndarray) and pictures.dtype == np.uint8 and _has_target_layout(pictures, shape):
        pixels[:] = np.moveaxis(pictures.reshape(len(pictures), *shape[1:], shape[0]), 3, 1)
    else:
        for i, picture in enumerate(pictures):
            try:
                pixels[i] = decode_image(picture, shape)
            except Exception as error:
                bad.append([start + i, error_text(error)])
    with file.open("rb+") as stored:  # written, not mapped: a full disk under a map kills the process
        stored.seek(offset + start * math.prod(shape))
        stored.write(pixels.tobytes())
        stored.flush()
        os.fsync(stored.fileno())
    return {
        "bad": bad,
        "digests": "".join(hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in pixels),
    }


def _has_target_layout(pictures: np.ndarray, shape: tuple[int, int, int]) -> bool:
    """Whether an array holds pictures just as they are wanted."""
    return pictures.shape[1:] in ((*shape[1:], shape[0]), shape[1:] * (shape[0] == 1))


def _collect_headers(
    raw: RawDataset, label: str, partial_dir: Path
) -> tuple[dict[str, RawSplit], Counter[ImageHeader]]:
    """The parts without what cannot be opened or is too small to be meant, and what the other pictures look like."""
    found = _process_chunks("look", raw.splits, lambda _: _read_headers, partial_dir, f"looking at {label}")
    looks: Counter[ImageHeader] = Counter()
    for result in found.values():
        for look, count in result["looks"]:
            looks[_to_header(look)] += count
    small = {(split, i): _to_header(look) for (split, _), result in found.items() for i, look in result["small"]}
    least = SIDE_LIMITS[0] if looks else max((min(look.size) for look in small.values()), default=0)
    dropped: dict[str, dict[int, str]] = {split: {} for split in raw.splits}
    for (split, _), result in found.items():
        dropped[split] |= dict(result["bad"])
    for (split, i), look in small.items():
        if min(look.size) < least:
            dropped[split][i] = f"too small: {_format_size(look.size)}"
        else:
            looks[look] += 1
    parts = {
        split: _drop_images(split, raw.splits[split], dropped[split], raw.skipped)
        for split in SPLITS
        if split in raw.splits
    }
    return {split: part for split, part in parts.items() if len(part.images)}, looks


def _to_header(fields: Sequence[Any]) -> ImageHeader:
    size, mode, form, grey = fields
    return ImageHeader(tuple(size), mode, form, grey)


def _drop_images(split: str, raw_split: RawSplit, dropped: dict[int, str], skipped: Skipped) -> RawSplit:
    """A part without the pictures that are dropped, which are skipped for their reasons."""
    skipped += [(raw_split.image_name(split, i), dropped[i]) for i in sorted(dropped)]
    return raw_split.select([i for i in range(len(raw_split.images)) if i not in dropped]) if dropped else raw_split


def _common_shape(
    headers: Counter[ImageHeader], location: str, sides: TargetSize, channels: int | None
) -> tuple[int, int, int]:
    """The one shape of all pictures: asked for, or theirs if they agree."""
    channels = channels or (1 if all(look.grey for look in headers) else 3)
    if sides is not None:
        return channels, *sides
    sizes = _count_headers(headers)["sizes"]
    width, height = next(iter(headers)).size
    remedy = "give --size, such as --size 64, to crop and resize them"
    if len(sizes) > 1:
        text = ", ".join(f"{size} ({n})" for size, n in list(sizes.items())[:6])
        more = f" and {len(sizes) - 6} more" if len(sizes) > 6 else ""
        raise SizeError(f"pictures of several sizes in {location}: {text}{more}, width x height\n{remedy}")
    if min(width, height) < SIDE_LIMITS[0] or max(width, height) > SIDE_LIMITS[1]:
        limits = f"sides must be between {SIDE_LIMITS[0]} and {SIDE_LIMITS[1]}"
        raise SizeError(f"pictures of {width}x{height} in {location}: {limits}\n{remedy}")
    return channels, height, width


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _count_headers(headers: Counter[ImageHeader]) -> dict[str, dict[str, int]]:
    """How many pictures have which size (width x height), mode and format, most frequent first."""
    counts: dict[str, Counter[str]] = {"sizes": Counter(), "modes": Counter(), "formats": Counter()}
    for look, n in headers.items():
        for key, value in zip(counts, (_format_size(look.size), look.mode, look.format), strict=True):
            counts[key][value] += n
    return {key: dict(counter.most_common()) for key, counter in counts.items()}


def _decode_splits(
    raw_splits: dict[str, RawSplit], shape: tuple[int, int, int], skipped: Skipped, partial_dir: Path
) -> dict[str, np.ndarray]:
    """Write the pixels, labels and names of the stored splits; gives a hash (16 bytes) of each picture."""
    offsets = {
        split: _allocate_array(partial_dir / f"{split}.npy", len(part.images), shape)
        for split, part in raw_splits.items()
    }

    def call(split: str) -> Callable[..., Any]:
        return partial(_decode_chunk, shape=shape, file=partial_dir / f"{split}.npy", offset=offsets[split])

    found, digests = _process_chunks("decode", raw_splits, call, partial_dir, "decoding"), {}
    for split, part in raw_splits.items():
        mine = [result for (where, _), result in found.items() if where == split]
        dropped = {i: why for result in mine for i, why in result["bad"]}
        rows = np.frombuffer(bytes.fromhex("".join(result["digests"] for result in mine)), np.uint8).reshape(-1, 16)
        kept = _drop_images(split, part, dropped, skipped)
        if dropped:
            left = np.setdiff1d(np.arange(len(rows)), list(dropped))
            rows = rows[left]
            _keep_rows(partial_dir / f"{split}.npy", left)
        digests[split] = rows
        if kept.labels is not None:
            np.save(partial_dir / f"{split}-labels.npy", kept.labels)
        if kept.names:
            np.save(partial_dir / f"{split}-names.npy", np.array(kept.names))
    return digests


def _allocate_array(file: Path, count: int, shape: tuple[int, int, int]) -> int:
    """An array file with room for so many pictures, if it is not there; gives where the first one stands."""
    if not file.exists():
        with _atomic(file) as stored:
            _write_npy_header(stored, count, shape)
            stored.truncate(stored.tell() + count * math.prod(shape))
    return np.load(file, mmap_mode="r").offset


def _keep_rows(file: Path, kept_rows: np.ndarray) -> None:
    """Leave only some rows in an array file, unless that was done before an interruption."""
    rows = np.load(file, mmap_mode="r")
    if len(rows) > len(kept_rows):
        with _atomic(file) as stored:
            _write_npy_header(stored, len(kept_rows), rows.shape[1:])
            for start in range(0, len(kept_rows), COPY_ROWS):
                stored.write(rows[kept_rows[start : start + COPY_ROWS]].tobytes())


def _write_npy_header(stored: IO[bytes], count: int, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(stored, header)


@contextmanager
def _atomic(file: Path) -> Iterator[IO[bytes]]:
    """Write a file that is there when it is whole."""
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as stored:
        yield stored
        stored.flush()
        os.fsync(stored.fileno())
    temporary.replace(file)


@contextmanager
def _check_disk_space(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Say so if what is written inside does not fit, beforehand where that can be known."""
    needed_bytes -= sum(file.stat().st_blocks * 512 for file in folder.glob("*.npy"))  # there since an interruption
    message = f"the decoded pictures need {needed_bytes:,} bytes in the cache folder {folder.parent}"
    remedy = "make room, or name another folder by the environment variable VAELAB_CACHE"
    if needed_bytes > (free := shutil.disk_usage(folder).free):
        raise UserError(f"{message}, {free:,} are free\n{remedy}")
    try:
        yield
    except OSError as error:
        raise UserError(f"{message}: {error_text(error)}\n{remedy}") from error


def _unreadable_error(location: str, skipped: Skipped) -> UserError:
    first = f" ({len(skipped)} skipped, the first {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
    return UserError(f"no training picture in {location} can be read{first}")


def _fingerprint(splits: dict[str, Images], hashes: dict[str, np.ndarray]) -> str:
    """Hash of the pixels, labels and categories of each split, in order."""
    total = hashlib.sha256(json.dumps([splits["train"].shape, splits["train"].categories]).encode())
    for split, images in sorted(splits.items()):
        total.update(f"{split} {len(images)}".encode())
        total.update(hashes[split].tobytes())
        total.update(images.label().astype("<i8").tobytes())
    return total.hexdigest()[:32]


def _find_duplicates(splits: dict[str, Images], hashes: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Names of the test pictures whose pixels stand in the training split as well, each with a name from there."""
    if "test" not in splits:
        return []
    first = {digest.tobytes(): i for i, digest in reversed(list(enumerate(hashes["train"])))}
    tested = enumerate(digest.tobytes() for digest in hashes["test"])
    return [(splits["test"].name(i), splits["train"].name(first[d])) for i, d in tested if d in first]


def _dataset_notes(splits: dict[str, Images], made: dict[str, str], common: int) -> list[str]:
    """What a user should know before trusting numbers that come from these data."""
    notes = []
    train, test = splits["train"], splits.get("test")
    if test is None:
        notes.append("no picture could be spared for a test split")
    elif made["test"] != "stored":
        notes.append(f"no test split in the source: {len(test)} pictures ({made['test']}) stand for one")
    unlabelled, *counts = np.bincount(train.label() + 1, minlength=len(train.categories) + 1).tolist()
    if train.categories and unlabelled:
        notes.append(f"{unlabelled} training pictures have no label")
    for n, text in ((0, "no training picture"), (1, "one training picture only")):
        if names := [name for name, count in zip(train.categories, counts, strict=True) if count == n]:
            notes.append(f"categories with {text}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}")
    if common:
        notes.append(f"{common} of {len(test or ())} test pictures stand in the training split too")
    return notes


CACHE_VERSION = 1  # of the decoding: another number makes every cache entry anew


def open_entry(
    source: DataSource, sides: TargetSize, channels: int | None
) -> tuple[Path, dict[str, Any], dict[str, Images]]:
    """The cache entry of a source: its folder, its facts and its stored splits; built if missing or damaged."""
    from PIL import __version__ as decoder

    key = hashlib.sha256(
        json.dumps([CACHE_VERSION, decoder, sides, channels, source.cache_key_parts]).encode()
    ).hexdigest()[:32]
    folder = cache_folder() / key
    for _ in range(3):  # another process may find the same entry damaged and remove it between two lines of ours
        if folder.is_dir():
            try:
                meta = json.loads((folder / "meta.json").read_text())
                return folder, meta, read_splits(folder, meta)
            except (OSError, ValueError, KeyError, TypeError) as error:
                notice(f"the cache entry {folder} is damaged ({error_text(error)}): decoding again")
                shutil.rmtree(folder, ignore_errors=True)
        build_entry(folder, source, sides, channels)
    raise UserError(f"the cache entry {folder} cannot be read: remove it, or name another folder by $VAELAB_CACHE")
