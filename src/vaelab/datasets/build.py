"""Building an entry of the cache from the pictures of a source, in chunks, on all processors.

    headers   of every picture: its size, mode and format     -> one shape for all, one range of values
    decode    every picture into its row of one array         -> SPLIT.npy, and a digest of each
    describe  fingerprint, duplicates, what a user should know -> meta.json

An entry is renamed when it is whole, and never changed. A failure of the system that may pass (a disk, memory, a
permission) stops the build and nothing is stored: only a decoder's verdict is remembered.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from vaelab.core.console import count_text, notice, shown
from vaelab.core.errors import UserError
from vaelab.core.files import DISK_FULL, files_in
from vaelab.datasets.chunks import ChunkFunction, ChunkKey, EncodedImages, process_chunks
from vaelab.datasets.decoding import ImageHeader, decode_image, read_header, verdict_text
from vaelab.datasets.depth import ValueRanges, ValueSpan
from vaelab.datasets.entry import EntryMeta, describe_file, read_splits, remember_checked, write_meta
from vaelab.datasets.files import ReadError, error_text
from vaelab.datasets.images import SPLIT_ORDER, DatasetFacts, Duplicates, Examples, Images, kind_differences
from vaelab.datasets.naming import agree, list_text
from vaelab.datasets.ranges import find_ranges
from vaelab.datasets.skipped import SkippedFile
from vaelab.datasets.sources.source import SPLITS, DataSource, RawDataset, RawSplit
from vaelab.datasets.splits import make_splits

__all__ = ["SIDE_LIMITS", "DecodeSettings", "SizeError", "build_entry"]

SIDE_LIMITS = (8, 256)  # pixels a side that the networks are made for

COPY_ROWS = 4096  # rows that are moved at once

MAX_EXAMPLES = 5


class DecodeSettings(NamedTuple):
    """What is asked of the decoder.

    Args:
        sides: Height and width to which pictures are cropped and resized; None for theirs, which must agree.
        channels: 1 or 3; None for what the pictures have.
        value_range: The values that become black and white where there are more than eight bits a channel.
        run_ranges: Those of the data of a run, of "integer" and "floating" values, where no range is given.
    """

    sides: tuple[int, int] | None = None
    channels: int | None = None
    value_range: tuple[float, float] | None = None
    run_ranges: tuple[tuple[str, tuple[float, float]], ...] = ()


class SizeError(UserError):
    """Pictures of several sizes, or of one that no network takes: they must be resized to be trained on."""


class Headers(NamedTuple):
    """What the headers of all pictures say.

    Args:
        raw_splits: The splits without what cannot be opened or is too small to be meant.
        counts: How many pictures have which header.
        spans: The names of pictures with more than eight bits a channel, and of arrays, with their values' range.
        reduced: The names of pictures of whose bits the upper eight alone can be read.
        animated: The names of files with several pictures, of which the first one is read.
        skipped: The pictures left out.
    """

    raw_splits: dict[str, RawSplit]
    counts: Counter[ImageHeader]
    spans: list[tuple[str, ValueSpan]]
    reduced: list[str]
    animated: list[str]
    skipped: list[SkippedFile]


class DecodedSplit(NamedTuple):
    """A split after decoding.

    Args:
        raw_split: Its pictures, without those that cannot be decoded.
        rows: Their rows in the array file, which has room for the others too.
        digests: A hash of each picture, uint8 (n, 16).
        skipped: The pictures left out.
        one_colour: The names of the pictures of one colour.
        messages: What the C library wrote, with the name of the picture.
        brightest: The highest value of all pixels.
    """

    raw_split: RawSplit
    rows: np.ndarray
    digests: np.ndarray
    skipped: list[SkippedFile]
    one_colour: list[str]
    messages: list[tuple[str, str]]
    brightest: int


def build_entry(folder: Path, source: DataSource, settings: DecodeSettings) -> None:
    """Build a cache entry beside its place and rename it; where another process builds it, wait for that.

    Args:
        folder: The place of the entry.
        source: Where the pictures come from.
        settings: How they are decoded.

    Raises:
        UserError: No picture can be read, sizes differ, there is no room, or the system failed to read something.
    """
    from filelock import FileLock, Timeout

    partial_dir = folder.with_name(f".{folder.name}.part")
    with _cache_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notice(f"another process is decoding {source.location}: waiting for it")
            lock.acquire()
    try:
        with _cache_errors(folder.parent):
            if not folder.is_dir():
                _build_in(partial_dir, source, settings)
                partial_dir.rename(folder)
    except Exception:  # what an interruption leaves is what the next build goes on from
        shutil.rmtree(partial_dir, ignore_errors=True)
        raise
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
        with suppress(OSError):
            lock.release()


def _build_in(partial_dir: Path, source: DataSource, settings: DecodeSettings) -> None:
    (partial_dir / "marks").mkdir(parents=True, exist_ok=True)
    if not (partial_dir / "meta.json").exists():  # an interruption may have come after it
        _write_entry(source, settings, partial_dir)
    for leftover in files_in(partial_dir, ".*"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    shutil.rmtree(partial_dir / "marks")


@contextmanager
def _cache_errors(cache_dir: Path) -> Iterator[None]:
    """Turn errors of the system in writing the cache into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(f"no room in the cache folder {cache_dir}: {error_text(error)}\n{ROOM_REMEDY}") from error
        raise UserError(
            f"the cache folder {cache_dir} cannot be written: {error_text(error)}\n"
            "name another by the environment variable VAELAB_CACHE"
        ) from error


ROOM_REMEDY = "make room, or name another folder by the environment variable VAELAB_CACHE"


def _write_entry(source: DataSource, settings: DecodeSettings, partial_dir: Path) -> None:
    """Read every header, decode the pictures that can be read, and write the entry."""
    raw = source.read()
    headers = _collect_headers(raw, Path(source.location).name, partial_dir)
    if "train" not in headers.raw_splits:
        raise _unreadable_error(source.location, [*source.skipped, *headers.skipped])
    shape = _common_shape(headers.counts, source.location, settings)
    is_array = any(isinstance(raw_split.images, np.ndarray) for raw_split in raw.splits.values())
    array_name = shown(source.location) if is_array else None
    found = find_ranges(headers.spans, settings.value_range, array_name, dict(settings.run_ranges))
    num_images = sum(len(raw_split.images) for raw_split in headers.raw_splits.values())
    with _check_disk_space(partial_dir, num_images * (math.prod(shape) + 64)):
        decoded = _decode_splits(headers.raw_splits, shape, found.ranges, partial_dir)
        skipped = headers.skipped + [item for part in decoded.values() for item in part.skipped]
        if not len(decoded["train"].digests):
            raise _unreadable_error(source.location, [*source.skipped, *skipped])
        meta = _entry_meta(raw, headers, decoded, shape, partial_dir)
        notes = [
            *raw.notes,
            *found.notes,
            *_header_notes(headers),
            *_dark_notes(decoded, is_array),
            *meta.notes,
        ]
        facts = replace(meta.facts, value_range=next(iter(found.used.values()), None), value_ranges=found.used)
        meta = replace(meta, skipped=tuple(skipped), notes=tuple(notes), facts=facts)
        remember_checked(partial_dir, meta)
        write_meta(partial_dir / "meta.json", meta)


# Headers.


def _collect_headers(raw: RawDataset, label: str, partial_dir: Path) -> Headers:
    """Read the headers of all pictures, and leave out what cannot be opened or is too small to be meant."""
    results = process_chunks(
        "headers", raw.splits, lambda _: _read_headers, partial_dir / "marks", f"looking at {label}"
    )
    counts: Counter[ImageHeader] = Counter()
    undersized: dict[tuple[str, int], ImageHeader] = {}
    dropped: dict[str, dict[int, str]] = {split: {} for split in raw.splits}
    spans, reduced, animated = [], [], []
    for (split, _), result in results.items():
        spans.extend((raw.splits[split].image_name(split, i), ValueSpan(*span)) for i, span in result["spans"])
        reduced.extend(raw.splits[split].image_name(split, i) for i in result["reduced"])
        animated.extend(raw.splits[split].image_name(split, i) for i in result["animated"])
        dropped[split].update(dict(result["bad"]))
        for header, count in result["headers"]:
            counts[_to_header(header)] += count
        for i, header in result["small"]:
            undersized[split, i] = _to_header(header)
    # Very small pictures are stray ones, unless all pictures are small.
    least = SIDE_LIMITS[0] if counts else max((min(header.size) for header in undersized.values()), default=0)
    for (split, i), header in undersized.items():
        if min(header.size) < least:
            dropped[split][i] = f"too small: {_format_size(header.size)}"
        else:
            counts[header] += 1
    raw_splits, skipped = {}, []
    for split in SPLITS:
        if split in raw.splits:
            kept, left_out = _drop_images(split, raw.splits[split], dropped[split])
            skipped.extend(left_out)
            if len(kept.images):
                raw_splits[split] = kept
    return Headers(raw_splits, counts, spans, reduced, animated, skipped)


def _read_headers(images: EncodedImages, start: int) -> dict[str, Any]:
    """Headers with their counts; apart from these, pictures that cannot be opened, and very small ones."""
    if isinstance(images, np.ndarray):
        return _array_headers(images, start)
    counts: Counter[ImageHeader] = Counter()
    small, bad, spans, reduced, animated = [], [], [], [], []
    for i, image in enumerate(images, start):
        try:
            header, span, is_reduced, has_more_frames = read_header(image)
        except ReadError:
            raise
        except Exception as error:  # damaged files raise nearly anything in Pillow's decoders
            bad.append([i, verdict_text(error)])
            continue
        if min(header.size) < SIDE_LIMITS[0]:
            small.append([i, header])
        else:
            counts[header] += 1
        spans.extend([[i, span]] if span is not None else [])
        reduced.extend([i] if is_reduced else [])
        animated.extend([i] if has_more_frames else [])
    headers = list(counts.items())
    return {"bad": bad, "small": small, "headers": headers, "spans": spans, "reduced": reduced, "animated": animated}


def _array_headers(images: np.ndarray, start: int) -> dict[str, Any]:
    header = read_header(images[0]).header
    is_small = min(header.size) < SIDE_LIMITS[0]
    small = [[start + i, header] for i in range(len(images))] if is_small else []
    headers = [] if is_small else [[header, len(images)]]
    bad, values = [], images
    if images.dtype.kind == "f":
        is_finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
        bad = [[start + int(i), "not finite: values that are no numbers"] for i in np.flatnonzero(~is_finite)]
        values = images[is_finite]
    spans = [[start, _array_span(values)]] if images.dtype not in (np.uint8, np.bool_) and len(values) else []
    return {"bad": bad, "small": small, "headers": headers, "spans": spans, "reduced": [], "animated": []}


def _array_span(values: np.ndarray) -> ValueSpan:
    if values.dtype.kind != "f":
        return ValueSpan("integer", float(values.min()), float(values.max()))
    whole = bool((values == np.rint(values)).all())
    return ValueSpan("floating", float(values.min()), float(values.max()), whole)


def _to_header(values: Sequence[Any]) -> ImageHeader:
    size, mode, form, grey = values
    return ImageHeader(tuple(size), mode, form, grey)


def _drop_images(split: str, raw_split: RawSplit, dropped: Mapping[int, str]) -> tuple[RawSplit, list[SkippedFile]]:
    """A split without some pictures, and these with their reasons."""
    skipped = [SkippedFile(raw_split.image_name(split, i), dropped[i]) for i in sorted(dropped)]
    if not dropped:
        return raw_split, skipped
    return raw_split.select([i for i in range(len(raw_split.images)) if i not in dropped]), skipped


def _common_shape(counts: Counter[ImageHeader], location: str, settings: DecodeSettings) -> tuple[int, int, int]:
    """The one shape (C, H, W) of all pictures: asked for, or theirs if they agree."""
    channels = settings.channels or (1 if all(header.grey for header in counts) else 3)
    if settings.sides is not None:
        return channels, *settings.sides
    sizes = _count_headers(counts).sizes
    width, height = next(iter(counts)).size
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


def _count_headers(counts: Counter[ImageHeader]) -> DatasetFacts:
    """How many pictures have which size (width x height), mode and format, most frequent first."""
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    for header, count in counts.items():
        sizes[_format_size(header.size)] += count
        modes[header.mode] += count
        formats[header.format] += count
    return DatasetFacts(dict(sizes.most_common()), dict(modes.most_common()), dict(formats.most_common()))


# Decoding.


def _decode_splits(
    raw_splits: dict[str, RawSplit], shape: tuple[int, int, int], ranges: ValueRanges, partial_dir: Path
) -> dict[str, DecodedSplit]:
    """Decode all splits and write their pixels, labels, names and attributes."""
    functions: dict[str, ChunkFunction] = {}
    for split, raw_split in raw_splits.items():
        file = partial_dir / f"{split}.npy"
        offset = _allocate_array(file, len(raw_split.images), shape)
        functions[split] = partial(_decode_chunk, shape=shape, ranges=ranges, file=file, offset=offset)
    results = process_chunks("decode", raw_splits, functions.__getitem__, partial_dir / "marks", "decoding")
    decoded = {}
    for split, raw_split in raw_splits.items():
        decoded[split] = _decoded_split(split, raw_split, results)
        _write_columns(split, decoded[split], partial_dir)
    return decoded


def _decode_chunk(
    images: EncodedImages, start: int, *, shape: tuple[int, int, int], ranges: ValueRanges, file: Path, offset: int
) -> dict[str, Any]:
    """Decode pictures into their rows of an array on disk; gives their digests, and what was noticed."""
    pixels = np.zeros((len(images), *shape), np.uint8)
    bad, messages = [], []
    if isinstance(images, np.ndarray) and _is_as_wanted(images, shape, ranges):
        pixels[:] = np.moveaxis(images.reshape(len(images), *shape[1:], shape[0]), 3, 1)
    else:
        for i, image in enumerate(images):
            try:
                pixels[i], message = decode_image(image, shape, ranges, 1 / _num_sharing())
            except ReadError:
                raise
            except Exception as error:  # damaged files raise nearly anything in Pillow's decoders
                bad.append([start + i, verdict_text(error)])
                continue
            if message:
                messages.append([start + i, message])
    _write_rows(file, offset + start * math.prod(shape), pixels)
    digests = "".join(hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in pixels)
    brightest = int(pixels.max(initial=0))
    flat = _flat_rows(pixels, start)
    return {"bad": bad, "digests": digests, "flat": flat, "messages": messages, "brightest": brightest}


def _num_sharing() -> int:
    """The number of processes that may decode at the same time."""
    from vaelab.core.jobs import in_worker

    if not in_worker():
        return 1
    from vaelab.core.devices import num_processors

    return num_processors()


def _is_as_wanted(images: np.ndarray, shape: tuple[int, int, int], ranges: ValueRanges) -> bool:
    """Whether an array holds pictures just as they are wanted."""
    channels, height, width = shape
    if images.dtype != np.uint8 or ranges.byte is not None:
        return False
    if images.shape[1:] == (height, width, channels):
        return True
    return channels == 1 and images.shape[1:] == (height, width)


def _write_rows(file: Path, position: int, pixels: np.ndarray) -> None:
    """Write rows into an array file. They are written, not mapped: a full disk under a map kills the process."""
    try:
        with file.open("rb+") as stream:
            stream.seek(position)
            stream.write(pixels.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(
            f"no room in the cache folder {file.parent.parent}: {error_text(error)}\n{ROOM_REMEDY}"
        ) from error


def _flat_rows(pixels: np.ndarray, start: int) -> list[int]:
    """The indices of the pictures whose pixels all have one colour."""
    flat = pixels.reshape(len(pixels), pixels.shape[1], -1)
    is_flat = (flat == flat[:, :, :1]).all(axis=(1, 2))
    return [start + int(i) for i in np.flatnonzero(is_flat)]


def _decoded_split(split: str, raw_split: RawSplit, results: Mapping[ChunkKey, dict[str, Any]]) -> DecodedSplit:
    """What came of the chunks of a split, together."""
    split_results = [result for key, result in results.items() if key.split == split]
    dropped = {i: reason for result in split_results for i, reason in result["bad"]}
    kept, skipped = _drop_images(split, raw_split, dropped)
    rows = np.setdiff1d(np.arange(len(raw_split.images)), list(dropped)).astype(np.int64)
    digests = np.frombuffer(bytes.fromhex("".join(result["digests"] for result in split_results)), np.uint8)
    one_colour, messages = [], []
    brightest = max((result["brightest"] for result in split_results), default=0)
    for result in split_results:
        one_colour.extend(raw_split.image_name(split, i) for i in result["flat"] if i not in dropped)
        messages.extend((raw_split.image_name(split, i), text) for i, text in result["messages"])
    return DecodedSplit(kept, rows, digests.reshape(-1, 16)[rows], skipped, one_colour, messages, brightest)


def _write_columns(split: str, decoded: DecodedSplit, partial_dir: Path) -> None:
    """Take out the rows that could not be decoded, and write labels, names and attributes."""
    raw_split = decoded.raw_split
    _keep_rows(partial_dir / f"{split}.npy", decoded.rows)
    if raw_split.labels is not None:
        np.save(partial_dir / f"{split}-labels.npy", raw_split.labels)
    if raw_split.names:
        np.save(partial_dir / f"{split}-names.npy", np.array(raw_split.names))
    for i, column in enumerate(raw_split.attributes.values()):
        np.save(partial_dir / f"{split}-attribute-{i}.npy", column)


def _allocate_array(file: Path, count: int, shape: tuple[int, int, int]) -> int:
    """An array file with room for so many pictures, if it is not there; gives where the first one stands."""
    if not file.exists():
        with _atomic(file) as stream:
            _write_npy_header(stream, count, shape)
            stream.truncate(stream.tell() + count * math.prod(shape))
    return np.load(file, mmap_mode="r").offset


def _keep_rows(file: Path, kept_rows: np.ndarray) -> None:
    """Leave only some rows in an array file, unless that was done before an interruption."""
    rows = np.load(file, mmap_mode="r")
    if len(rows) <= len(kept_rows):
        return
    with _atomic(file) as stream:
        _write_npy_header(stream, len(kept_rows), rows.shape[1:])
        for start in range(0, len(kept_rows), COPY_ROWS):
            stream.write(rows[kept_rows[start : start + COPY_ROWS]].tobytes())


def _write_npy_header(stream: IO[bytes], count: int, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(stream, header)


@contextmanager
def _atomic(file: Path) -> Iterator[IO[bytes]]:
    """Write a file that is there when it is whole."""
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


@contextmanager
def _check_disk_space(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Say so if what is written inside does not fit, beforehand where that can be known."""
    needed_bytes -= sum(
        file.stat().st_blocks * 512 for file in files_in(folder, "*.npy")
    )  # there since an interruption
    message = f"the decoded pictures need {needed_bytes:,} bytes in the cache folder {folder.parent}"
    available = shutil.disk_usage(folder).free
    if needed_bytes > available:
        raise UserError(f"{message}, {available:,} are free\n{ROOM_REMEDY}")
    try:
        yield
    except OSError as error:
        raise UserError(f"{message}: {error_text(error)}\n{ROOM_REMEDY}") from error


def _unreadable_error(location: str, skipped: Sequence[SkippedFile]) -> UserError:
    if not skipped:
        return UserError(f"there is no training picture in {shown(location)}")
    first = skipped[0]
    return UserError(
        f"no training picture in {location} can be read "
        f"({len(skipped)} skipped, the first {shown(first.file)}: {first.reason})"
    )


# What can be said of the pictures as a whole.


def _entry_meta(
    raw: RawDataset, headers: Headers, decoded: dict[str, DecodedSplit], shape: tuple[int, int, int], partial_dir: Path
) -> EntryMeta:
    """The content of meta.json: fingerprint, duplicates, notes and facts."""
    full = [split for split in decoded if len(decoded[split].digests)]
    files = {file.name: describe_file(file) for file in files_in(partial_dir, "*.npy")}
    attributes = tuple(decoded["train"].raw_split.attributes)
    facts = replace(_count_headers(headers.counts), columns=raw.columns, attributes=attributes)
    meta = EntryMeta("", tuple(full), shape, raw.categories, files, (), (), facts)
    stored_splits = read_splits(partial_dir, meta)
    splits, origins = make_splits(stored_splits, 0.0)
    all_splits = {**stored_splits, **splits}  # a stored validation split counts, whether it is asked for or not
    hashes = {}
    for split, images in all_splits.items():
        digests = decoded[split if split in stored_splits else "train"].digests
        hashes[split] = digests[images.rows]
    duplicates = _find_duplicates(splits, hashes)
    one_colour = [name for part in decoded.values() for name in part.one_colour]
    messages = [message for part in decoded.values() for message in part.messages]
    notes = [*_dataset_notes(all_splits, origins, duplicates.count), *_pixel_notes(one_colour, messages)]
    return replace(
        meta,
        fingerprint=_fingerprint(all_splits, hashes),
        notes=tuple(notes),
        facts=replace(
            facts,
            duplicates=duplicates,
            one_colour=Examples(len(one_colour), tuple(one_colour[:MAX_EXAMPLES])),
        ),
    )


def _fingerprint(splits: dict[str, Images], hashes: dict[str, np.ndarray]) -> str:
    """Hash of the pixels, labels and categories of each split, in order."""
    total = hashlib.sha256(json.dumps([splits["train"].shape, splits["train"].categories]).encode())
    for split, images in sorted(splits.items()):
        total.update(f"{split} {len(images)}".encode())
        total.update(hashes[split].tobytes())
        total.update(images.label().astype("<i8").tobytes())
    return total.hexdigest()[:32]


def _find_duplicates(splits: dict[str, Images], hashes: dict[str, np.ndarray]) -> Duplicates:
    """The test pictures whose pixels stand in the training split as well, each with a picture from there."""
    if "test" not in splits:
        return Duplicates()
    first_row: dict[bytes, int] = {}
    for i, digest in enumerate(hashes["train"]):
        first_row.setdefault(digest.tobytes(), i)
    pairs = []
    for i, digest in enumerate(hashes["test"]):
        row = first_row.get(digest.tobytes())
        if row is not None:
            pairs.append((splits["test"].name(i), splits["train"].name(row)))
    return Duplicates(len(pairs), tuple(pairs[:MAX_EXAMPLES]))


def _dataset_notes(splits: dict[str, Images], origins: dict[str, str], num_duplicates: int) -> list[str]:
    """What a user should know before trusting numbers that come from these data."""
    notes = []
    test = splits.get("test")
    if test is None:
        notes.append("no picture could be spared for a test split")
    elif origins["test"] != "stored":
        count = count_text(len(test), "picture")
        verb = agree(len(test), "stands", "stand")
        notes.append(f"no test split in the source: {count} ({origins['test']}) {verb} for one")
    notes.extend(f"{difference}: no model is trained on them together" for difference in kind_differences(splits))
    notes.extend(_category_notes(splits))
    if num_duplicates and test is not None:
        count, verb = count_text(len(test), "test picture"), agree(num_duplicates, "stands", "stand")
        notes.append(f"{num_duplicates:,} of {count} {verb} in the training split too")
    return notes


def _category_notes(splits: Mapping[str, Images]) -> list[str]:
    """Notes of unlabelled splits and pictures, and of categories with too few of them."""
    train = splits["train"]
    if not train.categories:
        return []
    unlabelled_splits = [split for split in SPLIT_ORDER if split in splits and (splits[split].label() == -1).all()]
    notes = [f"the {split} split is unlabelled" for split in unlabelled_splits]
    if "train" in unlabelled_splits:
        return notes
    unlabelled, *counts = np.bincount(train.label() + 1, minlength=len(train.categories) + 1).tolist()
    if unlabelled:
        verb = agree(unlabelled, "has", "have")
        notes.append(f"{count_text(unlabelled, 'training picture')} {verb} no label")
    for count, text in ((0, "no training picture"), (1, "one training picture only")):
        names = [name for name, n in zip(train.categories, counts, strict=True) if n == count]
        if names:
            notes.append(f"categories with {text}: {list_text(names)}")
    return notes


def _pixel_notes(one_colour: list[str], messages: list[tuple[str, str]]) -> list[str]:
    notes = []
    if one_colour:
        count, verb = count_text(len(one_colour), "picture"), agree(len(one_colour), "is", "are")
        notes.append(f"{count} {verb} of one colour, such as {shown(one_colour[0])}")
    if messages:
        name, text = messages[0]
        count = count_text(len(messages), "picture")
        notes.append(f"the TIFF library complains about {count}, such as {shown(name)}: {text}")
    return notes


def _header_notes(headers: Headers) -> list[str]:
    """What of the pictures is not read."""
    notes = []
    if headers.reduced:
        count, verb = count_text(len(headers.reduced), "picture"), agree(len(headers.reduced), "has", "have")
        example = shown(headers.reduced[0])
        notes.append(
            f"{count} {verb} more than 8 bits a channel, of which the upper 8 alone are read, such as {example}"
        )
    if headers.animated:
        count, verb = count_text(len(headers.animated), "file"), agree(len(headers.animated), "holds", "hold")
        example = shown(headers.animated[0])
        notes.append(f"{count} {verb} several pictures or pages, of which the first one is read, such as {example}")
    return notes


DARK = 16  # levels of 255 below which pictures are nearly black


def _dark_notes(decoded: Mapping[str, DecodedSplit], is_array: bool) -> list[str]:
    """A note where pictures, all of them, are nearly black: masks with the values 0 and 1, for example."""
    brightest = max(part.brightest for part in decoded.values())
    if not 0 < brightest < DARK:
        return []
    remedy = f": give --value-range, such as 0,{brightest}, if the highest is white" if is_array else ""
    return [f"all pictures are nearly black: no pixel is above {brightest} of 255{remedy}"]
