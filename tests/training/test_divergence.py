"""Values and weights that are no numbers or absurd stop a run, with the remedy, and leave no finished run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vaelab.cli.main import run_cli
from vaelab.core.errors import UserError
from vaelab.datasets.images import Dataset
from vaelab.models.likelihoods import CrossEntropy, Gaussian, SquaredError
from vaelab.models.networks import Mlp
from vaelab.objectives.terms import LossTerms
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.training.divergence import measurement_error, terms_error, weights_error
from vaelab.training.fit import fit, plan_jobs
from vaelab.training.state import ActiveRun, initial_state

SPEC = Spec(network=Mlp((16,)), distortion=CrossEntropy(), latent_dim=3, epochs=30, batch_size=200)

AT = {"device": "cpu", "precision": "float32", "threads": 1}


@pytest.mark.parametrize("lr", [1e3, 1e4, 1e6, 1e9, 1e18, 1e30])
@pytest.mark.parametrize("distortion", [CrossEntropy(), Gaussian(), SquaredError()], ids=lambda member: member.name)
def test_absurd_learning_rates_end_with_the_sentence(
    lr: float, distortion: CrossEntropy | Gaussian | SquaredError, digits: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"training stopped in epoch \d+, step \d+: the .* became") as error:
        fit([replace(SPEC, lr=lr, distortion=distortion)], digits, tmp_path, **AT)
    assert "Try a lower learning rate" in str(error.value)
    [path] = tmp_path.iterdir()
    assert not Run(path).finished


def test_the_command_line_ends_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "digits", "--network", "mlp:hidden=16", "--lr", "1e5", "--epochs", "20", "--no-figures"]
    assert run_cli([*words, "--out", str(tmp_path)]) == 2
    assert "training stopped in epoch" in capsys.readouterr().err


@pytest.mark.parametrize("lr", [1e-3, 1e-2])
def test_ordinary_training_is_not_stopped(lr: float, digits: Dataset, tmp_path: Path) -> None:
    for distortion in (CrossEntropy(), Gaussian(), Gaussian(sigma=0.001)):
        [run] = fit([replace(SPEC, lr=lr, epochs=3, distortion=distortion)], digits, tmp_path, **AT)
        assert run.finished


def active_run(digits: Dataset, distortion: CrossEntropy | Gaussian) -> ActiveRun:
    [job] = plan_jobs([replace(SPEC, distortion=distortion)], digits, Path("unused"), **AT)  # type: ignore[arg-type]
    return ActiveRun(job, initial_state(job))


def test_limits_are_known_by_name(digits: Dataset) -> None:
    run = active_run(digits, CrossEntropy())
    sound = {"loss": 40.0, "cross_entropy": 39.0, "kl": 1.0}
    assert measurement_error(run, "train", sound) is None
    for name, value, words in [
        ("loss", float("nan"), "became NaN"),
        ("kl", float("inf"), "became infinite"),
        ("kl", 2e16, "became absurdly large, 2e+16"),
        ("cross_entropy", 1e9, "absurdly large"),
        ("loss", -2e16, "absurdly large"),
    ]:
        error = measurement_error(run, "validation", sound | {name: value})
        assert f"the {name} of the validation images" in str(error)
        assert words in str(error)


def test_the_term_that_broke_is_named(digits: Dataset) -> None:
    run = active_run(digits, CrossEntropy())
    good, bad = torch.tensor(1.0), torch.tensor(torch.inf)
    terms = LossTerms(good, good, good, {}, None)  # type: ignore[arg-type]
    assert terms_error(run, terms) is None
    assert "the KL became infinite" in str(terms_error(run, terms._replace(loss=bad, rate=bad)))
    assert "the loss became absurdly large" in str(terms_error(run, terms._replace(loss=torch.tensor(2e16))))


@pytest.mark.parametrize(("value", "word"), [(torch.nan, "NaN"), (-torch.inf, "infinite"), (1e12, "absurdly large")])
def test_weights_are_looked_at(value: float, word: str, digits: Dataset) -> None:
    run = active_run(digits, CrossEntropy())
    assert weights_error(run) is None
    with torch.no_grad():
        next(run.state.model.decoder.parameters()).view(-1)[0] = value
    assert word in str(weights_error(run))


def test_an_absurd_standard_deviation_stops_a_run(digits: Dataset) -> None:
    run = active_run(digits, Gaussian())
    assert weights_error(run) is None
    with torch.no_grad():
        run.state.model.shared.fill_(90.0)  # whose exponential is infinite
    assert "standard deviation became absurdly large" in str(weights_error(run))
