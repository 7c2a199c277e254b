"""A compiled step is the step, and where it cannot be compiled training goes on without."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from vaelab.core import files
from vaelab.core.registry import members
from vaelab.core.tensors import read_tensors
from vaelab.datasets.images import Dataset
from vaelab.models.likelihoods import CrossEntropy
from vaelab.models.networks import Conv, Mlp
from vaelab.objectives.disentangling import FactorVAE
from vaelab.objectives.elbo import BetaVAE
from vaelab.objectives.objective import Objective
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.training import job, loop, optimizer, plan
from vaelab.training.fit import fit
from vaelab.training.plan import choose_plan
from vaelab.training.state import ActiveRun, initial_state
from vaelab.training.steps import compiled, program_cache
from vaelab.training.steps.compiled import CompiledStep
from vaelab.training.steps.eager import EagerStep

SMALL = Spec(network=Mlp((16,)), distortion=CrossEntropy(), latent_dim=3, epochs=2, batch_size=200, lr=3e-3)
VARIANTS = {objective.__name__: {"objective": objective()} for objective in members(Objective)} | {
    "FactorVAE": {"objective": FactorVAE(hidden=(8,))},
    "clip": {"clip": 20.0},
    "warmup": {"objective": BetaVAE(kl_weight=0.5, warmup=0.5, free_bits=0.1)},
    "convolutions": {"network": Conv((4, 8))},
    "linear path": {"network": Conv((4, 8), linear_path=True, output_bias="mean")},
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_the_traced_step_is_the_step(changes: dict[str, object], precision: str, digits: Dataset) -> None:
    spec = replace(SMALL, **changes)  # type: ignore[arg-type]
    images = digits.splits["train"]
    chosen = choose_plan(spec, images, "cpu", precision, threads=1)
    work = job.TrainingJob(Run(Path()), spec, digits, chosen)
    ours, theirs = (ActiveRun(work, initial_state(work)) for _ in range(2))
    traced, static_inputs = None, compiled.static_inputs(spec, ours.state)
    for at in range(3):
        rows = job.epoch_order(work, 0)[at * 200 : (at + 1) * 200]
        inputs = [work.load_pixels(rows, at), job.sample_noise(work, at, 200), torch.tensor(theirs.progress)]
        inputs += [*map(torch.tensor, optimizer.bias_corrections(theirs.learning_rate, float(at))), *static_inputs]
        if traced is None:
            step = compiled.make_step_function(spec, chosen, ours.state)
            traced = make_fx(lambda *inputs, step=step: step(*inputs))(*(tensor.clone() for tensor in inputs))
        with torch.no_grad():
            found = traced(*inputs)
        [terms] = EagerStep(theirs)([rows])
        expected = {"loss": terms.loss, "distortion": terms.distortion, "rate": terms.rate, **terms.extra_terms}
        assert {name: value.item() for name, value in found.items()} == pytest.approx(
            {name: value.item() for name, value in expected.items()}, rel=1e-2 if precision == "bfloat16" else 1e-4
        )
    if precision == "float32":
        for one, other in zip(ours.state.model.parameters(), theirs.state.model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def weights(run: Run) -> dict[str, list[float]]:
    return {name: t.tolist() for name, t in read_tensors(run.path / "weights.safetensors")[0].items()}


@pytest.mark.skipif(not program_cache.find_compiler(), reason="no C++ compiler")
def test_one_program_serves_all_runs_of_a_shape(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    at = {"device": "cpu", "precision": "float32", "threads": 1}
    name, names = compiled.cache_key, []

    def named(*given) -> str:
        names.append(name(*given))
        if len(names) == 1:
            damaged = files.cache_folder() / "programs" / names[0] / "step.so"
            damaged.parent.mkdir(parents=True)
            damaged.write_bytes(b"damaged")  # and so made anew
        return names[-1]

    monkeypatch.setattr(compiled, "cache_key", named)
    [alone] = fit([SMALL], digits, tmp_path / "uncompiled", **at)
    [run] = fit([SMALL], digits, tmp_path / "whole", compiled=True, **at)
    assert capfd.readouterr().err.count("compiling the training step") == 1
    assert (alone.origin["plan"]["compiled"], run.origin["plan"]["compiled"]) == (False, True)
    for ours, theirs in zip(run.history, alone.history, strict=True):
        assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-4)

    other = replace(SMALL, lr=1e-2, seed=1, objective=BetaVAE(kl_weight=0.1), schedule="cosine")
    fit([other], digits, tmp_path / "whole", compiled=True, **at)
    assert "compiling" not in capfd.readouterr().err
    assert len(set(names)) == 1

    take_step = CompiledStep.__call__

    def interrupted(step, rows):
        if step.run.state.step == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return take_step(step, rows)

    monkeypatch.setattr(CompiledStep, "__call__", interrupted)
    with pytest.raises(loop.TrainingInterrupted):
        fit([SMALL], digits, tmp_path / "parts", compiled=True, **at)
    monkeypatch.setattr(CompiledStep, "__call__", take_step)
    [resumed] = fit([SMALL], digits, tmp_path / "parts", **at)
    assert resumed.origin["plan"]["compiled"], "as it began"
    assert weights(resumed) == weights(run)


def test_without_a_compiler_training_goes_on(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "cache"))
    runs = [fit([SMALL], digits, tmp_path / str(wanted), device="cpu", threads=1, compiled=wanted)[0]
            for wanted in (True, False)]  # fmt: skip
    assert [line for line in capfd.readouterr().err.splitlines() if "compile" in line] == [program_cache.NO_COMPILER]
    assert not runs[0].origin["plan"]["compiled"]
    assert weights(runs[0]) == weights(runs[1])


def test_a_compiler_that_fails_is_called_once(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no headers\nand much else")

    monkeypatch.setattr(program_cache, "find_compiler", lambda: os.__file__)
    monkeypatch.setattr(compiled, "compile_step", fail)
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "cache"))
    at = {"device": "cpu", "threads": 1, "compiled": True}
    [first] = fit([SMALL], digits, tmp_path, **at)
    [second] = fit([replace(SMALL, seed=1)], digits, tmp_path, **at)
    said = capfd.readouterr().err.splitlines()
    assert [line for line in said if "compil" in line] == [
        "compiling the training step, once for all runs of this shape",
        "training uncompiled: the training step cannot be compiled (RuntimeError: no headers)",
        said[-1],
    ]
    assert "to try again, remove" in said[-1]
    assert {run.origin["plan"]["compiled"] for run in (first, second)} == {False}


@pytest.mark.parametrize("case", [{"stacked": True}, {"batch_size": 2000}], ids=str)
def test_what_cannot_be_one_program_is_not(case: dict[str, object], digits: Dataset, tmp_path: Path) -> None:
    size = {name: case[name] for name in case if name == "batch_size"}
    specs = [replace(SMALL, seed=seed, **size) for seed in (0, 1)]  # type: ignore[arg-type]
    for run in fit(specs, digits, tmp_path, device="cpu", threads=1, compiled=True, stacked="stacked" in case):
        assert not run.origin["plan"]["compiled"]


def test_long_runs_are_compiled(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    images, enough = (
        digits.splits["train"],
        plan.MIN_COMPILED_STEPS // (len(digits.splits["train"]) // SMALL.batch_size) + 1,
    )
    assert choose_plan(replace(SMALL, epochs=enough), images, "cpu").compiled
    for changes in ({"epochs": enough - 1}, {"minutes": 1.0}, {"batch_size": 2000}):
        assert not choose_plan(replace(SMALL, **({"epochs": enough} | changes)), images, "cpu").compiled
