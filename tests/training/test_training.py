"""Training: the textbook's numbers, exact repetition, exact resumption, and what stops it."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from vaelab.core.devices import num_processors
from vaelab.core.errors import UserError
from vaelab.core.rng import generator
from vaelab.core.tensors import read_tensors
from vaelab.datasets.images import Dataset
from vaelab.datasets.loading import load_dataset
from vaelab.models.likelihoods import CrossEntropy
from vaelab.models.networks import Conv, Mlp
from vaelab.models.vae import VAE
from vaelab.runs.presets import get_preset
from vaelab.runs.run import Run, load, lock_run
from vaelab.runs.spec import Spec, build_model, spec_to_dict, updated
from vaelab.training import fit as fit_module
from vaelab.training import job, loop, plan, recorder
from vaelab.training.fit import fit, plan_jobs, train_jobs
from vaelab.training.optimizer import Adam, lr_multiplier
from vaelab.training.plan import choose_plan
from vaelab.training.state import TrainingState
from vaelab.training.steps.eager import EagerStep

SMALL = Spec(network=Mlp((16,)), distortion=CrossEntropy(), latent_dim=3, epochs=2, batch_size=200)


def train(spec: Spec, dataset: Dataset, out: Path, **plan: object) -> Run:
    return fit([spec], dataset, out, **{"device": "cpu", "precision": "float32", "threads": 1} | plan)[0]  # type: ignore[arg-type]


def weights(run: Run) -> bytes:
    return (run.path / "weights.safetensors").read_bytes()


def rows(run: Run) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


def test_the_loop_is_the_textbook_one(digits: Dataset, tmp_path: Path) -> None:
    """The weights of `fit` are those of a plain loop with torch.optim.Adam and the loss written out."""
    run = train(SMALL, digits, tmp_path)
    x = torch.from_numpy(digits.splits["train"].uint8()).float() / 255
    model = build_model(SMALL, (1, 8, 8), SMALL.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=SMALL.lr)
    step = 0
    for epoch in range(SMALL.epochs):
        order = torch.randperm(len(x), generator=generator(0, "order", epoch))
        for part in order.split(SMALL.batch_size):
            mean, logvar = model.encoder(x[part]).chunk(2, 1)
            noise = torch.randn(len(part), 3, generator=generator(0, "noise", step))
            y = model.decoder(mean + (logvar / 2).exp() * noise).sigmoid()
            loss = torch.nn.functional.binary_cross_entropy(y, x[part], reduction="sum")
            loss = (loss - 0.5 * (1 + logvar - mean**2 - logvar.exp()).sum()) / len(part)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    assert step == run.history[-1]["step"]
    for name, theirs in model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], theirs, atol=2e-6, rtol=1e-5)


VARIANTS = {
    "plain": {},
    "everything": {"ema": 0.9, "clip": 5.0, "flips": True, "schedule": "cosine", "lr_warmup": 0.2, "keep": "best",
                   "objective": "beta:warmup=0.5,free_bits=0.1"},
    "found": {"loss": "gaussian:sigma=optimal", "binarise": "dynamic"},
    "factor": {"objective": "factor:hidden=8"},
    "importance": {"objective": "iwae:k=3,gradient=dreg"},
    "report-a": {"network": "report-a:channels=2,hidden=8", "loss": "se"},
}  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_interrupted_anywhere_and_resumed_is_the_undisturbed_run(
    changes: dict[str, object], precision: str, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = updated(SMALL, changes)
    digits = load_dataset("digits", **spec.data_settings)
    whole = train(spec, digits, tmp_path / "whole", precision=precision)
    take_step = EagerStep.__call__
    for stop in (3, 7, 9):  # within the first epoch, at the end of it, in the second

        def interrupted(step, rows, stop=stop):
            if step.run.state.step == stop - 1:
                os.kill(os.getpid(), signal.SIGINT)
            return take_step(step, rows)

        monkeypatch.setattr(EagerStep, "__call__", interrupted)
        with pytest.raises(loop.TrainingInterrupted):
            train(spec, digits, tmp_path / "parts", precision=precision)
    monkeypatch.setattr(EagerStep, "__call__", take_step)
    resumed = train(spec, digits, tmp_path / "parts", precision=precision)
    assert (resumed.outcome, resumed.from_epoch) == ("resumed", 1)
    assert weights(resumed) == weights(whole)
    assert rows(resumed) == rows(whole)
    assert resumed.metrics == whole.metrics
    assert not (resumed.path / "state").exists()


def test_a_resumed_run_computes_as_it_began(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_step, threads = EagerStep.__call__, []

    def watched(step, rows):
        threads.append(torch.get_num_threads())
        if len(threads) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return take_step(step, rows)

    monkeypatch.setattr(EagerStep, "__call__", watched)
    with pytest.raises(loop.TrainingInterrupted):
        fit([SMALL], digits, tmp_path, device="cpu", threads=1)
    monkeypatch.setattr(fit_module, "choose_plan", lambda *given: replace(choose_plan(*given), threads=2))
    [run] = fit([SMALL], digits, tmp_path, device="cpu")
    assert set(threads) == {1}
    assert run.origin["plan"]["threads"] == 1


TRAIN = """
import json, sys
from pathlib import Path
from vaelab.datasets.loading import load_dataset
from vaelab.runs.spec import spec_from_dict
from vaelab.training.fit import fit
spec, out = spec_from_dict(json.loads(sys.argv[1])), Path(sys.argv[2])
fit([spec], load_dataset("digits", validation=0.1), out, device="cpu", precision="float32", threads=1)
"""


def test_killed_without_warning_it_resumes_exactly(digits: Dataset, tmp_path: Path) -> None:
    spec = replace(SMALL, epochs=40, network=Mlp((256,)), batch_size=20)
    whole = train(spec, digits, tmp_path / "whole")
    command = [sys.executable, "-c", TRAIN, json.dumps(spec_to_dict(spec)), str(tmp_path / "killed")]
    history = tmp_path / "killed" / whole.key / "history.jsonl"
    for epochs in (2, 9):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (history.exists() and len(history.read_text().splitlines()) >= epochs):
            time.sleep(0.01)
        process.kill()
        process.wait()
    killed = train(spec, digits, tmp_path / "killed")
    assert killed.outcome == "resumed"
    assert weights(killed) == weights(whole)
    assert rows(killed) == rows(whole)


def test_a_finished_run_is_returned_and_not_trained_again(digits: Dataset, tmp_path: Path) -> None:
    first = train(SMALL, digits, tmp_path)
    again = train(SMALL, digits, tmp_path)
    assert (first.outcome, first.images_trained) == ("trained", 2 * len(digits.splits["train"]))
    assert (again.outcome, again.images_trained, again.from_epoch) == ("existing", 0, 2)
    assert first == again


def test_the_seed_fixes_weights_order_and_noise(digits: Dataset, tmp_path: Path) -> None:
    one, two = (train(SMALL, digits, tmp_path / name) for name in "ab")
    other = train(replace(SMALL, seed=1), digits, tmp_path)
    assert weights(one) == weights(two)
    assert weights(one) != weights(other)
    assert one.path.name == two.path.name


def test_training_learns(trained: Run) -> None:
    losses = [row["validation"]["loss"] for row in trained.history]
    assert losses[-1] < losses[0]
    assert set(trained.metrics) == {"validation", "test"}
    best = trained.metrics["test"]["metrics"]["mse"]["value"]
    pixels = trained.images("train").uint8() / 255
    assert best < pixels.var(axis=0).mean(), "better than the mean image"


def test_a_run_starts_at_the_mean_training_image(digits: Dataset, tmp_path: Path) -> None:
    network = Mlp((16,), init="glorot", output_bias="mean")
    run = train(replace(SMALL, network=network, epochs=1, lr=1e-12), digits, tmp_path)
    mean = torch.from_numpy(digits.splits["train"].uint8()).float().mean(0) / 255
    for model in (run.model, load(run.path).model):
        torch.testing.assert_close(model.get_parameter("decoder.2.bias").sigmoid(), mean.flatten().clamp(0.001, 0.999))
        assert model.get_parameter("encoder.3.bias").abs().max() < 1e-9


def test_averaged_and_best_weights_are_the_ones_kept(digits: Dataset, tmp_path: Path) -> None:
    plain = train(SMALL, digits, tmp_path)
    averaged = train(replace(SMALL, ema=0.5), digits, tmp_path)
    assert weights(plain) != weights(averaged)
    worse = replace(SMALL, keep="best", lr=1.0, epochs=3)
    run = train(worse, digits, tmp_path)
    losses = [row["validation"]["loss"] for row in run.history]
    assert run.metrics["validation"]["metrics"]["loss"]["value"] == pytest.approx(min(losses), rel=1e-4)


def test_a_child_starts_from_its_parents_weights(digits: Dataset, tmp_path: Path) -> None:
    parent = train(SMALL, digits, tmp_path)
    spec = replace(SMALL, parent=parent.key, lr=1e-30)
    child = fit([spec], digits, tmp_path, device="cpu", precision="float32", threads=1, parent=parent)[0]
    for name, tensor in parent.model.state_dict().items():
        torch.testing.assert_close(child.model.state_dict()[name], tensor)
    assert child.origin["parent"] == str(parent.path)
    with pytest.raises(UserError, match="do not fit"):
        fit([replace(spec, latent_dim=4)], digits, tmp_path, device="cpu", precision="float32", parent=parent)
    assert len(list(tmp_path.glob("*/spec.json"))) == 2, "what was refused leaves no run behind"


def test_nan_stops_with_the_term_and_the_remedy(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"training stopped in epoch 1, step \d+: the distortion.*became (NaN|infinite)"
    ) as error:
        train(replace(SMALL, lr=1e30), digits, tmp_path)
    assert "--lr" in str(error.value)


def test_nan_of_the_last_step_is_never_written(digits: Dataset, tmp_path: Path) -> None:
    """The step itself was fine, its weights are not: the epoch's measurement finds out."""
    spec = replace(SMALL, lr=1e30, batch_size=5000, epochs=1)
    with pytest.raises(UserError, match=r"training stopped in epoch 1, step 1: the .* of the train images became"):
        train(spec, digits, tmp_path)
    [file] = tmp_path.glob("*/history.jsonl")
    assert file.read_text() == ""
    assert not list(tmp_path.glob("*/weights.safetensors"))


def test_a_key_is_never_a_lie(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"loaded with validation 0\.1, the spec has 0\.3"):
        train(replace(SMALL, validation=0.3), digits, tmp_path)
    with pytest.raises(ValueError, match="the spec's parent is abc"):
        train(replace(SMALL, parent="abc"), digits, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_thin_history_has_rows_of_the_complete_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the same weights, also where the best ones are kept and the run is interrupted between two rows."""
    monkeypatch.setattr(recorder, "MAX_COMPLETE_EPOCHS", 10)
    monkeypatch.setattr(recorder, "THIN_ROWS", 6)
    digits = load_dataset("digits", validation=0.1, subset=40)
    spec = replace(SMALL, subset=40, batch_size=40, epochs=22, keep="best", ema=0.9)

    def train_thin(out: Path) -> Run:
        jobs = plan_jobs([spec], digits, out, device="cpu", precision="float32", threads=1, thin_history=True)
        return train_jobs(jobs).runs_or_raise()[0]

    complete, thin = train(spec, digits, tmp_path / "complete"), train_thin(tmp_path / "thin")
    assert len(complete.history) == 22
    epochs = [row["epoch"] for row in thin.history]
    assert epochs == [1, 4, 8, 12, 16, 20, 22]
    assert rows(thin) == [row for row in rows(complete) if row["epoch"] in epochs]
    assert weights(thin) == weights(complete)

    take_step = EagerStep.__call__

    def interrupted(step, step_rows):
        if step.run.state.step == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return take_step(step, step_rows)

    monkeypatch.setattr(EagerStep, "__call__", interrupted)
    with pytest.raises(loop.TrainingInterrupted):
        train_thin(tmp_path / "parts")
    monkeypatch.setattr(EagerStep, "__call__", take_step)
    resumed = train_thin(tmp_path / "parts")
    assert (rows(resumed), weights(resumed)) == (rows(thin), weights(thin))


def test_a_time_budget_becomes_steps_once(digits: Dataset, tmp_path: Path) -> None:
    run = train(replace(SMALL, minutes=0.02), digits, tmp_path)
    assert run.history[-1]["step"] == run.origin["plan"]["steps"] > 1


def test_snapshots_show_the_same_images_at_chosen_epochs(digits: Dataset, tmp_path: Path) -> None:
    run = train(replace(SMALL, epochs=3), digits, tmp_path, snapshots=[1])
    kept, _ = read_tensors(run.path / "snapshots.safetensors")
    assert set(kept) == {"originals", "epoch-00001", "epoch-00003"}
    assert kept["epoch-00003"].shape == kept["originals"].shape == (8, 1, 8, 8)


def test_two_processes_do_not_train_one_run(digits: Dataset, tmp_path: Path) -> None:
    done = train(SMALL, digits, tmp_path / "other")
    run = Run(tmp_path / "here" / done.key)
    with lock_run(run), pytest.raises(UserError, match="another process is training"):
        train(SMALL, digits, tmp_path / "here")


def test_a_run_finished_by_another_process_is_left_as_it_is(digits: Dataset, tmp_path: Path) -> None:
    run = train(SMALL, digits, tmp_path)
    before = weights(run), rows(run)
    (run.path / "state").mkdir()  # as of a process that looked before the other one had finished, or was killed then
    (run.path / ".weights-0123abcd.safetensors").touch()
    again = train(SMALL, digits, tmp_path)
    assert (again.outcome, again.images_trained) == ("existing", 0)
    assert (weights(run), rows(run)) == before
    assert not list(run.path.glob(".*"))
    assert not (run.path / "state").exists()


def test_an_optimal_sigma_is_that_of_the_training_images(digits: Dataset, tmp_path: Path) -> None:
    run = train(updated(SMALL, {"loss": "gaussian:sigma=optimal", "epochs": 5}), digits, tmp_path)
    sigma = run.model.shared.exp().item()
    x = torch.from_numpy(digits.splits["train"].uint8()).float() / 255
    residual = (
        run.model(x, torch.randn(len(x), 3, generator=generator("residual"))).params.pixels.sigmoid() - x
    ).square()
    assert sigma == pytest.approx(residual.mean().sqrt().item(), rel=0.02)
    assert f"{sigma:.3g}" in (run.spec.loss.describe_fit(run.model.shared, 1.0) or "")
    row = run.history[-1]["validation"]
    assert row["loss"] == pytest.approx(row["negative_elbo"], rel=1e-6), "the same sigma in the loss and in the bound"


def test_binarised_pixels_are_drawn_once_or_at_each_visit(digits: Dataset, tmp_path: Path) -> None:
    fixed, dynamic = (load_dataset("digits", validation=0.1, binarise=mode) for mode in ("fixed", "dynamic"))
    grey = digits.splits["train"].uint8() / 255
    for dataset in (fixed, dynamic):
        assert all((images.uint8() % 255 == 0).all() for images in dataset.splits.values())
    assert (fixed.splits["test"].uint8() == dynamic.splits["test"].uint8()).all(), "evaluation sees one draw"
    drawn = fixed.splits["train"].uint8() / 255
    assert abs(drawn - grey).max() < 1, "black stays black and white stays white"
    assert abs((drawn - grey).mean()) < 4 * math.sqrt((grey * (1 - grey)).mean() / grey.size)
    rows = np.arange(50)
    for mode, dataset in {"fixed": fixed, "dynamic": dynamic}.items():
        spec = replace(SMALL, binarise=mode)
        chosen = choose_plan(spec, dataset.splits["train"], "cpu", threads=1)
        work = job.TrainingJob(Run(tmp_path), spec, dataset, chosen)
        visits = [work.load_batch(rows, step) for step in range(200)]
        assert all(((x == 0) | (x == 1)).all() for x in visits)
        assert torch.equal(work.load_batch(rows, 7), visits[7])
        if mode == "fixed":
            assert all(torch.equal(x, visits[0]) for x in visits)
        else:
            mean = torch.stack(visits).mean(0).numpy()
            assert abs(mean - grey[rows]).max() < 5 * 0.5 / math.sqrt(200)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_rise_and_end(schedule: str) -> None:
    spec = updated(SMALL, {"schedule": schedule, "lr_warmup": 0.1})
    factors = [lr_multiplier(spec, done, 0.01) for done in torch.linspace(0, 1, 101).tolist()]
    assert factors[:10] == sorted(factors[:10])
    assert max(factors) <= 1 + 1e-9
    assert factors[10] == pytest.approx(1, abs=0.01)
    assert factors[-1] == pytest.approx(1 if schedule == "constant" else 0, abs=1e-9)
    assert all(after <= before + 1e-6 for before, after in pairwise(factors[10:]))


def test_plans_are_refused_by_name(digits: Dataset) -> None:
    with pytest.raises(UserError, match='device "tpu" is not on this machine'):
        choose_plan(SMALL, digits.splits["train"], device="tpu")
    with pytest.raises(UserError, match='got "float16"'):
        choose_plan(SMALL, digits.splits["train"], precision="float16")
    with pytest.raises(UserError, match="threads must be from 1 to"):
        choose_plan(SMALL, digits.splits["train"], threads=0)


def test_threads_follow_from_the_work_and_convolutions_get_one(digits: Dataset) -> None:
    train_images = digits.splits["train"]
    assert choose_plan(SMALL, train_images, device="cpu").threads == 1
    large = replace(SMALL, network=Mlp((4000, 4000)))
    assert choose_plan(large, train_images, device="cpu").threads == num_processors()
    convolutions = replace(get_preset("report-a", "faces"), size=None, network=Conv((64, 64)), batch_size=1000)
    chosen = choose_plan(convolutions, train_images, device="cpu")
    assert chosen.threads == 1
    assert choose_plan(convolutions, train_images, device="cpu", threads=num_processors()).threads == num_processors()
    if num_processors() > 1:
        assert f"--threads {num_processors()}" in plan.explain_plan(convolutions, chosen)
    multiply_adds = plan.count_multiply_adds(get_preset("textbook", "mnist"), (1, 28, 28))
    assert multiply_adds == 2 * 784 * 400 + 60 * 400 + 840 + 784


def test_threads_wait_passively_for_each_other() -> None:
    """Set before torch is imported; what the user set stays."""
    code = "import os, vaelab; print(os.environ['OMP_WAIT_POLICY'], os.environ.get('GOMP_SPINCOUNT'))"
    ours = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    for policy in (None, "active"):
        given = environment | ({"OMP_WAIT_POLICY": policy} if policy else {})
        printed = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
        assert printed.stdout.split() == ([policy, "None"] if policy else ["passive", "3000"])


def test_averaging_moves_towards_the_present_weights() -> None:
    model = VAE(Mlp((4,)), CrossEntropy(), (1, 8, 8), 2)
    present = copy.deepcopy(model)
    state = TrainingState(present, present, Adam(present, present), copy.deepcopy(model))
    with torch.no_grad():
        for p in state.model.parameters():
            p.add_(1)
    state.update_ema(0.75)
    for before, after in zip(model.parameters(), state.eval_model.parameters(), strict=True):
        torch.testing.assert_close(after, before + 0.25)


def test_failures_are_part_of_the_result_where_asked(digits: Dataset, tmp_path: Path) -> None:
    specs = [SMALL, replace(SMALL, lr=1e30, seed=1)]
    jobs = plan_jobs([*specs, SMALL], digits, tmp_path, device="cpu", threads=1)
    assert len(jobs) == 2, "each run once"
    assert not list(tmp_path.iterdir()), "planning writes nothing"
    result = train_jobs(jobs)
    assert [run.key for run in result.runs] == [jobs[0].key]
    assert list(result.failures) == [jobs[1].key]
    with pytest.raises(UserError, match="training stopped"):
        result.runs_or_raise()
