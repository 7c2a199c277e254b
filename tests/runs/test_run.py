"""The run folder: read safely, written whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from vaelab.core.errors import UserError
from vaelab.core.files import read_json, write_json
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.runs.run import Run, load


@pytest.fixture
def copied(trained: Run, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(trained.path, tmp_path / trained.key)))


def test_a_run_is_built_from_its_folder_alone(trained: Run, copied: Run) -> None:
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(tensor, copied.model.state_dict()[name])
    assert load(copied.path.parent).spec == trained.spec
    assert len(copied.images("test")) == copied.metrics["test"]["n"]


def test_what_stands_in_the_folder(trained: Run) -> None:
    names = {file.name for file in trained.path.iterdir()}
    assert names == {"spec.json", "weights.safetensors", "history.jsonl", "metrics.json", "origin.json", "figures",
                     "snapshots.safetensors"}  # fmt: skip
    assert set(trained.history[0]) == {"epoch", "step", "seconds", "train", "validation"}
    assert {"loss", "cross_entropy", "squared_error", "kl", "negative_elbo"} <= set(trained.history[0]["validation"])
    for file in ("metrics.json", "spec.json"):
        assert "second" not in (trained.path / file).read_text(), "wall time stands in history and origin alone"


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_damaged_weights_are_named(copied: Run, damage: str) -> None:
    file = copied.path / "weights.safetensors"
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "garbage": b"\0" * 100, "empty": b""}[damage])
    with pytest.raises(UserError, match=r"weights.safetensors is damaged .*train it again"):
        _ = load(copied.path).model


def test_other_damage_is_named(copied: Run, tmp_path: Path) -> None:
    (copied.path / "spec.json").write_text("{")
    with pytest.raises(UserError, match=r"spec\.json is damaged"):
        _ = load(copied.path).spec
    (copied.path / "history.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"history\.jsonl is damaged"):
        _ = load(copied.path).history
    shutil.copy(copied.path / "origin.json", copied.path / "spec.json")
    with pytest.raises(UserError, match=r"spec\.json: a stored spec lacks size"):
        _ = load(copied.path).model
    (copied.path / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors is missing"):
        _ = load(copied.path).model
    with pytest.raises(UserError, match="there is no run at"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no run"):
        load(tmp_path / "empty")


def test_weights_of_another_model_are_refused(copied: Run) -> None:
    spec = json.loads((copied.path / "spec.json").read_text())
    write_json(copied.path / "spec.json", spec | {"latent_dim": 5})
    with pytest.raises(UserError, match=r"does not fit the run's spec\.json"):
        _ = load(copied.path).model


@contextmanager
def full_disk() -> Iterator[None]:
    """Files beyond 4 KiB find no room: no longer than needed, since pytest's own output may go to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_the_old_file_stays_and_nothing_is_left_over(tmp_path: Path) -> None:
    file, tensors = tmp_path / "values.json", tmp_path / "t.safetensors"
    write_json(file, {"a": 1})
    write_tensors(tensors, {"a": torch.ones(3)})
    with full_disk():
        with pytest.raises(UserError, match="no room to write"):
            write_json(file, {"a": list(range(5000))})
        with pytest.raises(UserError, match="no room to write"):
            write_tensors(tensors, {"a": torch.ones(30_000)})
    assert read_json(file) == {"a": 1}
    assert torch.equal(read_tensors(tensors)[0]["a"], torch.ones(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.safetensors", "values.json"]


def test_tensors_come_back_with_their_metadata(tmp_path: Path) -> None:
    os.umask(umask := os.umask(0o022))
    channels_last = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    write_tensors(tmp_path / "t.safetensors", {"a": channels_last}, {"shape": [3, 4, 5], "best": float("inf")})
    tensors, metadata = read_tensors(tmp_path / "t.safetensors")
    assert torch.equal(tensors["a"], channels_last)
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o666 & ~umask}
    assert metadata == {"shape": [3, 4, 5], "best": float("inf")}
