"""Runs that are trained as one are the runs that they are alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vaelab.core.errors import UserError
from vaelab.core.registry import members
from vaelab.core.tensors import read_tensors
from vaelab.datasets.images import Dataset
from vaelab.models.likelihoods import CrossEntropy
from vaelab.models.networks import Conv, Mlp
from vaelab.objectives.disentangling import FactorVAE
from vaelab.objectives.elbo import BetaVAE
from vaelab.objectives.importance import ImportanceWeighted
from vaelab.objectives.objective import Objective
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.training.fit import fit
from vaelab.training.plan import program_key
from vaelab.training.steps.stacked import StackedStep

SMALL = Spec(network=Mlp((16,)), distortion=CrossEntropy(), latent_dim=3, epochs=2, batch_size=200, lr=3e-3)
AT = {"device": "cpu", "precision": "float32", "threads": 1}
DIFFERENT = [
    SMALL,
    replace(SMALL, lr=1e-2, seed=1, schedule="cosine", lr_warmup=0.2),
    replace(SMALL, objective=BetaVAE(kl_weight=0.1, warmup=0.5), seed=2, keep="best"),
]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return read_tensors(run.path / "weights.safetensors")[0]


def check_alike(specs: list[Spec], digits: Dataset, folder: Path) -> None:
    together = fit(specs, digits, folder / "together", stacked=True, **AT)
    for spec, run in zip(specs, together, strict=True):
        [alone] = fit([spec], digits, folder / "alone", **AT)
        assert (run.key, run.outcome) == (alone.key, "trained")
        assert run.origin["plan"]["stacked"]
        for name, tensor in weights(alone).items():
            torch.testing.assert_close(weights(run)[name], tensor, rtol=2e-3, atol=2e-4)
        for ours, theirs in zip(run.history, alone.history, strict=True):
            assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("objective", members(Objective))
def test_every_objective_stacks(objective: type, digits: Dataset, tmp_path: Path) -> None:
    spec = replace(SMALL, objective=objective(**({"hidden": (8,)} if objective is FactorVAE else {})))
    check_alike([spec, replace(spec, lr=1e-3, seed=1)], digits, tmp_path)


@pytest.mark.parametrize("shared", [
    {}, {"clip": 20.0}, {"ema": 0.9, "flips": True}, {"network": Conv((4, 8))}, {"batch_size": 97},
    {"network": Conv((4, 8), linear_path=True, output_bias="mean")},
], ids=str)  # fmt: skip
def test_runs_keep_their_own_numbers(shared: dict[str, object], digits: Dataset, tmp_path: Path) -> None:
    check_alike([replace(spec, **shared) for spec in DIFFERENT], digits, tmp_path)  # type: ignore[arg-type]


def test_only_programs_that_agree_are_stacked() -> None:
    assert len({program_key(spec) for spec in DIFFERENT}) == 1
    assert program_key(replace(SMALL, network=Mlp((16,), init="he", output_bias="mean"))) == program_key(SMALL)
    others = {"latent_dim": 4, "epochs": 3, "batch_size": 100, "clip": 1.0, "ema": 0.9, "objective": BetaVAE(k=2)}
    for name, value in others.items():
        assert program_key(replace(SMALL, **{name: value})) != program_key(SMALL)  # type: ignore[arg-type]
    assert program_key(replace(SMALL, objective=ImportanceWeighted(gradient="dreg"))) is None
    assert program_key(replace(SMALL, minutes=1.0)) is None


def test_a_stack_resumes_where_it_was_stopped(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(DIFFERENT, digits, tmp_path / "whole", stacked=True, **AT)
    take_step, taken = StackedStep.__call__, []

    def interrupted(step, rows):
        taken.append(1)
        if len(taken) == 9:
            raise KeyboardInterrupt
        return take_step(step, rows)

    monkeypatch.setattr(StackedStep, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(DIFFERENT, digits, tmp_path / "stopped", stacked=True, **AT)
    monkeypatch.setattr(StackedStep, "__call__", take_step)
    again = fit(DIFFERENT, digits, tmp_path / "stopped", stacked=True, **AT)
    assert {run.outcome for run in again} == {"resumed"}
    for one, other in zip(whole, again, strict=True):
        for name, tensor in weights(one).items():
            assert torch.equal(weights(other)[name], tensor)


def test_a_run_that_breaks_leaves_the_others(digits: Dataset, tmp_path: Path) -> None:
    wild = replace(SMALL, lr=1e18, seed=5)
    with pytest.raises(UserError, match=r"became (NaN|infinite)"):
        fit([*DIFFERENT, wild], digits, tmp_path, stacked=True, **AT)
    runs = [Run(path) for path in tmp_path.iterdir()]
    assert sorted(run.finished for run in runs) == [False, True, True, True]
    [first] = fit([SMALL], digits, tmp_path / "alone", **AT)
    [same] = [run for run in runs if run.key == first.key]
    for name, tensor in weights(first).items():
        torch.testing.assert_close(weights(same)[name], tensor, rtol=2e-3, atol=2e-4)
