"""Quantities: the value of an expression over what a run left behind, and what is refused."""

from __future__ import annotations

import pytest

from vaelab.core.errors import UserError
from vaelab.studies.quantities import Quantity, RunRecord

RECORD = RunRecord(
    {"test": {"mse": 0.5, "kl": 8.0}, "validation": {"mse": 0.25}},
    [{"epoch": e, "train": {"loss": 100.0 / e, "kl": 1.0}, "validation": {"loss": 120.0 / e}} for e in (1, 2, 4)],
    {"features": {"correlation": 0.9}},
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mse", 0.5),
        ("validation.mse", 0.25),
        ("mse / 2 - -kl * 3", 24.25),
        ("features.correlation", 0.9),
        ("first(loss)", 120),
        ("last(train.loss)", 25),
        ("at(loss, 3)", 45),
        ("fall(loss)", 90),
        ("area(loss)", (90 + 2 * 45) / 3),
        ("epochs_to(loss, 90)", 1.5),
        ("epochs_to(loss, 1)", 4),
        ("epochs_to(loss)", 4),
    ],
)
def test_measures(text: str, value: float) -> None:
    assert Quantity(text).value(RECORD) == pytest.approx(value)


def test_the_common_level_is_what_the_slowest_reaches() -> None:
    slow = RunRecord(
        {}, [dict(row) | {"validation": {"loss": row["validation"]["loss"] + 30}} for row in RECORD.history], {}
    )
    assert Quantity("epochs_to(loss)").value(RECORD, [RECORD, slow]) == pytest.approx(2)
    assert Quantity("epochs_to(loss)").value(slow, [RECORD, slow]) == pytest.approx(4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mze", 'did you mean "mse"'),
        ("fal(loss)", 'did you mean "fall"'),
        ("at(mse, 3)", 'unknown name in the measure "at\\(mse, 3\\)" "mse"'),
        ("mse if kl else 0", "not made of"),
        ("__import__('os')", "unknown function"),
        ("mse **", "no expression"),
    ],
)
def test_measures_that_mean_nothing_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Quantity(text)


def test_what_a_run_does_not_have_is_said() -> None:
    cases = [
        ("ssim", "unknown number of test"),
        ("at(loss, 9)", "epoch 9 is not on it"),
        ("features.corelation", 'did you mean "correlation"'),
        ("mse / (kl - kl)", "divides by zero"),
    ]
    for text, said in cases:
        with pytest.raises(UserError, match=said):
            Quantity(text).value(RECORD)


@pytest.mark.parametrize(
    ("text", "is_about_models"),
    [
        ("mse", True),
        ("last(kl)", True),
        ("features.codes_ari - features.raw_ari", True),
        ("features.correlation", True),
        ("features.correlation_classifier", False),
        ("features.classifier_tsne_ratio / features.raw_tsne_ratio", False),
        ("leaks.background - leaks.background_original", True),
        ("leaks.background_original - leaks.chance", False),
        ("mse - baselines.pca_mse", True),
    ],
)
def test_what_says_something_about_a_model(text: str, is_about_models: bool) -> None:
    """A claim about pixels and classifiers alone does not become void when a model collapses."""
    assert Quantity(text).is_about_models == is_about_models
