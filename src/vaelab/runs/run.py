r"""The run folder: written atomically, read safely, resumed exactly.

    spec.json            every setting of the run
    weights.safetensors  the model; its metadata say the shape of the images
    history.jsonl        one row an epoch
    snapshots.safetensors  how the same few images are reconstructed after some epochs
    metrics.json         the metrics of the finished run, by split
    origin.json          the data, plan, versions and machine that it comes from
    figures/             pictures
    state/               while unfinished: what resuming needs

Nothing is pickled: JSON and safetensors only.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaelab.core.errors import UserError
from vaelab.core.files import REPAIR_HINT, read_json, remove_stale_temp_files, write_text
from vaelab.core.tensors import read_tensors

if TYPE_CHECKING:
    from vaelab.datasets.images import Dataset, Images
    from vaelab.models.vae import VAE
    from vaelab.runs.spec import Spec

__all__ = ["Run", "find_runs", "load", "lock_run", "summarise_run", "write_history"]


@dataclass(frozen=True)
class Run:
    """A run on disk: its spec, model, history and numbers, each read when asked for.

    Where training gave it, `outcome` is "trained", "resumed" or "existing", `from_epoch` counts the epochs that were
    there before, and `images_trained` the images that were trained on now.
    """

    path: Path
    outcome: str | None = field(default=None, compare=False)
    from_epoch: int = field(default=0, compare=False)
    images_trained: int = field(default=0, compare=False)

    @property
    def key(self) -> str:
        return self.path.name

    @cached_property
    def spec(self) -> Spec:
        from vaelab.runs.spec import spec_from_dict

        table = read_json(self.path / "spec.json")
        try:
            return spec_from_dict(table)
        except UserError as error:
            raise UserError(f"{self.path / 'spec.json'}: {error}") from None

    @property
    def origin(self) -> dict[str, Any]:
        return read_json(self.path / "origin.json", "data", "plan", "versions")

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch; none before the first."""
        file = self.path / "history.jsonl"
        if not file.exists():
            return []
        try:
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            return sorted(rows, key=lambda row: row["step"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{file} is damaged; {REPAIR_HINT}") from None

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the finished run by split; empty before."""
        file = self.path / "metrics.json"
        return read_json(file) if file.exists() else {}

    def check(self) -> None:
        """Refuse a finished run with damaged files, naming the first."""
        _ = self.spec, self.origin, self.history, self.model
        read_json(self.path / "metrics.json", *(s for s in self.origin["data"]["images"] if s != "train"))

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").exists() and (self.path / "weights.safetensors").exists()

    @cached_property
    def model(self) -> VAE:
        """The trained model, on the CPU, ready for evaluation."""
        from vaelab.runs.spec import build_model

        file = self.path / "weights.safetensors"
        tensors, metadata = read_tensors(file)
        model = build_model(self.spec, tuple(metadata.get("shape") or self.origin["data"]["shape"]))
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            last = str(error).splitlines()[-1].strip()
            raise UserError(f"{file} does not fit the run's spec.json ({last}); {REPAIR_HINT}") from None
        return model.eval().requires_grad_(False)

    @cached_property
    def dataset(self) -> Dataset:
        """The data that the run was trained on, with its validation split."""
        from vaelab.datasets.loading import load_dataset as load_images

        there = Path(self.origin["data"]["location"])  # found again from any working directory
        source = str(there) if there.exists() else self.spec.data
        dataset = load_images(source, **self.spec.data_settings)
        trained = self.origin["data"]["fingerprint"]
        if dataset.fingerprint != trained:
            raise UserError(
                f"the images of {dataset.location} are no longer those that run {self.key} was trained on;\n"
                "restore them, or name the images to use with --data"
            )
        return dataset

    def images(self, split: str = "test") -> Images:
        """The images of a split of the run's data: train, validation or test."""
        from vaelab.datasets.images import select_split

        return select_split(self.dataset, split)


def write_history(run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of history, one JSON object a line."""
    write_text(run.path / "history.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


@contextmanager
def lock_run(run: Run) -> Iterator[None]:
    """Hold the run's folder for training, so that no two processes do; afterwards a finished run has no state left."""
    from filelock import FileLock, Timeout

    state = run.path / "state"
    lock = FileLock(state / "lock", timeout=0)
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(f"another process is training {run.path} just now; wait for it, or stop it first") from None
    except OSError as error:
        raise UserError(f"cannot write in {run.path}: {error.strerror}; give another folder with --out") from None
    try:  # a failure in here is not the lock's to explain
        remove_stale_temp_files(run.path)
        remove_stale_temp_files(state)
        yield
    finally:
        lock.release()
    if run.finished:
        shutil.rmtree(state, ignore_errors=True)


def load(path: str | Path) -> Run:
    """The run in a folder, or the only one below it."""
    folder = Path(path)
    if (folder / "spec.json").is_file():
        return Run(folder)
    below = find_runs(folder) if folder.is_dir() else []
    if len(below) == 1:
        return below[0]
    if not folder.exists():
        raise UserError(f"there is no run at {folder}; see `vaelab list` for those there are")
    if below:
        raise UserError(f"{folder} holds {len(below)} runs; name one of them, such as {below[0].path}")
    raise UserError(f"{folder} holds no run (no spec.json); see `vaelab list` for those there are")


def find_runs(folder: Path) -> list[Run]:
    """The runs below a folder, at most two levels down, sorted by path."""
    patterns = ("spec.json", "*/spec.json", "*/*/spec.json")
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return [Run(file.parent) for file in files if (file.parent / "origin.json").exists()]


def file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # a training renames its files while we look
        return 0


def summarise_run(run: Run) -> dict[str, Any]:
    """What a list of runs says of one, read without building anything: settings, state, test metrics, disk use."""
    spec = read_json(run.path / "spec.json", "data", "network", "latent_dim", "loss")
    metrics = run.metrics.get("test", {}).get("metrics", {})
    size = sum(file_size(file) for file in run.path.rglob("*"))
    return {
        "path": str(run.path),
        "spec": spec,
        "state": "finished" if run.finished else f"epoch {len(run.history)}, unfinished",
        "metrics": {name: m["value"] for name, m in metrics.items()},
        "notes": {name: m["note"] for name, m in metrics.items() if "note" in m},
        "bytes": size,
    }
