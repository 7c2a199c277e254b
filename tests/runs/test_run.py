"""The run folder: read safely, written whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import vaelab
from vaelab.core.errors import UserError
from vaelab.core.files import read_json, write_json
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.runs.run import (
    HistoryError,
    Run,
    append_history,
    check_training_record,
    find_runs,
    load,
    summarise_run,
    training_record,
    update_origin,
    write_history,
)


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


# Content is checked.


def flip(file: Path, part: float) -> None:
    """Flip one bit of a file."""
    content = bytearray(file.read_bytes())
    content[min(int(part * len(content)), len(content) - 1)] ^= 1
    file.write_bytes(bytes(content))


def edit_json(file: Path, change: Callable[[Any], object]) -> None:
    """Change a stored value, and write it as it was written."""
    value = json.loads(file.read_text())
    change(value)
    write_json(file, value)


@pytest.mark.parametrize("part", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("name", ["weights.safetensors", "snapshots.safetensors", "history.jsonl", "metrics.json"])
def test_a_flipped_bit_is_noticed(copied: Run, name: str, part: float) -> None:
    Run(copied.path).check()
    flip(copied.path / name, part)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        Run(copied.path).check()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("spec.json", lambda spec: spec.update(data="elsewhere")),
        ("origin.json", lambda origin: origin.update(command="vaelab train other")),
        ("metrics.json", lambda metrics: metrics["test"]["metrics"]["mse"].update(value=0.0)),
    ],
)
def test_an_edited_file_is_noticed(copied: Run, name: str, change: Callable[[Any], object]) -> None:
    edit_json(copied.path / name, change)
    with pytest.raises(UserError, match=rf"{name} is damaged \(its content has changed since it was written\)"):
        Run(copied.path).check()
    with pytest.raises(UserError, match="is damaged"):
        summarise_run(Run(copied.path))


def test_weights_of_another_run_are_noticed(copied: Run) -> None:
    tensors, metadata = read_tensors(copied.path / "weights.safetensors")
    write_tensors(copied.path / "weights.safetensors", {n: t + 0.01 for n, t in tensors.items()}, metadata)
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged"):
        _ = Run(copied.path).model


@pytest.fixture
def unsealed(copied: Run) -> Run:
    """A run as earlier versions left it, without digests."""
    edit_json(copied.path / "origin.json", lambda origin: origin.pop("digests"))
    return Run(copied.path)


@pytest.mark.parametrize("setting", ["seed", "lr", "epochs", "latent_dim"])
def test_a_changed_setting_does_not_fit_the_key(unsealed: Run, setting: str) -> None:
    unsealed.check()
    edit_json(unsealed.path / "spec.json", lambda spec: spec.update({setting: spec[setting] + 1}))
    with pytest.raises(UserError, match=r"does not fit the run's spec\.json"):
        _ = Run(unsealed.path).spec


def test_weights_of_another_type_or_that_are_not_finite_are_refused(unsealed: Run) -> None:
    file = unsealed.path / "weights.safetensors"
    tensors, metadata = read_tensors(file)
    name = next(iter(tensors))
    write_tensors(file, tensors | {name: tensors[name].double()}, metadata)
    with pytest.raises(UserError, match=r"does not fit .* holds torch.float64 in place of torch.float32"):
        _ = Run(unsealed.path).model
    write_tensors(file, tensors | {name: tensors[name] * float("nan")}, metadata)
    with pytest.raises(UserError, match="holds NaN or infinite numbers"):
        _ = Run(unsealed.path).model


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("origin.json", lambda o: o["data"].pop("fingerprint"), "data.fingerprint"),
        ("origin.json", lambda o: o["plan"].update(threads=None), "plan.threads"),
        ("origin.json", lambda o: o["plan"].update(more=1), "plan.more"),
        ("origin.json", lambda o: o["data"].update(images=[]), "data.images"),
        ("metrics.json", lambda m: m.update(test=None), "test"),
        ("metrics.json", lambda m: m["test"].update(n="many"), "test.n"),
        ("metrics.json", lambda m: m["test"]["metrics"]["mse"].update(value=None), "test.metrics.mse.value"),
        ("metrics.json", lambda m: m["test"]["metrics"]["mse"].pop("stderr"), "test.metrics.mse.stderr"),
        ("metrics.json", lambda m: m.pop("test"), "test"),
    ],
)
def test_a_wrong_field_is_named(unsealed: Run, name: str, change: Callable[[Any], object], field: str) -> None:
    edit_json(unsealed.path / name, change)
    with pytest.raises(UserError) as caught:
        Run(unsealed.path).check()
    assert f"{name} is damaged (" in str(caught.value)
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[1:], "line 1 holds epoch 2"),
        (lambda rows: [*rows, rows[-1]], "line 13 holds epoch 12"),
        (lambda rows: [rows[0], rows[2], *rows[2:]], "line 2 holds epoch 3"),
        (lambda rows: [rows[0] | {"step": "some"}, *rows[1:]], "line 1: step must be a whole number"),
        (lambda rows: [rows[0] | {"train": None}, *rows[1:]], "line 1: train must be an object"),
        (lambda rows: [rows[0] | {"more": 1}, *rows[1:]], "line 1: it has an unknown field more"),
    ],
)
def test_lost_doubled_and_wrong_lines_of_history_are_named(
    unsealed: Run, change: Callable[[Any], Any], reason: str
) -> None:
    rows = change(unsealed.history)
    (unsealed.path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=rf"history\.jsonl is damaged \({reason}"):
        _ = Run(unsealed.path).history


def test_a_torn_last_line_of_an_unfinished_run_is_dropped(unsealed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    rows = unsealed.history
    with (unsealed.path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 13, "st')
    with pytest.raises(UserError, match=r"history\.jsonl is damaged \(line 13: it is no JSON"):
        _ = Run(unsealed.path).history
    (unsealed.path / "metrics.json").unlink()
    assert Run(unsealed.path).history == rows
    assert "the last line is torn" in capsys.readouterr().err
    write_history(unsealed, rows)
    append_history(unsealed, rows[-1] | {"epoch": 13, "step": rows[-1]["step"] + 1})
    assert len(Run(unsealed.path).history) == 13


def test_what_a_state_was_stored_with_must_still_be_there(unsealed: Run) -> None:
    record = training_record(unsealed)
    rows = unsealed.history
    (unsealed.path / "metrics.json").unlink()
    append_history(unsealed, rows[-1] | {"epoch": 13, "step": rows[-1]["step"] + 1})
    check_training_record(unsealed, record)  # an epoch after the state is no damage
    write_history(unsealed, [rows[0] | {"seconds": 0.5}, *rows[1:]])
    with pytest.raises(UserError, match=r"history\.jsonl is damaged"):
        check_training_record(unsealed, record)
    write_history(unsealed, rows)
    flip(unsealed.path / "snapshots.safetensors", 1.0)
    with pytest.raises(UserError, match=r"snapshots\.safetensors is damaged"):
        check_training_record(unsealed, record)


@pytest.mark.parametrize("name", ["spec.json", "origin.json", "metrics.json", "history.jsonl"])
def test_one_damaged_run_does_not_hide_the_others(
    copied: Run, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(copied.path, tmp_path / "second")
    deep = "[" * 100_000 + "]" * 100_000 + "\n"
    (tmp_path / "second" / name).write_text(deep)
    if name == "history.jsonl":  # which a list reads of unfinished runs alone
        (tmp_path / "second" / "metrics.json").unlink()
    rows = vaelab.list(tmp_path)
    assert [row["path"] for row in rows] == [str(copied.path)]
    assert "second" in capsys.readouterr().err


def test_folders_and_links_in_place_of_files_are_named(copied: Run) -> None:
    (copied.path / "metrics.json").unlink()
    (copied.path / "metrics.json").symlink_to("metrics.json")
    (copied.path / "origin.json").unlink()
    (copied.path / "origin.json").mkdir()
    [run] = find_runs(copied.path.parent)
    with pytest.raises(UserError, match=r"origin\.json is damaged \(it is a folder\)"):
        summarise_run(run)


def test_files_that_a_study_does_not_read_are_looked_at(copied: Run) -> None:
    """By size and time where those were stored, else by their content."""
    copied.check_unread()
    weights, origin = copied.path / "weights.safetensors", copied.origin
    content, status = weights.read_bytes(), weights.stat()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"weights.safetensors is damaged .its content has changed"):
        copied.check_unread()
    weights.write_bytes(content)  # with a new time: it is read
    copied.check_unread()
    update_origin(copied, {"stamps": {"weights.safetensors": [status.st_size, weights.stat().st_mtime_ns]}})
    copied.check_unread()
    weights.unlink()
    with pytest.raises(UserError, match=r"weights.safetensors is damaged .it is missing"):
        copied.check_unread()
    assert set(origin["stamps"]) == {"weights.safetensors", "snapshots.safetensors"}


def test_a_damaged_history_costs_only_what_needs_it(copied: Run, capsys: pytest.CaptureFixture[str]) -> None:
    file = copied.path / "history.jsonl"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(
        HistoryError, match=r"(?s)history.jsonl is damaged .*train it again.*only curves and the doctor"
    ):
        _ = copied.history
    assert vaelab.evaluate(copied, n=20, evidence=0)["n"] == 20
    assert {diagnosis.state for diagnosis in vaelab.doctor(copied)} <= {"alarm", "note", "well", "open"}
    assert "What only the history shows stays open" in capsys.readouterr().err
