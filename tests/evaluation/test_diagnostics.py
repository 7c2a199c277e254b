"""The doctor: each sickness that is made on purpose is found, and a healthy run raises no alarm."""

from __future__ import annotations

import math
import shlex
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vaelab import api
from vaelab.cli import main
from vaelab.cli.arguments import parse_arguments
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.loading import load_dataset
from vaelab.evaluation import diagnostics
from vaelab.evaluation.diagnostics import Diagnosis, LatentStats, RunContext, compute_latent_stats, diagnose, new_alarms
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec, to_argv, updated
from vaelab.training.fit import fit

EARLIER_RUN = sorted((Path(__file__).parents[1] / "fixtures/made_by_952db17/runs").iterdir())[0]

BASE = Spec(latent_dim=6, epochs=25, batch_size=64, lr=2e-3, validation=0.2)
SICK: dict[str, tuple[str, dict[str, Any]]] = {
    "collapse": ("posterior collapse", {"objective": "beta:kl_weight=1000"}),
    "wide": ("sigma far from the residual", {"loss": "se"}),
    "narrow": ("sigma far from the residual", {"loss": "gaussian:sigma=0.01"}),
    "hole": ("prior hole", {"objective": "beta:kl_weight=0.0001"}),
    "overfit": ("overfitting", {"subset": 80, "epochs": 300}),
    "fast": ("learning rate too high", {"lr": 0.06}),
    "slow": ("learning rate too low, or too few epochs", {"lr": 1e-5}),
}


def findings(changes: dict[str, Any], out: Path) -> dict[str, Diagnosis]:
    spec = updated(BASE, changes)
    dataset = load_dataset("digits", **spec.data_settings)
    [run] = fit([spec], dataset, out, device="cpu", precision="float32", threads=1)
    seen = compute_latent_stats(run.model, dataset.splits["validation"])
    return {f.ailment: f for f in diagnose(RunContext(spec, run.history, run.model, seen))}


@pytest.mark.parametrize(("ailment", "changes"), SICK.values(), ids=SICK)
def test_a_sickness_made_on_purpose_is_found_with_a_remedy_that_can_be_run(
    ailment: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    found = findings(changes, tmp_path)[ailment]
    assert found.state == "alarm", found
    assert any(c.isdigit() for c in found.number)
    words = found.remedy.split()
    assert words[:3] == ["vaelab", "train", "digits"]
    _, bound = parse_arguments("train", api.train, words[1:])
    assert bound.arguments["data"] == "digits"


def test_a_healthy_run_raises_no_alarm(tmp_path: Path) -> None:
    assert not [f for f in findings({}, tmp_path).values() if f.state == "alarm"]


def test_notes_are_no_alarms(tmp_path: Path) -> None:
    assert findings({"loss": "ce"}, tmp_path)["cross entropy read as likelihood"].state == "note"
    seen = LatentStats(10.0, 3, (-2.0, 0.1), (0.2, 0.0), 0.1, True)
    found = diagnostics.check_dead_dimensions(RunContext(Spec(latent_dim=20), [], None, seen))
    assert (found.state, found.number) == ("note", "17 of 20 dimensions are not in use")
    assert "--latent-dim 6" in found.remedy


def test_warnings_come_once_and_while_training_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    findings({"objective": "beta:kl_weight=1000"}, tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning after epoch")]
    assert len(said) == 1
    assert said[0].startswith(f"warning after epoch {diagnostics.MIN_EPOCHS}: posterior collapse: KL ")


def rows(*losses: float) -> list[dict[str, Any]]:
    terms = [{"loss": loss, "kl": 5.0} for loss in losses]
    return [{"epoch": i, "train": t, "validation": t} for i, t in enumerate(terms, 1)]


def test_curves_that_fall_are_well_and_short_ones_open() -> None:
    assert not new_alarms(Spec(), rows(100, 60, 50, 46, 45, 44.8))
    assert diagnostics.check_low_learning_rate(RunContext(Spec(), rows(100, 60, 50, 46, 45, 44.8))).state == "well"
    assert diagnostics.check_low_learning_rate(RunContext(Spec(), rows(100, 95, 90, 85, 80))).state == "alarm"
    assert diagnostics.check_low_learning_rate(RunContext(Spec(), rows(100, 95))).state == "open"
    assert [f.ailment for f in new_alarms(Spec(), rows(100, 50, 45, 44, 43, 70))] == ["learning rate too high"]


@pytest.mark.parametrize(
    ("stats", "terms"),
    [
        (LatentStats(2e16, 3, (-2.0, 0.1), (0.2, 0.0), 0.1, False), {"loss": 2e16, "kl": 2e16}),
        (LatentStats(10.0, 3, (-2.0, 0.1), (0.2, 0.0), math.inf, False), {"loss": 10.0, "kl": 10.0}),
        (LatentStats(math.nan, 0, (math.nan, math.nan), (math.nan, math.nan), math.nan, False), {"loss": 1.0, "kl": 1}),
        (None, {"loss": math.inf, "kl": 1.0}),
        (None, {"loss": 10.0, "kl": math.nan}),
        (None, {"loss": 2e16, "kl": 2e16}),
    ],
)
def test_absurd_numbers_are_never_well(stats: LatentStats | None, terms: dict[str, float]) -> None:
    history = [{"epoch": epoch, "train": terms, "validation": terms} for epoch in range(1, 9)]
    first, *others = diagnose(RunContext(Spec(lr=3.0), history, None, stats))
    assert (first.ailment, first.state) == ("divergence", "alarm")
    assert "--lr 0.001" in first.remedy
    assert "--clip" in first.remedy
    assert {diagnosis.state for diagnosis in others} == {"open"}


def test_a_sigma_that_is_infinite_has_diverged(trained: Run) -> None:
    model = deepcopy(trained.model)
    model.shared.fill_(200.0)
    first = diagnose(RunContext(trained.spec, trained.history, model))[0]
    assert (first.ailment, first.state) == ("divergence", "alarm")
    assert "sigma inf" in first.number


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_diagnosed_and_used_by_nothing_else(number: float, tmp_path: Path) -> None:
    path = Path(shutil.copytree(EARLIER_RUN, tmp_path / "runs" / EARLIER_RUN.name))
    tensors, metadata = read_tensors(path / "weights.safetensors")
    next(iter(tensors.values())).view(-1)[0] = number
    write_tensors(path / "weights.safetensors", tensors, metadata)
    first, *others = api.doctor(path)
    assert (first.ailment, first.state) == ("divergence", "alarm")
    assert {diagnosis.state for diagnosis in others} == {"open"}
    for command in (
        ["evaluate", path],
        ["sample", path, "--out", tmp_path / "samples.png"],
        ["embed", path, "digits", "--out", tmp_path / "codes.parquet"],
        ["interpolate", path, "--out", tmp_path / "paths.png"],
        ["report", path],
    ):
        assert main.run_cli([str(word) for word in command]) == 2, command
    assert not list(tmp_path.glob("*.p*"))


def test_the_command_to_try_keeps_the_other_flags() -> None:
    spec = updated(Spec(), {"objective": "beta:kl_weight=50,warmup=0.2,free_bits=0.1", "lr": 0.05, "batch_size": 64})
    command = "vaelab train digits --lr 0.05 --out my/runs --threads 2 --device=cpu --no-figures --batch-size 64"
    context = RunContext(spec, rows(*[100.0] * 9), command=command)
    context = replace(context, history=[{**row, "train": {"loss": 9.0, "kl": 0.0}} for row in context.history])
    diagnosis = diagnostics.check_collapse(context)
    words = shlex.split(diagnosis.remedy)
    assert "beta:warmup=0.2,free_bits=0.1" in words
    assert words[-6:] == ["--out", "my/runs", "--threads", "2", "--device=cpu", "--no-figures"]
    assert words[words.index("--lr-warmup") + 1] == "0.1"
    assert words[words.index("--batch-size") + 1] == "64"
    assert words[words.index("--lr") + 1] == "0.001"


def test_the_verb_prints_alarms_first(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run_cli(["doctor", str(trained.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    states = [line.split()[0] for line in lines if not line.startswith(" ")]
    order = ["alarm", "note", "well", "open"]
    assert [s for s in states if s in order] == sorted((s for s in states if s in order), key=order.index)


def test_flags_give_the_spec_again() -> None:
    spec = updated(Spec(data="a folder"), {"loss": "gaussian:sigma=pixel", "network": "mlp:hidden=30,20", "flips": True,
                                          "objective": "iwae:k=3", "size": 32, "binarise": "fixed"})  # fmt: skip
    words = to_argv(replace(spec, seed=4))
    _, bound = parse_arguments("train", api.train, ["train", *words])
    given = {name: value for name, value in bound.arguments.items() if name != "data"}
    assert updated(Spec(data=bound.arguments["data"]), given) == replace(spec, seed=4)


def test_overfitting_is_no_alarm_where_the_best_weights_are_kept() -> None:
    from vaelab.evaluation.diagnostics import RunContext, check_overfitting
    from vaelab.runs.spec import Spec

    history = []
    for epoch, validation in enumerate((9.0, 5.0, 4.0, 5.0, 6.0, 7.0), 1):
        terms = {"loss": validation, "kl": 3.0}
        history.append({"epoch": epoch, "train": {"loss": 10.0 - epoch, "kl": 3.0}, "validation": terms})
    assert check_overfitting(RunContext(Spec(), history)).state == "alarm"
    diagnosis = check_overfitting(RunContext(Spec(keep="best"), history))
    assert (diagnosis.state, diagnosis.remedy) == ("note", "")
    assert "the weights of epoch 3 are kept" in diagnosis.meaning
