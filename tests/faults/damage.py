"""Damage to stored files, and what the verbs make of it.

    place   a finished run, an unfinished one, a study, the cache: a scenario's folder and the verbs that read it
    damage  bytes: cut, flipped, emptied, swapped with another of its kind, missing, a folder, a pipe
            shapes: JSON, its lines, tensors and arrays that are read without complaint and mean something else

Came of it: `same` (to the byte, what the undamaged files give), `noticed` (status 0 with a notice, or 3), `refused`
(status 2). A fault is `silent` (another number or picture, and nothing said), `traceback`, `status` or `hang`.
"""

import json
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness import STUDYING, TRAIN, Scenario, Templates, faults, outcome_words, plain, same_bytes

SORTS = ("same", "noticed", "refused", "silent", "traceback", "status", "hang")
FINE = SORTS[:3]
PATIENCE = 25  # seconds; the slowest verb takes five
FLIPPED = (0.0, 0.25, 0.5, 0.75, 1.0)


# Bytes. A damage gives new content, from the content and that of another file of its kind.


def flipped(content, part, bit=0):
    at = min(int(part * len(content)), len(content) - 1)
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def of_bytes(content, other):
    yield "cut to half", content[: len(content) // 2]
    yield "cut by a byte", content[:-1]
    yield "empty", b""
    yield "bytes after its end", content + b"\0" * 16
    yield "noise", bytes(i * 97 % 251 for i in range(len(content)))
    for part in FLIPPED:
        yield f"flipped at {part:.0%}", flipped(content, part)
        yield f"flipped high at {part:.0%}", flipped(content, part, 6)
    if other is not None and other != content:
        yield "swapped", other


# Shapes.

DEEP = b"[" * 100_000 + b"]" * 100_000
WRONG = {dict: [], list: {}, str: 7, int: "seven", float: "seven", bool: "yes", type(None): {"a": [1]}}


def places(value, depth=0, at=()):
    """The ways to fields within a JSON value, deeper ones in part."""
    if at:
        yield at
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for name, child in inner if depth < 2 else inner[:2]:
        if depth < 5:
            yield from places(child, depth + 1, (*at, name))


def altered(value, at, change):
    """A copy of a JSON value in which `change(holder, name)` was done at a place."""
    copy = json.loads(json.dumps(value))
    holder = copy
    for name in at[:-1]:
        holder = holder[name]
    change(holder, at[-1])
    return copy


def of_json(value):
    """Other JSON values in its place, by name."""
    yield "null", b"null"
    yield "a list", b"[]"
    yield "an empty object", b"{}"
    yield "a text", b'"text"'
    yield "a number", b"7"
    yield "nested deeply", DEEP
    yield "not UTF-8", b'{"a": "\xff"}'
    yield "NaN", b'{"a": NaN}'
    for at in places(value):
        found = value
        for name in at:
            found = found[name]
        path = ".".join(map(str, at))
        told = {"null": None, "wrong": WRONG[type(found)]}
        if type(found) in (int, float):
            told |= {"negative": -found - 1, "huge": 10**30, "another": found + 1}
        if isinstance(found, str):
            told["another"] = "other"
        for what, put in told.items():
            changed = altered(value, at, lambda holder, name, put=put: holder.__setitem__(name, put))
            yield f"{path} {what}", json.dumps(changed).encode()
        yield f"{path} removed", json.dumps(altered(value, at, lambda holder, name: holder.pop(name))).encode()
    if isinstance(value, dict):
        yield "a field more", json.dumps(value | {"more": 1}).encode()


def of_lines(content):
    rows = content.splitlines()
    yield "first line lost", b"".join(row + b"\n" for row in rows[1:])
    yield "last line lost", b"".join(row + b"\n" for row in rows[:-1])
    yield "a line twice", b"".join(row + b"\n" for row in [*rows, rows[-1]])
    for name, line in of_json(json.loads(rows[0])):
        yield f"line 1: {name}", b"\n".join([line, *rows[1:]]) + b"\n"


def of_tensors(content, limit=4):
    size = struct.unpack("<Q", content[:8])[0]
    head, body = json.loads(content[8 : 8 + size]), content[8 + size :]

    def with_head(changed):
        text = json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + body

    yield "header nested deeply", struct.pack("<Q", len(DEEP)) + DEEP + body
    yield "header null", struct.pack("<Q", 4) + b"null" + body
    yield "header longer than the file", struct.pack("<Q", 2**40) + content[8:]
    yield "NaN", content[: 8 + size] + struct.pack("<f", float("nan")) + body[4:]
    yield "infinite", content[: 8 + size] + struct.pack("<f", float("inf")) + body[4:]
    names = [name for name in head if name != "__metadata__"]
    for name in names[:limit]:
        yield f"{name} removed", with_head({n: v for n, v in head.items() if n != name})
        yield f"{name} of type I32", with_head(head | {name: head[name] | {"dtype": "I32"}})
        yield f"{name} flat", with_head(head | {name: head[name] | {"shape": [math_prod(head[name]["shape"])]}})
        yield f"{name} renamed", with_head({n if n != name else "other": v for n, v in head.items()})
    for name, text in head.get("__metadata__", {}).items():
        for put in ("null", "[]", '"text"', "-1", "1e999", "[1, 8, 9]", "{", text + "0"):
            yield f"metadata {name} {put}", with_head(head | {"__metadata__": head["__metadata__"] | {name: put}})
    yield "no metadata", with_head({n: v for n, v in head.items() if n != "__metadata__"})


def math_prod(shape):
    total = 1
    for side in shape:
        total *= side
    return total


def of_array(content):
    """Another header of the same length before the same values."""
    size = 10 + struct.unpack("<H", content[8:10])[0]
    head, body = content[:size], content[size:]
    for old, new in ((b"|u1", b"|i1"), (b"|u1", b"|b1"), (b"<i8", b"<f8"), (b"<i8", b"<u8"), (b"False", b"True "),
                     (b"'|u1'", b"'|O' "), (b"'<i8'", b"'|O' "), (b"shape", b"shpae")):  # fmt: skip
        if old in head:
            yield f"header {old.decode()} -> {new.decode()}", head.replace(old, new) + body
    if shape := re.search(rb"\((\d+)", head):
        n = shape[1]
        for new in (b"-" + n[1:], b"9" * len(n), b"0" * (len(n) - 1) + b"1"):
            yield f"header of {new.decode()}", head.replace(b"(" + n, b"(" + new, 1) + body


def of_text(content):
    """A study file that says something else."""
    yield "a seed more", content.replace(b"seeds = 2", b"seeds = 3")
    yield "another expectation", content.replace(b"lowest:setting=3", b"highest:setting=3")
    yield "an unknown field", content + b"\nunknown = 1\n"
    yield "nested deeply", b"a = " + DEEP


def damages(name, content, other):
    """Every damage to a file of this name: (its name, new content)."""
    yield from of_bytes(content, other)
    match Path(name).suffix:
        case ".json":
            yield from of_json(json.loads(content))
        case ".jsonl":
            yield from of_lines(content)
        case ".safetensors":
            yield from of_tensors(content)
        case ".npy":
            yield from of_array(content)
        case ".toml":
            yield from of_text(content)


SPECIAL = ("missing", "a folder", "a pipe", "a link to itself")


@dataclass(frozen=True, eq=False)
class Place:
    """Stored files, and the verbs that read them: each with what it writes, as patterns below the folder."""

    name: str
    scenario: Scenario
    verbs: dict[str, tuple[list[str], list[str]]]

    @cache  # noqa: B019
    def reference(self, verb):
        """What a verb says and writes where nothing is damaged."""
        self.scenario.fresh()
        outcome = self.carry_out(verb)
        assert outcome.status == 0, outcome
        return said(outcome.out), outcome.err, self.written(verb)

    def carry_out(self, verb):
        return self.scenario.server(self.verbs[verb][0], self.scenario.root, timeout=PATIENCE)

    def written(self, verb):
        root = self.scenario.root
        files = [file for pattern in self.verbs[verb][1] for file in root.glob(pattern) if file.is_file()]
        return {str(file.relative_to(root)): same_bytes(file) for file in files}


def said(text):
    """A result without what a damaged file's size and a run's resumption change in it."""
    return re.sub(r'"bytes": \d+', "", outcome_words(text))


@dataclass(frozen=True)
class Case:
    at: Place
    file: str
    path: Path  # below the folder
    damage: str
    make: Callable[[], bytes]

    @property
    def place(self):
        return self.at.name

    @property
    def verbs(self):
        return self.at.verbs

    def hurt(self, file):
        if self.damage not in SPECIAL:
            file.write_bytes(self.make())
            return
        file.unlink()
        match self.damage:
            case "a folder":
                file.mkdir()
            case "a pipe":
                os.mkfifo(file)
            case "a link to itself":
                file.symlink_to(file.name)

    def carry_out(self, verb):
        """(what came of it, in detail)"""
        text, err, files = self.at.reference(verb)
        self.at.scenario.fresh()
        self.hurt(self.at.scenario.root / self.path)
        outcome = self.at.carry_out(verb)
        for sort, detail in faults(outcome):
            return ("traceback" if sort == "noise" else sort), detail
        if outcome.status in (2, 130):
            return "refused", outcome.err[:300]
        if outcome.status == 0 and said(outcome.out) == text and self.at.written(verb) == files:
            return "same", ""
        if outcome.status == 3 or plain(outcome.err) != plain(err):
            return "noticed", outcome.err[-300:]
        now = self.at.written(verb)
        apart = [name for name in files.keys() | now.keys() if files.get(name) != now.get(name)]
        return "silent", f"{plain(', '.join(sorted(apart)))} {'and what it says' * (said(outcome.out) != text)}"


def run_verbs(run):
    short = ["--n", "50", "--evidence", "0", "--json"]
    return {
        "list": (["list", "out", "--json"], []),
        "evaluate": (["evaluate", run, *short], []),
        "sample": (["sample", run, "--n", "2", "--out", "out/s.png"], ["out/s.png"]),
        "embed": (["embed", run, "../photos", "--out", "out/c.parquet"], ["out/c.parquet"]),
        "doctor": (["doctor", run, "--json"], []),
        "train": (TRAIN, [f"{run}/*", f"{run}/state/*"]),
    }


PLACES = ("run", "unfinished", "study", "report anew", "cache", "cache anew")


def all_places(work, server, names=PLACES):
    at = Templates(work, server)
    verbs = run_verbs(at.run)
    left = ["out/studies/tiny/table.csv", "out/studies/tiny/claims.json", "out/studies/tiny/report.html",
            "out/studies/tiny/figures/*", "out/runs/*/metrics.json", "out/runs/*/weights.safetensors"]  # fmt: skip
    again = {"study": (STUDYING, left), "report": (["report", "out/studies/tiny", "--workers", "1"], left)}
    told = {
        "run": ("decoded", verbs),
        "unfinished": ("unfinished", {name: verbs[name] for name in ("list", "train")}),
        "study": ("studied", {"list": verbs["list"]} | again),
        "report anew": ("bare", {"report": again["report"]}),
        "cache": ("decoded", {"data": (["data", "digits", "--json"], [])}
                             | {name: verbs[name] for name in ("evaluate", "embed", "train")}),
        "cache anew": ("warm", {"train": verbs["train"]}),
    }  # fmt: skip
    for name in names:
        template, verbs = told[name]
        yield Place(name, Scenario(name, [], at[template], at.root, server), verbs)


def files_of(place):
    """The stored files of a place, with another of the same kind to swap with: (name, path, its content or None)."""
    root = place.scenario.template
    base = root / "cache" if place.name.startswith("cache") else root / "out"
    seen = set()
    for file in sorted(base.rglob("*")):
        path = file.relative_to(root)
        name = plain(str(path))
        if not file.is_file() or file.suffix == ".lock" or (name in seen and place.name != "cache"):
            continue
        others = [f for f in base.rglob(file.name) if f != file and f.read_bytes() != file.read_bytes()]
        if not others and place.name == "run" and (root.parent / "studied").exists():  # another run's, of the study
            others = sorted((root.parent / "studied" / "out" / "runs").glob(f"*/{file.name}"))
        seen.add(name)
        yield name, path, others[0].read_bytes() if others else None


def cases(work, server, every=1, names=PLACES):
    """Every damage of every file, or each k-th of them."""
    count = 0
    for place in all_places(work, server, names):
        for name, path, other in files_of(place):
            content = (place.scenario.template / path).read_bytes()
            told = [(damage, None) for damage in SPECIAL]
            if content:
                told += list(damages(name, content, other))
            for damage, new in told:
                count += 1
                if count % every == 0:
                    yield Case(place, name, path, damage, lambda new=new: new)
