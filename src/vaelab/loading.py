"""Loading: from what DATA names to `Images`, decoded once and mapped from a cache afterwards.

    find     what DATA names                                                                           -> Source
    build    look at every picture, agree on one shape, decode, hash, write                            -> a cache entry
    load     map the entry, make the splits that the source lacks                                      -> Dataset

The cache is content-addressed: its key hashes names, sizes and times of the files, the settings and the decoder's
version. An entry is written under a temporary name, renamed and never changed; it holds .npy files and one JSON file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.console import notice, progress
from vaelab.errors import UserError
from vaelab.images import Dataset, Images, binarised, make_splits, reduce
from vaelab.pictures import Look, decode, inspect, quiet, reason
from vaelab.sources import SPLITS, Part, Raw, Skipped, Source, find

__all__ = ["SizeError", "describe", "load"]

VERSION = 1  # of the decoding: another number makes every cache entry anew
SIDES = (8, 256)  # pixels a side that the networks are made for

Sides = tuple[int, int] | None  # height and width asked for


class SizeError(UserError):
    """Pictures of several sizes, or of one that no network takes: they must be resized to be trained on."""


def load(
    data: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    validation: float | None = None,
    subset: int | None = None,
    binarise: str | None = None,
) -> Dataset:
    """The images that `data` names, decoded once and mapped from the cache afterwards.

    `size` (a side, or height and width) crops to the centre and resizes; `channels` 1 or 3 overrides what the pictures
    say. A source without a test split gives up 20 % of its pictures for one; `validation` is the fraction of the
    training pictures held out besides, unless the source stores a validation split, which then serves; None means just
    what is stored. Both are drawn by constant seeds, stratified by label, and leave every category a training picture;
    they never depend on a run. `subset` keeps that many pictures for training and validation, evenly over categories.
    `binarise` draws pixels to be black or white by a constant seed; "dynamic" keeps the grey ones for training besides.
    A dataset of the hub is fetched once and stays as it was.
    """
    _check(size, channels, validation)
    sides = (size, size) if isinstance(size, int) else size
    source = find(str(data))
    folder, meta, parts = _cached(source, sides, channels)
    splits, made = make_splits(parts, validation)
    splits = splits if subset is None else reduce(splits, subset)
    splits = splits if binarise is None else binarised(splits, keep=binarise == "dynamic")
    used = sum(entry.stat().st_size for entry in folder.iterdir())
    facts = {**meta["facts"], "splits": made, "bytes": used, "cache": str(folder)}
    skipped = tuple((file, reason) for file, reason in meta["skipped"])
    return Dataset(
        str(data),
        source.location,
        splits,
        meta["fingerprint"],
        skipped,
        tuple(meta["notes"]),
        facts,
        size,
        validation,
        subset,
        binarise,
    )


def describe(dataset: Dataset) -> dict[str, Any]:
    """What is in a dataset, for JSON: counts, shape, sizes, modes, splits, skipped files, duplicates, disk use."""
    facts = dict(dataset.facts)
    made = facts.pop("splits")
    splits = {name: {"n": len(part), "origin": made[name], **_counts(part)} for name, part in dataset.splits.items()}
    head = {"source": dataset.source, "location": dataset.location, "fingerprint": dataset.fingerprint}
    first = next(iter(dataset.splits.values()))
    skipped = [{"file": file, "reason": reason} for file, reason in dataset.skipped]
    body = {"shape": list(first.shape), "categories": list(first.categories), "splits": splits}
    return {**head, **body, **facts, "skipped": skipped, "notes": list(dataset.notes)}


def _counts(images: Images) -> dict[str, Any]:
    if images.labels is None:
        return {}
    labels = images.label()
    counts = np.bincount(labels[labels >= 0], minlength=len(images.categories)).tolist()
    unlabelled = {"unlabelled": n} if (n := int((labels < 0).sum())) else {}
    return {"categories": dict(zip(images.categories, counts, strict=True)), **unlabelled}


def _check(size: int | tuple[int, int] | None, channels: int | None, validation: float | None) -> None:
    for side in (size,) if isinstance(size, int) else size or ():
        if not SIDES[0] <= side <= SIDES[1]:
            raise UserError(f"size must be between {SIDES[0]} and {SIDES[1]} pixels a side, got {side}")
    if channels not in (None, 1, 3):
        raise UserError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
    if validation is not None and not 0 <= validation < 1:
        raise UserError(f"validation is a fraction of the training pictures, at least 0 and below 1, got {validation}")


def _cache() -> Path:
    """$VAELAB_CACHE, else the folder that the platform has for such things."""
    if root := os.environ.get("VAELAB_CACHE"):
        return Path(root).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vaelab" / "Cache"
    default = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "vaelab"


def _cached(source: Source, sides: Sides, channels: int | None) -> tuple[Path, dict[str, Any], dict[str, Images]]:
    """The cache entry of a source: its folder, its facts and its stored splits; built if missing or damaged."""
    from PIL import __version__ as decoder

    key = hashlib.sha256(json.dumps([VERSION, decoder, sides, channels, source.stamp]).encode()).hexdigest()[:32]
    folder = _cache() / key
    for _ in range(3):  # another process may find the same entry damaged and remove it between two lines of ours
        if folder.is_dir():
            try:
                meta = json.loads((folder / "meta.json").read_text())
                return folder, meta, _parts(folder, meta)
            except (OSError, ValueError, KeyError, TypeError) as error:
                notice(f"the cache entry {folder} is damaged ({reason(error)}): decoding again")
                shutil.rmtree(folder, ignore_errors=True)
        _make(folder, source, sides, channels)
    raise UserError(f"the cache entry {folder} cannot be read: remove it, or name another folder by $VAELAB_CACHE")


def _parts(folder: Path, meta: dict[str, Any]) -> dict[str, Images]:
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


def _make(folder: Path, source: Source, sides: Sides, channels: int | None) -> None:
    """Build a cache entry aside and rename it; if another process was faster, its entry stands."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        what = f"the cache folder {folder.parent} cannot be written: {reason(error)}"
        raise UserError(f"{what}\nname another by the environment variable VAELAB_CACHE") from error
    try:
        _build(source, sides, channels, temporary)
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build(source: Source, sides: Sides, channels: int | None, into: Path) -> None:
    """Look at every picture, decode those that can be read, and write the entry."""
    raw, label = source.read(), Path(source.location).name
    kept, looks = _inspect(raw, label)
    if "train" not in kept:
        raise _unreadable(source.location, raw.skipped)
    shape = _shape(looks, source.location, sides, channels)
    with _room(into, sum(len(part.pictures) for part in kept.values()) * (math.prod(shape) + 64)):
        digests = {split: _store(split, part, shape, raw.skipped, into) for split, part in kept.items()}
        if not len(digests["train"]):
            raise _unreadable(source.location, raw.skipped)
        files = {file.name: file.stat().st_size for file in into.iterdir()}
        full = [split for split in digests if len(digests[split])]
        meta: dict[str, Any] = {"splits": full, "categories": raw.categories, "files": files, "skipped": raw.skipped}
        _judge(raw, looks, _parts(into, meta), digests, meta)
        (into / "meta.json").write_text(json.dumps(meta, indent=1))


def _judge(
    raw: Raw, looks: Counter[Look], parts: dict[str, Images], digests: dict[str, np.ndarray], meta: dict[str, Any]
) -> None:
    """Add to an entry's `meta` what can be said of the pictures as a whole: fingerprint, duplicates, notes, facts."""
    splits, made = make_splits(parts, 0.0)
    every = {**parts, **splits}  # a stored validation split counts, whether it is asked for or not
    hashes = {split: digests[split if split in parts else "train"][images.rows] for split, images in every.items()}
    common = _common(splits, hashes)
    meta["fingerprint"] = _fingerprint(every, hashes)
    meta["notes"] = [*raw.notes, *_notes(splits, made, len(common))]
    duplicates = {"count": len(common), "examples": common[:5]}
    meta["facts"] = {**_seen(looks), "other_files": 0, **raw.facts, "duplicates": duplicates}


def _each(
    parts: dict[str, Part], work: Callable[[Any], Any], skipped: Skipped, label: str
) -> Iterator[tuple[str, int, Any]]:
    """Work on every picture, with progress; one that cannot be read is set aside with its reason."""
    done = 0
    with progress(label, sum(len(part.pictures) for part in parts.values())) as advance, quiet():
        for split, part in parts.items():
            for i, picture in enumerate(part.pictures):
                try:
                    result = work(picture)
                except Exception as error:  # damaged files raise nearly anything in Pillow's decoders
                    skipped.append((part.name(split, i), reason(error)))
                else:
                    yield split, i, result
                done += 1
                if done % 100 == 0:
                    advance(done)


def _inspect(raw: Raw, label: str) -> tuple[dict[str, Part], Counter[Look]]:
    """The parts without what cannot be opened or is too small to be meant, and what the other pictures look like."""
    seen = list(_each(raw.parts, inspect, raw.skipped, f"looking at {label}"))
    index: dict[str, list[int]] = {}
    looks: Counter[Look] = Counter()
    least = min(SIDES[0], max((min(look.size) for _, _, look in seen), default=0))
    for split, i, look in seen:
        if min(look.size) < least:
            raw.skipped.append((raw.parts[split].name(split, i), f"too small: {_times(look.size)}"))
        else:
            index.setdefault(split, []).append(i)
            looks[look] += 1
    return {split: raw.parts[split].keep(index[split]) for split in SPLITS if split in index}, looks


def _shape(looks: Counter[Look], where: str, sides: Sides, channels: int | None) -> tuple[int, int, int]:
    """The one shape of all pictures: asked for, or theirs if they agree."""
    channels = channels or (1 if all(look.grey for look in looks) else 3)
    if sides is not None:
        return channels, *sides
    sizes = _seen(looks)["sizes"]
    width, height = next(iter(looks)).size
    remedy = "give --size, such as --size 64, to crop and resize them"
    if len(sizes) > 1:
        text = ", ".join(f"{size} ({n})" for size, n in list(sizes.items())[:6])
        more = f" and {len(sizes) - 6} more" if len(sizes) > 6 else ""
        raise SizeError(f"pictures of several sizes in {where}: {text}{more}, width x height\n{remedy}")
    if min(width, height) < SIDES[0] or max(width, height) > SIDES[1]:
        limits = f"sides must be between {SIDES[0]} and {SIDES[1]}"
        raise SizeError(f"pictures of {width}x{height} in {where}: {limits}\n{remedy}")
    return channels, height, width


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _seen(looks: Counter[Look]) -> dict[str, dict[str, int]]:
    """How many pictures have which size (width x height), mode and format, most frequent first."""
    counts: dict[str, Counter[str]] = {"sizes": Counter(), "modes": Counter(), "formats": Counter()}
    for look, n in looks.items():
        for key, value in zip(counts, (_times(look.size), look.mode, look.format), strict=True):
            counts[key][value] += n
    return {key: dict(counter.most_common()) for key, counter in counts.items()}


def _store(split: str, part: Part, shape: tuple[int, int, int], skipped: Skipped, into: Path) -> np.ndarray:
    """Write the pixels, labels and names of one stored split; returns a hash (16 bytes) of each picture."""
    digests: list[bytes] = []
    kept: list[int] = []

    def decoded() -> Iterator[bytes]:
        for _, i, pixels in _each({split: part}, partial(decode, shape=shape), skipped, f"decoding {split}"):
            kept.append(i)
            digests.append(hashlib.blake2b(pixels, digest_size=16).digest())
            yield pixels.tobytes()

    _write(into / f"{split}.npy", decoded(), len(part.pictures), shape)
    part = part.keep(kept)
    if part.labels is not None:
        np.save(into / f"{split}-labels.npy", part.labels)
    if part.names:
        np.save(into / f"{split}-names.npy", np.array(part.names))
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def _write(path: Path, pictures: Iterable[bytes], most: int, shape: tuple[int, int, int]) -> None:
    # Written, not mapped: a full disk under a writable map kills the process instead of raising. NumPy pads the header
    # so that it keeps its length when the first axis, known only in the end, is filled in.
    header = {"descr": "|u1", "fortran_order": False}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (most, *shape)})
        count = sum(1 for data in pictures if file.write(data))
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, *shape)})
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _room(folder: Path, need: int) -> Iterator[None]:
    """Say so if what is written inside does not fit, beforehand where that can be known."""
    message = f"the decoded pictures need {need:,} bytes in the cache folder {folder.parent}"
    remedy = "make room, or name another folder by the environment variable VAELAB_CACHE"
    if need > (free := shutil.disk_usage(folder).free):
        raise UserError(f"{message}, {free:,} are free\n{remedy}")
    try:
        yield
    except OSError as error:
        raise UserError(f"{message}: {reason(error)}\n{remedy}") from error


def _unreadable(where: str, skipped: Skipped) -> UserError:
    first = f" ({len(skipped)} skipped, the first {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
    return UserError(f"no training picture in {where} can be read{first}")


def _fingerprint(splits: dict[str, Images], hashes: dict[str, np.ndarray]) -> str:
    """Hash of the pixels, labels and categories of each split, in order."""
    total = hashlib.sha256(json.dumps([splits["train"].shape, splits["train"].categories]).encode())
    for split, images in sorted(splits.items()):
        total.update(f"{split} {len(images)}".encode())
        total.update(hashes[split].tobytes())
        total.update(images.label().astype("<i8").tobytes())
    return total.hexdigest()[:32]


def _common(splits: dict[str, Images], hashes: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Names of the test pictures whose pixels stand in the training split as well, each with a name from there."""
    if "test" not in splits:
        return []
    first = {digest.tobytes(): i for i, digest in reversed(list(enumerate(hashes["train"])))}
    tested = enumerate(digest.tobytes() for digest in hashes["test"])
    return [(splits["test"].name(i), splits["train"].name(first[d])) for i, d in tested if d in first]


def _notes(splits: dict[str, Images], made: dict[str, str], common: int) -> list[str]:
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
