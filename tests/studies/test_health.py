"""Sick runs: found by the doctor's checks from stored statistics, with the number and its bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaelab.objectives.elbo import BetaVAE
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.studies.health import SickRun, diverged_run, find_sickness
from vaelab.studies.quantities import RunRecord

SOUND = {
    "finite": 1.0,
    "kl": 10.0,
    "active_units": 6.0,
    "smallest_logvar": -4.0,
    "largest_logvar": 0.0,
    "aggregate_gap": 1.0,
    "aggregate_gap_error": 0.1,
    "residual": 0.1,
    "binary": 0.0,
}

HISTORY = [{"epoch": epoch, "train": {"loss": 50.0, "kl": 10.0}, "validation": {}} for epoch in range(1, 9)]


def sickness(changes: dict[str, float], kl_weight: float = 1.0, analyses: tuple[str, ...] = ()) -> SickRun | None:
    record = RunRecord({}, HISTORY, {"health": SOUND | changes})
    return find_sickness(record, Spec(latent_dim=8, objective=BetaVAE(kl_weight)), analyses, "8", 3)


def test_a_sound_run() -> None:
    assert sickness({}) is None
    assert sickness({}, analyses=("samples",)) is None
    assert find_sickness(RunRecord({}, HISTORY, {}), Spec(), (), "8", 3) is None, "an earlier version told nothing"


@pytest.mark.parametrize(
    ("changes", "ailment", "number"),
    [
        ({"kl": 0.49, "active_units": 0}, "posterior collapse", "KL 0.49 nats, 0 of 8 dimensions active"),
        ({"kl": 0.6, "active_units": 0}, "posterior collapse", "KL 0.6 nats, 0 of 8 dimensions active"),
        ({"kl": 9e5}, "divergence", "KL 9e+05"),
        ({"residual": 101.0}, "divergence", "residual 101"),
        ({"finite": 0.0}, "divergence", "weights that are NaN or infinite"),
    ],
)
def test_a_sick_run_has_its_number(changes: dict[str, float], ailment: str, number: str) -> None:
    found = sickness(changes)
    assert found is not None
    assert (found.setting, found.seed, found.ailment, found.number) == ("8", 3, ailment, number)
    assert found.bound
    assert found.text.startswith("8, seed 3, ")


def test_the_bounds_themselves_are_sound() -> None:
    assert sickness({"kl": 0.5}) is None
    assert sickness({"kl": 8e5, "residual": 100.0}) is None


def test_without_a_weight_of_the_kl_nothing_collapses() -> None:
    assert sickness({"kl": 0.1, "active_units": 0}, kl_weight=0) is None


@pytest.mark.parametrize(("gap", "is_sick"), [(2.1, False), (2.3, True)])
def test_a_hole_in_the_prior_matters_where_samples_are_judged(gap: float, is_sick: bool) -> None:
    """A fifth of the KL, less two standard errors."""
    hole = {"aggregate_gap": gap}
    assert sickness(hole, analyses=("features",)) is None
    found = sickness(hole, analyses=("samples",))
    assert (found is not None) == is_sick
    if found:
        assert found.ailment == "prior hole"
        assert found.bound == "at most 20 % of the KL"


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("training stopped in epoch 2, step 9: the loss became NaN.\nTry a lower\n", True),
        ("killed by signal 9\n", False),
        (None, False),
    ],
)
def test_a_run_that_stopped_because_it_diverged(log: str | None, found: bool, tmp_path: Path) -> None:
    if log:
        (tmp_path / "failure.log").write_text(log)
    diverged = diverged_run(Run(tmp_path), "8", 3)
    assert (diverged is not None) == found
    if diverged:
        assert diverged.number == "training stopped in epoch 2, step 9: the loss became NaN"
