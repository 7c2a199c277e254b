"""Simulated studies: the judge errs no more often than it says, at any stopping; benchmarks/ has the tables."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vaelab.studies.expectations import Contrast
from vaelab.studies.sequential import LookPlan
from vaelab.studies.verdicts import judge

NUM = 4000


@pytest.fixture(scope="module")
def simulated() -> ModuleType:
    """benchmarks/judge.py, which judges many claims at once."""
    spec = importlib.util.spec_from_file_location("judge", Path(__file__).parents[2] / "benchmarks" / "judge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["judge"] = module  # dataclasses and named tuples look their module up
    spec.loader.exec_module(module)
    return module


def at_most(share: float, num: int = NUM) -> float:
    """A share with the room that chance needs."""
    return share + 3 * math.sqrt(share * (1 - share) / num)


@pytest.mark.parametrize(("margin", "codes"), [(0.0, {0, 1, 2}), (0.8, {0, 1, 2, 3})])
def test_the_simulated_judge_is_the_judge(simulated: ModuleType, margin: float, codes: set[int]) -> None:
    rng = np.random.default_rng(5)
    means = rng.uniform(-3, 2, (80, 1, 1)) + rng.uniform(-0.3, 0.3, (80, 1, 3))
    differences = means + rng.standard_normal((80, 12, 3)) * rng.uniform(0.1, 0.7, (80, 1, 3))
    outcome = simulated.judge_all(differences, margin)
    assert set(outcome.verdicts) == codes
    for values, code, num_seeds in zip(differences, outcome.verdicts, outcome.num_seeds, strict=True):
        judgement = judge([Contrast(str(k), values[:, k], -1, margin) for k in range(3)], simulated.SEQUENTIAL)
        assert (judgement.verdict, judgement.num_seeds) == (simulated.VERDICTS[code], num_seeds)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_a_setting_against_itself(simulated: ModuleType, count: int, margin: float) -> None:
    differences = simulated.simulate("test", NUM, 12, [0.0] * count, 0.5)
    for plan in (LookPlan.fixed(3), simulated.SEQUENTIAL):
        outcome = simulated.judge_all(differences, margin, plan)
        assert outcome.share(simulated.SUPPORTED) < at_most(0.025)
        assert outcome.share(simulated.REFUTED) < at_most(0.025)


@pytest.mark.parametrize("count", [1, 4])
def test_differences_at_the_margin(simulated: ModuleType, count: int) -> None:
    margin = 3.0
    above = simulated.judge_all(simulated.simulate("test", NUM, 12, [margin] * count, 0.5), margin)
    assert above.share(simulated.EQUAL, simulated.SUPPORTED) < at_most(0.05)
    assert above.share(simulated.REFUTED) < at_most(0.025)
    below = simulated.judge_all(simulated.simulate("test", NUM, 12, [-margin] * count, 0.5), margin)
    assert below.share(simulated.EQUAL, simulated.REFUTED) < at_most(0.05)


def test_looks_save_seeds(simulated: ModuleType) -> None:
    """Four true differences of 3 sd: three seeds seldom show them, and on average six are enough."""
    differences = simulated.simulate("test", NUM, 12, [-3.0] * 4)
    assert 0.25 < simulated.judge_all(differences, 0, LookPlan.fixed(3)).share(simulated.SUPPORTED) < 0.35
    sequential = simulated.judge_all(differences)
    assert sequential.share(simulated.SUPPORTED) > 0.99
    assert sequential.num_seeds.mean() < 6


def test_printed_intervals_cover_jointly(simulated: ModuleType) -> None:
    for plan in (LookPlan.fixed(5), simulated.SEQUENTIAL):
        joint, weakest, _ = simulated.coverage_row(NUM, [-1.0, 0.5, 2.0, -4.0], plan)
        assert float(joint.rstrip(" %")) > 100 - 100 * at_most(0.05)
        assert float(weakest.rstrip(" %")) > 100 - 100 * at_most(0.05)


@pytest.mark.parametrize("num_true", [0, 18])
def test_the_share_of_false_verdicts_in_a_study(simulated: ModuleType, num_true: int) -> None:
    cells = simulated.studies_row(400, num_true, 0.5)
    assert float(cells[4].rstrip(" %")) < 100 * at_most(0.05, 400)


def test_equal_counts_do_not_decide(simulated: ModuleType) -> None:
    plain, here, _, _ = simulated.counts_row(NUM, 0.7)
    assert float(plain.rstrip(" %")) > 10
    assert float(here.rstrip(" %")) < 100 * at_most(0.05)
