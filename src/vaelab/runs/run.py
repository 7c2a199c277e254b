r"""The folder of a run: written whole, read with care, resumed exactly.

    spec.json              every setting of the run
    weights.safetensors    the model; the metadata hold the shape of the images
    history.jsonl          one row an epoch; in trainings of very many epochs one after some of them
    snapshots.safetensors  how the same few images are reconstructed after some epochs
    metrics.json           the metrics of the finished run, by split
    origin.json            the data, plan, versions and machine that it comes from, and the digests of the other files
    figures/               figures
    state/                 while unfinished: what resuming needs

Nothing is pickled: JSON and safetensors only. What is read is checked, against its schema (`runs.schemas`) and against
its digest in origin.json. Runs of earlier versions have no digests; their settings are still checked against their key.
"""

from __future__ import annotations

import errno
import json
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaelab.core.console import notice
from vaelab.core.errors import UserError
from vaelab.core.files import (
    REPAIR_HINT,
    append_line,
    content_digest,
    damaged_error,
    make_folder,
    parse_json,
    read_bytes,
    read_json,
    remove_stale_temp_files,
    sync_file,
    to_json,
    write_json,
    write_text,
)
from vaelab.core.folders import folder_size
from vaelab.core.tensors import parse_tensors, read_tensors, tensor_digest
from vaelab.runs.schemas import HistoryRow, ListedSpec, Origin, StoredMetrics

if TYPE_CHECKING:
    from torch import Tensor

    from vaelab.datasets.images import Dataset, Images
    from vaelab.models.vae import VAE
    from vaelab.runs.spec import Spec

__all__ = [
    "DivergedError",
    "HistoryError",
    "Run",
    "append_history",
    "check_training_record",
    "find_runs",
    "is_recorded",
    "load",
    "lock_run",
    "num_history_rows",
    "store_beginning",
    "store_results",
    "summarise_run",
    "training_record",
    "update_origin",
    "write_history",
]

ORIGIN, SPEC, HISTORY = "origin.json", "spec.json", "history.jsonl"
WEIGHTS, METRICS, SNAPSHOTS = "weights.safetensors", "metrics.json", "snapshots.safetensors"

CHANGED = "its content has changed since it was written"


class DivergedError(UserError):
    """The weights of a run hold NaN or infinite numbers."""


class HistoryError(UserError):
    """The history of a run is damaged."""


@dataclass(frozen=True)
class Run:
    """A run on disk: its spec, model, history and metrics, each read when it is asked for.

    Attributes:
        path: The folder.
        outcome: "trained", "resumed" or "existing", where training gave the run.
        from_epoch: How many epochs were there before that training.
        images_trained: How many images that training processed.
    """

    path: Path
    outcome: str | None = field(default=None, compare=False)
    from_epoch: int = field(default=0, compare=False)
    images_trained: int = field(default=0, compare=False)

    @property
    def key(self) -> str:
        """The name of the folder."""
        return self.path.name

    @cached_property
    def spec(self) -> Spec:
        """The settings.

        Raises:
            UserError: spec.json is missing or damaged, or a setting was changed after training.
        """
        from vaelab.runs.spec import spec_from_dict

        content = read_bytes(self.path / SPEC)
        table = parse_json(content, self.path / SPEC, dict[str, Any])
        try:
            spec = spec_from_dict(table)
        except UserError as error:
            raise UserError(f"{self.path / SPEC}: {error}") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise damaged_error(self.path / SPEC, str(error)[:100]) from None
        if _holds(self.path / ORIGIN):
            self._check_key(spec)
            self._check_digest(SPEC, content)
        return spec

    @property
    def origin(self) -> dict[str, Any]:
        """What the run comes from: "data", "plan", "versions", and more.

        Raises:
            UserError: origin.json is missing or damaged.
        """
        origin = read_json(self.path / ORIGIN, "data", "plan", "versions", schema=Origin)
        if "digests" in origin and origin["digests"].get(ORIGIN) != _origin_digest(origin):
            raise damaged_error(self.path / ORIGIN, CHANGED)
        return origin

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch, or one after some of very many epochs; none before the first.

        The last line of an unfinished run may be torn by a power cut; it is then left out.

        Raises:
            HistoryError: history.jsonl is damaged.
        """
        file = self.path / HISTORY
        if not _holds(file) and not (self.finished and HISTORY in self._digests()):
            return []
        record_every = self._stored_plan().get("record_every", 1)
        try:
            if not _holds(file):
                raise damaged_error(file, "it is missing")
            content = read_bytes(file)
            rows = _parse_history(content, file, keep_torn_line=self.finished, record_every=record_every)
            self._check_digest(HISTORY, content)
        except UserError as error:
            needs = "; only curves and the doctor need it, weights and metrics are not affected"
            raise HistoryError(f"{error}{needs if self.finished else ''}") from None
        return rows

    @property
    def last_epoch(self) -> int:
        """The epoch of the last row of history; 0 before the first."""
        rows = self.history
        return rows[-1]["epoch"] if rows else 0

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the finished run by split; empty before.

        Raises:
            UserError: metrics.json is damaged.
        """
        if not _holds(self.path / METRICS):
            return {}
        content = read_bytes(self.path / METRICS)
        metrics = parse_json(content, self.path / METRICS, StoredMetrics)
        self._check_digest(METRICS, content)
        return metrics

    @property
    def snapshots(self) -> dict[str, Tensor]:
        """Reconstructions by epoch, uint8, (8, C, H, W), and the "originals"; empty where none were kept.

        Raises:
            UserError: snapshots.safetensors is damaged.
        """
        file = self.path / SNAPSHOTS
        if not _holds(file):
            return {}
        content = read_bytes(file)
        self._check_digest(SNAPSHOTS, content)
        return parse_tensors(content, file)[0]

    @property
    def finished(self) -> bool:
        """Whether the run was trained to its end."""
        return (self.path / METRICS).exists() and (self.path / WEIGHTS).exists()

    @cached_property
    def model(self) -> VAE:
        """The trained model, on the CPU, ready for evaluation.

        Raises:
            UserError: The weights are missing, damaged or not finite, or they do not fit the spec.
        """
        from vaelab.runs.spec import build_model

        tensors, metadata = self._weights()
        shape = metadata.get("shape") or self.origin["data"]["shape"]
        if not _is_image_shape(shape):
            raise damaged_error(self.path / WEIGHTS, f"images of shape {json.dumps(shape)[:40]}")
        model = build_model(self.spec, tuple(shape))
        self._load_weights(model, tensors)
        return model.eval().requires_grad_(False)

    def _weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors of the model and their metadata."""
        file = self.path / WEIGHTS
        if not _holds(file):
            raise UserError(f"{file} is missing: the run has not been trained, or not to its end")
        content = read_bytes(file)
        tensors, metadata = parse_tensors(content, file)
        self._check_digest(WEIGHTS, content)
        return tensors, metadata

    def _load_weights(self, model: VAE, tensors: Mapping[str, Tensor]) -> None:
        """Put stored tensors into a model that has the same names, shapes and data types."""
        file = self.path / WEIGHTS
        try:
            for name, tensor in model.state_dict().items():
                if name in tensors and tensors[name].dtype != tensor.dtype:
                    raise RuntimeError(f"{name} holds {tensors[name].dtype} in place of {tensor.dtype}")
            model.load_state_dict(tensors)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"{file} does not fit the run's spec.json ({reason}); {REPAIR_HINT}") from None
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise DivergedError(
                    f"{file} holds NaN or infinite numbers ({name}): the training diverged, or the file is damaged;\n"
                    "train again with a third of the --lr, or with --clip 100"
                )

    @cached_property
    def dataset(self) -> Dataset:
        """The data that the run was trained on, with its validation split.

        Raises:
            UserError: The data are gone or have changed.
        """
        from vaelab.datasets.loading import load_dataset

        data = self.origin["data"]
        location = Path(data["location"])  # absolute where it is a place, so that every working directory will do
        source = str(location) if location.is_absolute() and location.exists() else self.spec.data
        dataset = load_dataset(source, **self.spec.data_settings)
        if dataset.fingerprint != data["fingerprint"]:
            raise UserError(
                f"the images of {dataset.location} are no longer those that run {self.key} was trained on;\n"
                "restore them, or name the images to use with --data"
            )
        return dataset

    @property
    def value_ranges(self) -> dict[str, tuple[float, float]]:
        """The values that became black and white in the run's data, of "integer" and "floating" ones.

        Empty where the data have no more than eight bits a channel, or where that is not known any more.
        """
        if self.spec.value_range is not None:
            low, high = self.spec.value_range
            return {"integer": (low, high), "floating": (low, high)}
        stored = self.origin["data"].get("value_ranges")
        if stored is not None:
            return {kind: (pair[0], pair[1]) for kind, pair in stored.items() if len(pair) == 2}
        try:
            return self.dataset.facts.value_ranges
        except UserError:
            return {}

    def images(self, split: str = "test") -> Images:
        """The images of a split of the run's data: train, validation or test."""
        from vaelab.datasets.images import select_split

        return select_split(self.dataset, split)

    def check(self) -> None:
        """Read every file of a finished run.

        Raises:
            UserError: A file is missing or damaged; the message names the first one.
        """
        _ = self.spec, self.history, self.model, self.snapshots
        metrics = self.metrics
        for split in self.origin["data"]["images"]:
            if split != "train" and split not in metrics:
                raise damaged_error(self.path / METRICS, f"it lacks {split}")

    def check_unread(self) -> None:
        """Look whether the files that are read only where they are needed are still what was written.

        A file whose size and time of change are those that were stored is not read.

        Raises:
            UserError: A file is missing or has changed.
        """
        digests = self._digests()
        stamps = self.origin.get("stamps", {}) if digests else {}
        for name in (WEIGHTS, SNAPSHOTS):
            file = self.path / name
            if name not in digests:
                continue
            if not _holds(file):
                raise damaged_error(file, "it is missing")
            if _stamp(file) != stamps.get(name):
                self._check_digest(name, read_bytes(file))

    def _stored_plan(self) -> dict[str, Any]:
        """The plan in origin.json; empty where there is none."""
        return self.origin["plan"] if _holds(self.path / ORIGIN) else {}

    def _digests(self) -> dict[str, str]:
        """The digests of files by name; empty in runs of earlier versions."""
        if not _holds(self.path / ORIGIN):
            return {}
        return self.origin.get("digests", {})

    def _check_digest(self, name: str, content: bytes) -> None:
        """Refuse a spec that has changed, or another file that has changed since the run was finished."""
        if name != SPEC and not self.finished:
            return
        expected = self._digests().get(name)
        if expected is not None and content_digest(content) != expected:
            raise damaged_error(self.path / name, CHANGED)

    def _check_key(self, spec: Spec) -> None:
        """Refuse settings that are not those of the run's key."""
        from vaelab.runs.spec import run_key

        origin = self.origin
        key = run_key(spec, origin["data"]["fingerprint"], origin["plan"]["precision"])
        if key != origin.get("key", key):
            raise UserError(
                f"run {origin['key']} in {self.path} does not fit the run's spec.json (a setting was changed there);\n"
                f"{REPAIR_HINT}"
            )


def _holds(path: Path) -> bool:
    """Whether there is something at a path, also where it cannot be read: reading it then says why."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _stamp(path: Path) -> list[int]:
    """The size of a file in bytes, and when it was changed, in nanoseconds."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return [status.st_size, status.st_mtime_ns]


def _is_image_shape(shape: Any) -> bool:
    """Whether a stored value is the shape of an image: channels, height and width."""
    return isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and 0 < n < 10_000 for n in shape)


# History.


def is_recorded(epoch: int, record_every: int) -> bool:
    """Whether history has a row for an epoch: for the first one and each k-th. The last one of a run has one, too."""
    return epoch == 1 or epoch % max(record_every, 1) == 0


def num_history_rows(epochs: int, record_every: int) -> int:
    """How many rows history has at least after so many epochs."""
    return epochs // max(record_every, 1) + (record_every > 1 and epochs > 0)


def _parse_history(content: bytes, file: Path, keep_torn_line: bool, record_every: int) -> list[dict[str, Any]]:
    """The rows of a history: the first, each k-th and the last epoch."""
    *lines, last_line = content.split(b"\n")
    if last_line and keep_torn_line:
        lines.append(last_line)
    elif last_line:
        notice(f"{file}: the last line is torn and is left out; its epoch is trained again")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line, file, HistoryRow)
        except UserError as error:
            raise UserError(str(error).replace(" is damaged (", f" is damaged (line {number}: ", 1)) from None
        expected = num_history_rows(row["epoch"], record_every)
        if number == len(lines) and not is_recorded(row["epoch"], record_every):  # of the last epoch of the run
            expected += 1
        if number != expected or (rows and row["step"] <= rows[-1]["step"]):
            raise damaged_error(file, f"line {number} holds epoch {row['epoch']}, step {row['step']}")
        rows.append(row)
    return rows


def _to_line(row: Mapping[str, Any]) -> str:
    """A row of history as a line."""
    return json.dumps(row, allow_nan=False)


def write_history(run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the history of a run, unless it is the same already."""
    text = "".join(f"{_to_line(row)}\n" for row in rows)
    file = run.path / HISTORY
    if not _holds(file) or read_bytes(file) != text.encode():
        write_text(file, text)


def append_history(run: Run, row: Mapping[str, Any]) -> None:
    """Add the row of an epoch to the history of a run."""
    append_line(run.path / HISTORY, _to_line(row))


# What is stored at the beginning, while a run is trained, and at its end.


def store_beginning(run: Run, spec: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Store the settings of a run and what it comes from.

    Args:
        run: The run.
        spec: The content of spec.json.
        origin: The content of origin.json, without digests.
    """
    text = to_json(spec)
    write_text(run.path / SPEC, text)
    _store_origin(run, origin, {SPEC: content_digest(text.encode())})


def update_origin(run: Run, changes: Mapping[str, Any]) -> None:
    """Change some fields of origin.json."""
    origin = run.origin
    _store_origin(run, {**origin, **changes}, origin.get("digests", {}))


def store_results(run: Run, changes: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Store the metrics of a run whose weights are there, which makes it finished, and the digests of all files.

    Args:
        run: The run.
        changes: The fields of origin.json that are known at the end.
        metrics: The metrics by split.
    """
    text = to_json(metrics)
    digests = {METRICS: content_digest(text.encode())}
    for name in (SPEC, WEIGHTS, HISTORY, SNAPSHOTS):
        if (run.path / name).exists():
            digests[name] = content_digest(read_bytes(run.path / name))
    if HISTORY in digests:
        sync_file(run.path / HISTORY)
    stamps = {name: _stamp(run.path / name) for name in (WEIGHTS, SNAPSHOTS) if name in digests}
    _store_origin(run, {**run.origin, **changes, "stamps": stamps}, digests)
    write_text(run.path / METRICS, text)


def _store_origin(run: Run, origin: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Write origin.json with the digests of the run's files, and its own."""
    table = {name: value for name, value in origin.items() if name != "digests"}
    table["digests"] = {**digests, ORIGIN: _origin_digest(table)}
    write_json(run.path / ORIGIN, table)


def _origin_digest(origin: Mapping[str, Any]) -> str:
    """The digest of an origin without its digests."""
    table = {name: value for name, value in origin.items() if name != "digests"}
    return content_digest(json.dumps(table, sort_keys=True).encode())


def training_record(run: Run) -> dict[str, Any]:
    """What the files of a run in training hold now, to be stored with its state; history is flushed to the disk."""
    record: dict[str, Any] = {}
    if (run.path / HISTORY).exists():
        sync_file(run.path / HISTORY)
        content = read_bytes(run.path / HISTORY)
        record["history"] = {"bytes": len(content), "digest": content_digest(content)}
    if (run.path / SNAPSHOTS).exists():
        tensors, _ = read_tensors(run.path / SNAPSHOTS)
        record["snapshots"] = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
    return record


def check_training_record(run: Run, record: Mapping[str, Any]) -> None:
    """Check that the files of a run still begin with what they held when its state was stored.

    Epochs after that may have added to them; these are trained again.

    Raises:
        UserError: A file was changed.
    """
    history = record.get("history")
    if history is not None:
        content = read_bytes(run.path / HISTORY) if _holds(run.path / HISTORY) else b""
        if content_digest(content[: history["bytes"]]) != history["digest"]:
            raise damaged_error(run.path / HISTORY, CHANGED)
    expected = record.get("snapshots") or {}
    tensors = read_tensors(run.path / SNAPSHOTS)[0] if expected else {}
    for name, digest in expected.items():
        if name not in tensors or tensor_digest(tensors[name]) != digest:
            raise damaged_error(run.path / SNAPSHOTS, CHANGED)


@contextmanager
def lock_run(run: Run) -> Iterator[None]:
    """Hold the run's folder for training, so that only one process does; a finished run has no state afterwards.

    Raises:
        UserError: Another process trains the run, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    state = run.path / "state"
    lock = FileLock(state / "lock", timeout=0)
    try:
        make_folder(state)
        lock.acquire()
    except Timeout:
        raise UserError(f"another process is training {run.path} just now; wait for it, or stop it first") from None
    except OSError as error:
        raise UserError(f"cannot write in {run.path}: {error.strerror}; give another folder with --out") from None
    try:
        remove_stale_temp_files(run.path, exclusive=True)
        remove_stale_temp_files(state, exclusive=True)
        yield
    finally:
        lock.release()
    with suppress(OSError):  # the run is whole: the next start removes the state
        if run.finished:
            shutil.rmtree(state, ignore_errors=True)


# Finding.


def load(path: str | Path) -> Run:
    """Open a stored run.

    Args:
        path: The folder of the run, or a folder with exactly one run below it.

    Returns:
        The run; its files are read when they are asked for.

    Raises:
        UserError: There is no run, or more than one.
    """
    folder = Path(path)
    if (folder / SPEC).is_file():
        return Run(folder)
    runs = find_runs(folder) if folder.is_dir() else []
    if len(runs) == 1:
        return runs[0]
    if not folder.exists():
        raise UserError(f"there is no run at {folder}; see `vaelab list` for those there are")
    if runs:
        raise UserError(f"{folder} holds {len(runs)} runs; name one of them, such as {runs[0].path}")
    raise UserError(f"{folder} holds no run (no spec.json); see `vaelab list` for those there are")


def find_runs(folder: Path) -> list[Run]:
    """The runs below a folder, at most two levels down, sorted by level and path.

    A folder is that of a run if it holds a spec and any other file of a run. Damaged runs are found as well.

    Folders that cannot be read are named in a notice.
    """
    runs: list[Run] = []
    level = [folder]
    for depth in range(3):
        for path in level:
            if _holds(path / SPEC) and any(_holds(path / name) for name in (ORIGIN, HISTORY, WEIGHTS, METRICS)):
                runs.append(Run(path))
        if depth < 2:
            level = _folders_in(level)
    return runs


def _folders_in(folders: Sequence[Path]) -> list[Path]:
    """The folders in some folders, sorted."""
    inner: list[Path] = []
    for folder in folders:
        try:
            entries = sorted(folder.iterdir())
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError as error:
            notice(f"left out: {folder} cannot be read ({error.strerror or error})")
            continue
        inner += [entry for entry in entries if _is_folder(entry)]
    return inner


def _is_folder(path: Path) -> bool:
    """Whether there is a folder at a path; a notice says where this cannot be found out."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            notice(f"left out: {path} cannot be read ({error.strerror or error})")
        return False


def summarise_run(run: Run) -> dict[str, Any]:
    """The row of a run in a list: settings, state, test metrics and disk use, without building the model.

    Raises:
        UserError: A file of the run is damaged.
    """
    content = read_bytes(run.path / SPEC)
    spec = parse_json(content, run.path / SPEC, ListedSpec)
    if not _holds(run.path / ORIGIN):
        raise damaged_error(run.path / ORIGIN, "it is missing")
    run._check_digest(SPEC, content)
    if _holds(run.path / METRICS) and not _holds(run.path / WEIGHTS):
        raise damaged_error(run.path / WEIGHTS, "it is missing")
    metrics = run.metrics.get("test", {}).get("metrics", {})
    return {
        "path": str(run.path),
        "spec": spec,
        "state": "finished" if run.finished else f"epoch {run.last_epoch}, unfinished",
        "metrics": {name: metric["value"] for name, metric in metrics.items()},
        "notes": {name: metric["note"] for name, metric in metrics.items() if "note" in metric},
        "bytes": folder_size(run.path),
    }
