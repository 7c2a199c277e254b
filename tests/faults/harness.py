"""Faults in files, and what a command makes of them.

A scenario is a command line in a folder of its own, which holds all that it reads and writes: `out`, `cache`, `tmp`.
Pictures lie beside it. It is carried out without faults first (clean), then with one, then again without: that must
come to the bytes of the clean one and leave nothing else behind. Every case starts from a copy of the scenario's folder
at the same path.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
KINDS = ("EIO", "EACCES", "EMFILE", "ENOSPC", "FULL", "SHORT", "KILL")
ALLOWED = (0, 2, 3, 130)
TIMEOUT = 60  # seconds
NOBODY = 65534

PROBE = re.compile(r"tmp/[a-z0-9_]{8}$")  # of Python's tempfile, which looks whether the folder can be written
VOLATILE = {"origin.json", "timings.csv", "looks.csv", "checked.json"}  # where wall time and places stand
SETTINGS = ["--network", "mlp:hidden=16", "--latent-dim", "2", "--epochs", "2", "--precision", "float32",
            "--threads", "1", "--device", "cpu"]  # fmt: skip
TRAIN = ["train", "digits", *SETTINGS, "--no-figures", "--out", "out"]
STUDY = """title = "Tiny"
data = "digits"
seeds = 2
base = { network = "mlp:hidden=16", epochs = 2, subset = 400 }

[[experiments]]
id = "size"
title = "Size"
vary = { latent_dim = [2, 3] }
figures = ["curves", "samples"]
claims = [{ id = "more", sentence = "3 beat 2.", measure = "mse", expect = "lowest:setting=3" }]
"""

# With one seed and without figures: the same operations, less often. Those of figures are those of `report`.
SHORT_STUDY = (
    STUDY.replace("seeds = 2", "seeds = 1")
    .replace('figures = ["curves", "samples"]', "figures = []")
    .replace('measure = "mse"', 'measure = "samples.sharpness"')
)


def spread(things, count):
    """Some of a list, evenly."""
    things = list(things)
    step = max(1, len(things) // count)
    return things[step // 2 :: step][:count]


def compiler():
    return shutil.which("gcc") or shutil.which("g++") or shutil.which("cc")


def build(folder):
    """Compile the injector."""
    library = folder / "inject.so"
    command = [compiler(), "-x", "c", "-O2", "-shared", "-fPIC", "-o", library, HERE / "inject.c", "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


STUDYING = ["study", "tiny.toml", "--workers", "1", "--device", "cpu", "--out", "out"]
STUDYING_SHORTLY = ["study", "one.toml", *STUDYING[2:]]


class Outcome(NamedTuple):
    status: int | None  # None: it hung
    out: str
    err: str
    log: list[str]  # what the injector did, or, with n = 0, could have done


class Server:
    """The warm process of `server.py`."""

    def __init__(self, folder):
        self.folder = folder
        paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"),)))
        alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        env = os.environ | alone | {"LD_PRELOAD": str(build(folder)), "PYTHONPATH": paths, "PYTHONHASHSEED": "0",
                                    "MPLCONFIGDIR": str(folder / "mpl"), "PYTHONWARNINGS": "ignore"}  # fmt: skip
        for name in [name for name in env if name.startswith("VAELAB_")]:
            del env[name]
        with (folder / "server.log").open("w") as log:
            command = [sys.executable, str(HERE / "server.py")]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=env, cwd=folder
            )
        if not self.process.stdout.readline():
            raise RuntimeError((folder / "server.log").read_text())

    def __call__(self, argv, root, fault=None, *, timeout=TIMEOUT, in_workers=False, user=None):
        """Carry out a command line in the folder `root`, with the `fault` (n, kind) below it or beside it.

        The fault befalls the process itself, or each of the worker processes that it starts. The process has the
        rights of `user`, a number.
        """
        out, err, log = (self.folder / name for name in ("case.out", "case.err", "case.log"))
        log.unlink(missing_ok=True)
        env = {"VAELAB_CACHE": str(root / "cache"), "VAELAB_DATA": str(root.parent), "TMPDIR": str(root / "tmp"),
               "HOME": str(self.folder), "COLUMNS": "200"}  # fmt: skip
        armed = [str(root.parent), *fault, str(log)] if fault else None
        case = {"argv": [*map(str, argv)], "cwd": str(root), "env": env, "out": str(out), "err": str(err),
                "timeout": timeout, "fault": armed, "in_workers": in_workers,
                "user": user}  # fmt: skip
        print(json.dumps(case), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server died: {(self.folder / 'server.log').read_text()}")
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        said = [file.read_text(errors="replace") for file in (out, err)]
        return Outcome(json.loads(answer)["status"], *said, lines)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def same_bytes(file):
    """What of a file must repeat: all of it, without the seconds in a history or a report and the times in a seal."""
    content = file.read_bytes()
    if file.name == "history.jsonl":
        with contextlib.suppress(ValueError, AttributeError):
            rows = [json.loads(line) for line in content.splitlines()]
            return json.dumps([{k: v for k, v in row.items() if k != "seconds"} for row in rows]).encode()
    if file.suffix == ".seal":
        content = re.sub(rb'"modified": -?\d+', b"", content)
    if file.name == ".made.json":  # with the digest of the report, which tells the time
        content = re.sub(rb'\s*"report.html": "\w+",?', b"", content)
    if file.name == "report.html":
        content = re.sub(rb"[\d.,:]+ (s|min|h) in all", b"", content)
    return b"" if file.name in VOLATILE else content


def snapshot(root):
    """The content of every file below a folder, folders included, as far as it must repeat."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_dir():
            found[name + "/"] = b""
        elif path.is_file():
            found[name] = same_bytes(path)
        else:
            found[name] = b"?"
    return found


def pictures(folder, count=6):
    rng = np.random.default_rng(0)
    for tint, category in enumerate(("blue", "green")):
        (folder / category).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 90, (12, 16, 3), dtype=np.uint8)
            pixels[..., tint] += 150
            Image.fromarray(pixels).save(folder / category / f"{i:03d}.png")


@dataclass(eq=False)
class Scenario:
    """A command line and the folder, `template`, that it starts from."""

    name: str
    argv: list[str]
    template: Path
    root: Path
    server: Server
    in_workers: bool = False  # whether the fault befalls the worker processes

    def fresh(self):
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.template, self.root, symlinks=True)

    def run(self, fault=None):
        return self.server(self.argv, self.root, fault, in_workers=self.in_workers)

    @cached_property
    def clean(self):
        """What the command says and leaves without faults. That it repeats is checked first."""
        found = []
        for _ in range(2):
            self.fresh()
            outcome = self.run()
            assert outcome.status == 0, f"{self.name}: {outcome}"
            found.append((outcome, snapshot(self.root)))
        first, second = found
        apart = different(first[1], second[1]) or sorted(first[1].keys() ^ second[1].keys())
        assert not apart, f"{self.name}: {apart} differ between two clean runs"
        return first

    @cached_property
    def operations(self):
        """Every operation, in order: (its kinds, its name, its path without what is drawn by lot)."""
        self.fresh()
        lines = [line.split(" ", 2) for line in self.run((0, "EIO")).log]
        return [(kinds.split(","), name, plain(path)) for kinds, name, path in lines]

    def cases(self, kinds=KINDS, each=None, every=1):
        """(n, kind) for every operation, for the `each` first ones of one name and path, or for every k-th."""
        for kind in kinds:
            seen = {}
            mine = [what for what in self.operations if kind in what[0]]
            for n, (_, *what) in enumerate(mine, 1):
                count = seen[tuple(what)] = seen.get(tuple(what), 0) + 1
                if (each is None or count <= each) and n % every == every // 2:
                    yield n, kind

    @property
    def places(self):
        """Every file and folder that the command may meet, and the modes that forbid something there."""
        for path in [self.root, *sorted(self.root.rglob("*")), *sorted((self.root.parent / "photos").rglob("*"))]:
            for mode in (0o000, 0o500) if path.is_dir() else (0o000, 0o400):
                yield path, mode

    def forbidden(self, path, mode):
        """What is wrong after a file or folder was forbidden to the user: findings, each a (sort, detail)."""
        said, left = self.clean
        self.fresh()
        self.give_away()
        allowed = path.stat().st_mode & 0o777
        path.chmod(mode)
        try:
            first = self.server(self.argv, self.root, user=self.user)
            wrong = list(faults(first))
        finally:
            path.chmod(allowed)
        if first.status == 0 and first.err == said.err:
            apart = different(snapshot(self.root), left)
            apart += ["standard output"] * (without_entry(first.out) != without_entry(said.out))
            wrong += [("silent", plain(name)) for name in apart]
        return wrong + self.repeated(said, left, self.user), first

    @property
    def user(self):
        """Nobody, where this process is root, who may do everything."""
        return NOBODY if os.geteuid() == 0 else None

    def give_away(self):
        """Let the user own all that a command reads and writes."""
        if self.user is not None:
            for path in [self.root, *self.root.rglob("*")]:
                os.chown(path, self.user, self.user, follow_symlinks=False)

    def case(self, n, kind):
        """What is wrong after the n-th operation failed: findings, each a (sort, detail); and what was hit."""
        said, left = self.clean
        self.fresh()
        first = self.run((n, kind))
        hit = plain(" ".join(first.log[:1])) if first.log else "nothing"
        wrong = list(faults(first, killed=kind == "KILL"))
        if first.status == 0 and first.err == said.err:
            apart = different(snapshot(self.root), left) + ["standard output"] * (first.out != said.out)
            wrong += [("silent", plain(name)) for name in apart]
        return wrong + self.repeated(said, left), hit

    def repeated(self, said, left, user=None):
        """What is wrong where the same command is given again, without a fault."""
        again = self.server(self.argv, self.root, user=user)
        wrong = [(f"again: {sort}", detail) for sort, detail in faults(again)]
        if again.status != 0:
            wrong.append(("again: refused", f"{again.status}: {again.err[-600:]}"))
        else:
            now, left = by_entry(snapshot(self.root)), by_entry(left)
            wrong += [("leftover", plain(name)) for name in sorted(now.keys() - left.keys()) if not PROBE.match(name)]
            wrong += [("missing", plain(name)) for name in sorted(left.keys() - now.keys())]
            wrong += [("differs", plain(name)) for name in different(now, left)]
            if outcome_words(without_entry(again.out)) != outcome_words(without_entry(said.out)):
                wrong.append(("again: says otherwise", again.out[:400]))
        return wrong


def without_entry(text):
    """Text without the name of an entry of the cache: pictures that were forbidden have another time afterwards."""
    return re.sub(r"\b[0-9a-f]{32}\b", "CACHE", text)


def by_entry(files):
    """The different contents of files by name, without the names of entries."""
    found = {}
    for name, content in files.items():
        found.setdefault(without_entry(name), set()).add(content)
    return found


def outcome_words(text):
    """A result without how it came about: found or trained, and with how many images of training."""
    text = re.sub(r'"(outcome|from_epoch|images_trained)": [^,}]+', "", text)
    text = re.sub(r": (trained|found, already trained|resumed after epoch \d+ and trained)$", "", text, flags=re.M)
    return re.sub(r"^[\d,]+ images trained on$", "", text, flags=re.M)


def faults(outcome, killed=False):
    """What no command may do, whatever it meets."""
    if outcome.status is None:
        yield "hang", f"after {outcome.err[-300:]}"
        return
    if killed and outcome.status == 137:
        return
    if "Traceback" in outcome.err or "Traceback" in outcome.out:
        yield "traceback", last_lines(outcome.err)
    elif "Exception ignored" in outcome.err:
        yield "noise", outcome.err[-400:]
    elif outcome.status not in ALLOWED:
        yield "status", f"{outcome.status}: {outcome.err[-400:]}"


def last_lines(err):
    """Of a traceback: our own lines, innermost last, and what it says."""
    frames = re.findall(r'File "[^"]*/vaelab/([^"]+)", line (\d+), in (\S+)', err)
    ours = " > ".join(f"{file}:{function}" for file, _, function in frames[-4:])
    final = [line for line in err.strip().splitlines() if line and not line.startswith(" ")]
    return f"{ours} | {plain(final[-1])[:300] if final else ''}"


def plain(text):
    """Text without hashes, numbers drawn by lot and places."""
    text = re.sub(r"\b[0-9a-f]{32}\b", "CACHE", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "KEY", text)
    text = re.sub(r"-[0-9a-f]{8}(?=\.|$|')", "-LOT", text)
    text = re.sub(r"\.tmp[A-Za-z0-9]{6}\b", ".tmpLOT", text)
    return re.sub(r"vaelab-[a-z0-9_]{8}", "vaelab-LOT", text)


def different(a, b):
    return sorted(name for name in a.keys() & b.keys() if a[name] != b[name])


class Templates:
    """The folders that scenarios start from, each made when it is first asked for."""

    def __init__(self, work, server):
        self.base, self.root, self.server = work / "templates", work / "area" / "case", server
        if not (photos := self.root.parent / "photos").exists():
            pictures(photos)  # never copied: the cache knows them by their times
            for path in photos.rglob("*") if os.geteuid() == 0 else ():
                os.chown(path, NOBODY, NOBODY)

    def __getitem__(self, name):
        where = self.base / name
        if not where.exists():
            getattr(self, name)(where)
        return where

    def after(self, parent, argv, where):
        """What a command leaves in a copy of another template."""
        before = self[parent]
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(before, self.root)
        outcome = self.server(argv, self.root)
        assert outcome.status == 0, outcome
        shutil.copytree(self.root, where)

    def empty(self, where):
        for part in ("out", "cache", "tmp"):
            (where / part).mkdir(parents=True)
        (where / "tiny.toml").write_text(STUDY)
        (where / "one.toml").write_text(SHORT_STUDY)

    def warm(self, where):
        """The digits are decoded."""
        self.after("empty", ["data", "digits"], where)

    def trained(self, where):
        self.after("warm", TRAIN, where)

    def decoded(self, where):
        """The pictures are, too."""
        self.after("trained", ["embed", self.run, "../photos", "--out", "out/codes.parquet"], where)
        (where / "out" / "codes.parquet").unlink()

    def studied(self, where):
        self.after("warm", STUDYING, where)

    def bare(self, where):
        """A study without its document and figures."""
        shutil.copytree(self["studied"], where)
        (where / "out" / "studies" / "tiny" / "report.html").unlink()
        shutil.rmtree(where / "out" / "studies" / "tiny" / "figures")

    def unfinished(self, where):
        """A run that was killed within the end of its second epoch, with the state after its first."""
        train = Scenario("train", TRAIN, self["warm"], self.root, self.server)
        for case in train.cases(["KILL"]):
            train.fresh()
            train.run(case)
            rows = [file.read_text().count("\n") for file in train.root.glob("out/*/history.jsonl")]
            if rows == [2] and list(train.root.glob("out/*/state/state.safetensors")):
                shutil.copytree(train.root, where)
                return
        raise AssertionError("no operation lies between the first state and the last")

    @property
    def run(self):
        """The trained run, from the folder of a case."""
        [file] = (self["trained"] / "out").glob("*/spec.json")
        return file.parent.relative_to(self["trained"])


def scenarios(work, server, names=None):
    """The scenarios by name, or only those named."""
    at = Templates(work, server)

    def of_run(verb, *words):
        return lambda: [verb, at.run, *words]

    told = {  # the template, and the command
        "train": ("warm", TRAIN),
        "resume": ("unfinished", TRAIN),
        "cache": ("empty", ["data", "../photos", "--json"]),
        "digits": ("empty", ["data", "digits", "--json"]),
        "evaluate": ("trained", of_run("evaluate", "--evidence", "10", "--n", "50", "--json")),
        "doctor": ("trained", of_run("doctor", "--json")),
        "reconstruct": ("trained", of_run("reconstruct", "--n", "4", "--out", "out/pairs.png")),
        "interpolate": ("trained", of_run("interpolate", "--out", "out/path.png")),
        "model": ("trained", of_run("model")),
        "sizes": ("studied", ["cache"]),
        "clear": ("studied", ["cache", "--clear"]),
        "sample": ("trained", of_run("sample", "--n", "4", "--out", "out/samples.png")),
        "embed": ("decoded", of_run("embed", "../photos", "--out", "out/codes.parquet")),
        "list": ("studied", ["list", "out", "--json"]),
        "report": ("bare", ["report", "out/studies/tiny", "--workers", "1"]),
        "study": ("warm", STUDYING_SHORTLY),
        "workers": ("warm", ["study", "tiny.toml", "--workers", "2", *STUDYING[4:]]),
        "full": ("trained", of_run("evaluate", "--evidence", "10", "--n", "100", "--full", "--json")),
        "pictures": ("trained", [word for word in TRAIN if word != "--no-figures"]),
    }
    return {
        name: Scenario(name, argv() if callable(argv) else argv, at[template], at.root, server, name == "workers")
        for name, (template, argv) in told.items()
        if names is None or name in names
    }
