"""What the command line prints of results that are not all alike."""

from __future__ import annotations

from vaelab.cli import text
from vaelab.cli.text import evaluate_lines


def test_splits_may_have_different_metrics() -> None:
    """A split of black and white images beside a grey one has no bits; one of flat images has no sharpness."""
    metric = {"value": 1.25, "stderr": 0.5}
    validation = {"split": "validation", "n": 3, "data": "digits", "metrics": {"mse": metric, "bits_per_dim": metric}}
    test = {"split": "test", "n": 1, "data": "digits", "metrics": {"mse": metric, "sharpness": metric | {"note": "n"}}}
    lines = list(text._metrics_lines([validation, test]))
    assert lines[:2] == ["validation: 3 images of digits", "test: 1 image of digits"]
    cells = {line.split()[0]: line.split()[1:] for line in lines[3:]}
    assert cells["mse"] == ["1.25", "+-", "0.5", "1.25", "+-", "0.5"]
    assert cells["bits_per_dim"] == ["1.25", "+-", "0.5", "-"]
    assert cells["sharpness"] == ["-", "1.25", "+-", "0.5", "(n)"]
    assert len(list(evaluate_lines(test, {}))) == 4


def test_columns_stand_below_each_other_whatever_the_names() -> None:
    metric = {"value": 1.25, "stderr": 0.5}
    metrics = {"mse": metric, "negative_log_evidence_corrected": metric}
    _, *lines = evaluate_lines({"split": "test", "n": 3, "data": "digits", "metrics": metrics}, {})
    assert len({line.index("1.25") for line in lines[1:]}) == 1
    assert len({len(line.rstrip()) for line in lines}) <= 2
