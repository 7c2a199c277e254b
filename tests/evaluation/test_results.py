"""Results: what files hold of a metric and of an evaluation; and the ends of their statistics."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from vaelab.core.errors import UserError
from vaelab.core.rng import generator
from vaelab.evaluation.results import Evaluation, Metric
from vaelab.evaluation.statistics import MeanError, RunningMoments, jackknife_error, mean_metric


def test_running_moments_are_those_of_all_batches_together() -> None:
    first, second = torch.randn(51, generator=generator("moments"), dtype=torch.float64).split([20, 31])
    moments = RunningMoments()
    moments.add({"both": first, "one": first})
    moments.add({"both": second, "empty": second[:0]})
    assert [moments.count(name) for name in ("both", "one", "empty", "never")] == [51, 20, 0, 0]
    found = moments.metrics()
    assert set(found) == {"both", "one"}, "what has no values has no mean"
    assert found["one"] == mean_metric(first)
    whole = mean_metric(torch.cat([first, second]))
    assert found["both"].value == pytest.approx(whole.value)
    assert found["both"].stderr == pytest.approx(whole.stderr)


def test_the_jackknife_leaves_out_each_image_once() -> None:
    left_out: list[int] = []

    def statistic(kept: np.ndarray) -> float:
        left_out.extend(set(range(23)) - set(kept.tolist()))
        return 0.0

    assert jackknife_error(statistic, 23) == 0
    assert sorted(left_out) == list(range(23))
    assert jackknife_error(lambda kept: float(len(kept)), 20) == 0
    assert jackknife_error(lambda kept: float(len(kept)), 19) is None


def test_p_values_fall_with_the_distance_and_end_at_a_smallest_one() -> None:
    many = MeanError(1e-6, 1e-6, 1000, 10_000)
    values = [many.tail_probability(distance) for distance in (0.0, 1e-3, 3e-3, 1e-2, 1.0, 1e3)]
    assert all(before >= after for before, after in pairwise(values))
    assert values[-1] == math.exp(-100)
    assert values[3] > math.exp(-100)
    assert MeanError(0.04, 0.0, 4, 0).tail_probability(1e3) == pytest.approx(float(stats.t.sf(5e3, 3)))


def test_json_of_a_metric_holds_what_is_known() -> None:
    assert Metric(1.5).to_dict() == {"value": 1.5, "stderr": None}
    whole = Metric(1.5, 0.1, n=0, samples=5, sampling_error=0.2, note="a note")
    table = {"value": 1.5, "stderr": 0.1, "n": 0, "samples": 5, "sampling_error": 0.2, "note": "a note"}
    assert whole.to_dict() == table
    assert Metric(1.5, math.inf).to_dict()["stderr"] is None


def test_json_of_an_evaluation_holds_its_metrics_by_name() -> None:
    evaluation = Evaluation("key", "digits", "test", 7, {"mse": Metric(0.5)}, [0.25, 0.5])
    more = evaluation.with_metrics({"kl": Metric(2.0), "none": Metric(math.nan)})
    assert more.to_dict() == {
        "run": "key",
        "data": "digits",
        "split": "test",
        "n": 7,
        "metrics": {"mse": {"value": 0.5, "stderr": None}, "kl": {"value": 2.0, "stderr": None}},
        "kl_per_dimension": [0.25, 0.5],
    }
    with pytest.raises(
        UserError, match=r"^mse of the test images is nan: the training of run key has diverged"
    ) as error:
        Evaluation("key", "digits", "test", 7, {"mse": Metric(math.nan)})
    assert error.value.settings == ("lr", "clip")
    with pytest.raises(UserError, match=r"^KL per dimension of the test images is inf"):
        Evaluation("key", "digits", "test", 7, {}, [math.inf])
