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
from vaelab.core.devices import processors
from vaelab.core.errors import UserError
from vaelab.core.files import cache_folder
from vaelab.core.jobs import busy, carry_out
from vaelab.datasets.decoding import Look, decode, inspect, quiet, reason
from vaelab.datasets.images import Images
from vaelab.datasets.sources.raw import SPLITS, Part, Raw, Skipped, Source
from vaelab.datasets.splits import make_splits

__all__ = ["SIDES", "Sides", "SizeError", "cached", "make", "read_parts"]

SIDES = (8, 256)  # pixels a side that the networks are made for

PIECE = 256  # pictures that are worked on together

ALONE = 2.0  # seconds after which other processes are called to help

BLOCK = 4096  # rows that are moved at once

Sides = tuple[int, int] | None  # height and width asked for

Pictures = Sequence[Any] | np.ndarray

Found = dict[tuple[str, int], dict[str, Any]]  # what came of each piece, by split and first picture


class SizeError(UserError):
    """Pictures of several sizes, or of one that no network takes: they must be resized to be trained on."""


def make(folder: Path, source: Source, sides: Sides, channels: int | None) -> None:
    """Build a cache entry beside its place and rename it; where another process builds it, wait for that."""
    from filelock import FileLock, Timeout

    aside = folder.with_name(f".{folder.name}.part")
    try:
        (aside / "marks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the cache folder {folder.parent} cannot be written: {reason(error)}"
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
            _build(source, sides, channels, aside)
        shutil.rmtree(aside / "marks")
        aside.rename(folder)
    except Exception:  # what an interruption leaves is what the next build goes on from
        shutil.rmtree(aside, ignore_errors=True)
        raise
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def read_parts(folder: Path, meta: dict[str, Any]) -> dict[str, Images]:
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


def _build(source: Source, sides: Sides, channels: int | None, into: Path) -> None:
    """Look at every picture, decode those that can be read, and write the entry."""
    raw, label = source.read(), Path(source.location).name
    kept, looks = _inspect(raw, label, into)
    if "train" not in kept:
        raise _unreadable(source.location, raw.skipped)
    shape = _shape(looks, source.location, sides, channels)
    with _room(into, sum(len(part.pictures) for part in kept.values()) * (math.prod(shape) + 64)):
        digests = _store(kept, shape, raw.skipped, into)
        if not len(digests["train"]):
            raise _unreadable(source.location, raw.skipped)
        files = {file.name: file.stat().st_size for file in into.glob("*.npy")}
        full = [split for split in digests if len(digests[split])]
        meta: dict[str, Any] = {"splits": full, "categories": raw.categories, "files": files, "skipped": raw.skipped}
        _judge(raw, looks, read_parts(into, meta), digests, meta)
        with _whole(into / "meta.json") as stored:
            stored.write(json.dumps(meta, indent=1).encode())


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


# Pieces.


def _pieces(
    stage: str, parts: dict[str, Part], call: Callable[[str], Callable[..., Any]], into: Path, label: str
) -> Found:
    """Work on all pictures, piece by piece, with progress: here at first, by all processors where it takes longer."""
    total, done, begun = sum(len(part.pictures) for part in parts.values()), 0, time.monotonic()
    found: Found = {}
    left: list[tuple[tuple[str, int], Callable[[], Any]]] = []
    with progress(label, total) as advance:
        for split, part in parts.items():
            for start in range(0, len(part.pictures), PIECE):
                mark = into / "marks" / f"{stage}-{split}-{start:09d}.json"
                job = partial(_piece, call(split), part.pictures[start : start + PIECE], start, mark)
                if mark.exists() or busy() or processors() == 1 or time.monotonic() - begun < ALONE:
                    found[split, start] = job()
                    done += min(PIECE, len(part.pictures) - start)
                    advance(done)
                else:
                    left.append(((split, start), job))
        for result in carry_out([job for _, job in left], processors()):
            if result.error:
                full = any(f"[Errno {code}]" in result.error for code in (errno.ENOSPC, errno.EDQUOT))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else RuntimeError(result.log)
            found[left[result.job][0]] = result.value
            done += PIECE
            advance(min(done, total))
    return dict(sorted(found.items()))


def _piece(call: Callable[..., dict[str, Any]], pictures: Pictures, start: int, mark: Path) -> dict[str, Any]:
    """What `call` makes of some pictures, or made of them before."""
    if mark.exists():
        return json.loads(mark.read_text())
    with quiet():
        result = call(pictures, start)
    written = mark.with_suffix(".tmp")
    written.write_text(json.dumps(result))
    written.replace(mark)
    return result


def _look(pictures: Pictures, start: int) -> dict[str, Any]:
    """Looks with their counts; apart from these, pictures that cannot be opened, and very small ones."""
    if isinstance(pictures, np.ndarray):
        look = inspect(pictures[0])
        small = [[start + i, look] for i in range(len(pictures))] if min(look.size) < SIDES[0] else []
        return {"bad": [], "small": small, "looks": [] if small else [[look, len(pictures)]]}
    counts: Counter[Look] = Counter()
    small, bad = [], []
    for i, picture in enumerate(pictures, start):
        try:
            look = inspect(picture)
        except Exception as error:  # damaged files raise nearly anything in Pillow's decoders
            bad.append([i, reason(error)])
        else:
            if min(look.size) < SIDES[0]:
                small.append([i, look])
            else:
                counts[look] += 1
    return {"bad": bad, "small": small, "looks": list(counts.items())}


def _decode(pictures: Pictures, start: int, *, shape: tuple[int, int, int], file: Path, offset: int) -> dict[str, Any]:
    """Decode pictures into their rows of an array on disk; gives their digests, and those that cannot be read."""
    pixels, bad = np.zeros((len(pictures), *shape), np.uint8), []
    if isinstance(pictures, np.ndarray) and pictures.dtype == np.uint8 and _plain(pictures, shape):
        pixels[:] = np.moveaxis(pictures.reshape(len(pictures), *shape[1:], shape[0]), 3, 1)
    else:
        for i, picture in enumerate(pictures):
            try:
                pixels[i] = decode(picture, shape)
            except Exception as error:
                bad.append([start + i, reason(error)])
    with file.open("rb+") as stored:  # written, not mapped: a full disk under a map kills the process
        stored.seek(offset + start * math.prod(shape))
        stored.write(pixels.tobytes())
        stored.flush()
        os.fsync(stored.fileno())
    return {
        "bad": bad,
        "digests": "".join(hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in pixels),
    }


def _plain(pictures: np.ndarray, shape: tuple[int, int, int]) -> bool:
    """Whether an array holds pictures just as they are wanted."""
    return pictures.shape[1:] in ((*shape[1:], shape[0]), shape[1:] * (shape[0] == 1))


def _inspect(raw: Raw, label: str, into: Path) -> tuple[dict[str, Part], Counter[Look]]:
    """The parts without what cannot be opened or is too small to be meant, and what the other pictures look like."""
    found = _pieces("look", raw.parts, lambda _: _look, into, f"looking at {label}")
    looks: Counter[Look] = Counter()
    for result in found.values():
        for look, count in result["looks"]:
            looks[_as_look(look)] += count
    small = {(split, i): _as_look(look) for (split, _), result in found.items() for i, look in result["small"]}
    least = SIDES[0] if looks else max((min(look.size) for look in small.values()), default=0)
    dropped: dict[str, dict[int, str]] = {split: {} for split in raw.parts}
    for (split, _), result in found.items():
        dropped[split] |= dict(result["bad"])
    for (split, i), look in small.items():
        if min(look.size) < least:
            dropped[split][i] = f"too small: {_times(look.size)}"
        else:
            looks[look] += 1
    parts = {
        split: _without(split, raw.parts[split], dropped[split], raw.skipped) for split in SPLITS if split in raw.parts
    }
    return {split: part for split, part in parts.items() if len(part.pictures)}, looks


def _as_look(fields: Sequence[Any]) -> Look:
    size, mode, form, grey = fields
    return Look(tuple(size), mode, form, grey)


def _without(split: str, part: Part, dropped: dict[int, str], skipped: Skipped) -> Part:
    """A part without the pictures that are dropped, which are skipped for their reasons."""
    skipped += [(part.name(split, i), dropped[i]) for i in sorted(dropped)]
    return part.keep([i for i in range(len(part.pictures)) if i not in dropped]) if dropped else part


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


def _store(parts: dict[str, Part], shape: tuple[int, int, int], skipped: Skipped, into: Path) -> dict[str, np.ndarray]:
    """Write the pixels, labels and names of the stored splits; gives a hash (16 bytes) of each picture."""
    offsets = {split: _prepare(into / f"{split}.npy", len(part.pictures), shape) for split, part in parts.items()}

    def call(split: str) -> Callable[..., Any]:
        return partial(_decode, shape=shape, file=into / f"{split}.npy", offset=offsets[split])

    found, digests = _pieces("decode", parts, call, into, "decoding"), {}
    for split, part in parts.items():
        mine = [result for (where, _), result in found.items() if where == split]
        dropped = {i: why for result in mine for i, why in result["bad"]}
        rows = np.frombuffer(bytes.fromhex("".join(result["digests"] for result in mine)), np.uint8).reshape(-1, 16)
        kept = _without(split, part, dropped, skipped)
        if dropped:
            left = np.setdiff1d(np.arange(len(rows)), list(dropped))
            rows = rows[left]
            _compact(into / f"{split}.npy", left)
        digests[split] = rows
        if kept.labels is not None:
            np.save(into / f"{split}-labels.npy", kept.labels)
        if kept.names:
            np.save(into / f"{split}-names.npy", np.array(kept.names))
    return digests


def _prepare(file: Path, count: int, shape: tuple[int, int, int]) -> int:
    """An array file with room for so many pictures, if it is not there; gives where the first one stands."""
    if not file.exists():
        with _whole(file) as stored:
            _header(stored, count, shape)
            stored.truncate(stored.tell() + count * math.prod(shape))
    return np.load(file, mmap_mode="r").offset


def _compact(file: Path, kept: np.ndarray) -> None:
    """Leave only some rows in an array file, unless that was done before an interruption."""
    rows = np.load(file, mmap_mode="r")
    if len(rows) > len(kept):
        with _whole(file) as stored:
            _header(stored, len(kept), rows.shape[1:])
            for start in range(0, len(kept), BLOCK):
                stored.write(rows[kept[start : start + BLOCK]].tobytes())


def _header(stored: IO[bytes], count: int, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(stored, header)


@contextmanager
def _whole(file: Path) -> Iterator[IO[bytes]]:
    """Write a file that is there when it is whole."""
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as stored:
        yield stored
        stored.flush()
        os.fsync(stored.fileno())
    temporary.replace(file)


@contextmanager
def _room(folder: Path, need: int) -> Iterator[None]:
    """Say so if what is written inside does not fit, beforehand where that can be known."""
    need -= sum(file.stat().st_blocks * 512 for file in folder.glob("*.npy"))  # there since an interruption
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


VERSION = 1  # of the decoding: another number makes every cache entry anew


def cached(source: Source, sides: Sides, channels: int | None) -> tuple[Path, dict[str, Any], dict[str, Images]]:
    """The cache entry of a source: its folder, its facts and its stored splits; built if missing or damaged."""
    from PIL import __version__ as decoder

    key = hashlib.sha256(json.dumps([VERSION, decoder, sides, channels, source.stamp]).encode()).hexdigest()[:32]
    folder = cache_folder() / key
    for _ in range(3):  # another process may find the same entry damaged and remove it between two lines of ours
        if folder.is_dir():
            try:
                meta = json.loads((folder / "meta.json").read_text())
                return folder, meta, read_parts(folder, meta)
            except (OSError, ValueError, KeyError, TypeError) as error:
                notice(f"the cache entry {folder} is damaged ({reason(error)}): decoding again")
                shutil.rmtree(folder, ignore_errors=True)
        make(folder, source, sides, channels)
    raise UserError(f"the cache entry {folder} cannot be read: remove it, or name another folder by $VAELAB_CACHE")
