"""What version 952db17 left on disk: its runs load, resume and keep their keys and bytes; so do its studies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vaelab
from vaelab.runs.spec import run_key
from vaelab.training import plan

MADE = Path(__file__).parent / "fixtures/made_by_952db17"
RUNS = sorted((MADE / "runs").iterdir())
UNFINISHED = next((MADE / "unfinished").iterdir())


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that it left; bfloat16 as it was chosen there, whatever this processor has."""
    monkeypatch.setattr(plan, "has_bfloat16", lambda device: True)
    return Path(shutil.copytree(MADE, tmp_path / "made"))


def computes_like_this_machine(path: Path) -> bool:
    """Whether a run was made with this torch on this kind of processor, and so to the same bytes."""
    machine = json.loads((path / "machine.json").read_text())
    return machine == {"torch": torch.__version__, "processor": processor()}


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def rows(path: Path) -> list[dict[str, Any]]:
    """The history without its wall time."""
    history = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def assert_same_metrics(path: Path, expected: Path) -> None:
    """The metrics that the earlier version measured have the same digits; later ones may stand beside them."""
    found, earlier = (json.loads((folder / "metrics.json").read_text()) for folder in (path, expected))
    assert list(found) == list(earlier)
    for split, record in earlier.items():
        assert found[split]["kl_per_dimension"] == record["kl_per_dimension"]
        for name, metric in record["metrics"].items():
            same = found[split]["metrics"][name]
            assert (same["value"], same["stderr"]) == (metric["value"], metric["stderr"]), (split, name)


@pytest.mark.parametrize("path", [*RUNS, UNFINISHED], ids=lambda path: path.name)
def test_a_run_keeps_its_key(path: Path) -> None:
    run = vaelab.load(path)
    assert run_key(run.spec, run.origin["data"]["fingerprint"], run.origin["plan"]["precision"]) == path.name


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_a_run_is_measured_as_it_was(path: Path) -> None:
    stored = json.loads((path / "metrics.json").read_text())["test"]["metrics"]
    measured = vaelab.evaluate(path, evidence=0)["metrics"]
    assert set(stored) <= set(measured)
    for name, metric in stored.items():
        assert measured[name]["value"] == pytest.approx(metric["value"], rel=1e-4, abs=1e-6), name


def test_an_unfinished_run_goes_on_to_the_same_weights(made: Path) -> None:
    spec = vaelab.load(UNFINISHED).spec
    run = vaelab.train(
        "digits",
        network="mlp:hidden=16",
        latent_dim=2,
        epochs=40,
        batch_size=64,
        keep="best",
        precision="float32",
        threads=1,
        seed=6,
        figures=False,
        out=made / "unfinished",
    )
    assert (run.outcome, run.from_epoch, run.spec) == ("resumed", 3, spec)
    expected = MADE / "expected" / UNFINISHED.name
    weights, expected_weights = (load_file(path / "weights.safetensors") for path in (run.path, expected))
    assert list(weights) == list(expected_weights)
    for name, tensor in weights.items():  # other processors add in another order
        torch.testing.assert_close(tensor, expected_weights[name], rtol=1e-3, atol=1e-4)
    if computes_like_this_machine(expected):
        for name in ("weights.safetensors", "snapshots.safetensors"):
            assert (run.path / name).read_bytes() == (expected / name).read_bytes(), name
        assert rows(run.path) == rows(expected)
        assert_same_metrics(run.path, expected)


def test_a_study_is_found_whole(made: Path) -> None:
    study = made / "studies/small"
    before = {name: (study / name).read_bytes() for name in ("table.csv", "study.toml")}
    claims_before = json.loads((study / "claims.json").read_text())
    done = vaelab.study(made / "small.toml", workers=1, out=made)
    assert done.images_trained == 0
    assert {name: (study / name).read_bytes() for name in before} == before
    claims = json.loads((study / "claims.json").read_text())
    assert [measured(claim) for claim in claims] == [measured(claim) for claim in claims_before]


def test_verdicts_of_an_earlier_study_follow_the_present_rules(made: Path) -> None:
    """Two epochs left most codes empty: what was undecided about them is void now."""
    claims = vaelab.study(made / "small.toml", workers=1, out=made).claims
    verdicts = {(claim["id"], claim["reading"]): claim["verdict"] for claim in claims}
    assert verdicts == {("more", "vae"): "void", ("more", "bare"): "undecided", ("diverse", "vae"): "void"}
    bare = next(claim for claim in claims if claim["reading"] == "bare")
    assert bare["interval_covers"] == "seeds and test images"
    assert "no margin was set" in bare["note"]


def measured(claim: dict[str, Any]) -> dict[str, Any]:
    """What a claim compares and what was measured of it, without the verdict and its intervals."""
    names = ("id", "sentence", "source", "reading", "expected", "n", "means", "decided_by", "effect", "effect_size")
    return {name: claim[name] for name in names}
