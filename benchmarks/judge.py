"""How often the judge errs, and how many seeds it takes: the tables of docs/statistics.md, from simulated studies.

    python benchmarks/judge.py --write docs/statistics.md         # about a minute on one idle core
    python benchmarks/judge.py --only power --simulations 4000

Every row is kept in a file as soon as it is there, and is not computed again; `--keep` names the file. The simulated
judge below computes many claims at once. tests/studies/test_simulated.py compares it with the judge of the package.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from vaelab.studies.multiplicity import control_false_verdicts
from vaelab.studies.sequential import LEVELS, LookPlan, exact_nominal_levels, nominal_level, nominal_level_table

VERDICTS = ("undecided", "supported", "refuted", "equal")  # the codes of the simulated judge
UNDECIDED, SUPPORTED, REFUTED, EQUAL = range(4)
SEQUENTIAL = LookPlan.sequential(3, 12)
LEVEL = 0.05
Table = Iterator[tuple[str, Callable[[], list[str]]]]


# The judge, for many claims at once


class Moments(NamedTuple):
    """The means of N claims with K contrasts and their standard errors, each with shape (N, K), of n seeds."""

    mean: np.ndarray
    error: np.ndarray
    num_seeds: int

    def half_width(self, level: float, plan: LookPlan) -> np.ndarray:
        """The distance to a one-sided bound that holds for all looks."""
        return t_bound(nominal_level(level, self.num_seeds, plan), self.num_seeds) * self.error

    def adjusted_p_below(self, bound: float, plan: LookPlan) -> np.ndarray:
        """The p-values for "the true value is below a bound", adjusted for all looks."""
        p = special.stdtr(self.num_seeds - 1, (self.mean - bound) / self.error)
        if len(plan.looks) == 1:
            return p
        table = nominal_level_table(plan.looks)[plan.looks.index(self.num_seeds)]
        adjusted = np.exp(np.interp(np.log(p), np.log(table), np.log(LEVELS)))
        return np.where(p > table[-1], 1.0, adjusted)


class Outcome(NamedTuple):
    """The verdicts of N claims, as codes, and the number of seeds at which each was taken."""

    verdicts: np.ndarray
    num_seeds: np.ndarray

    def share(self, *codes: int) -> float:
        """The share of claims with one of some verdicts."""
        return float(np.isin(self.verdicts, codes).mean())


@cache
def t_bound(level: float, num_seeds: int) -> float:
    """The critical value of a one-sided t test."""
    return -float(special.stdtrit(num_seeds - 1, level))


def moments(differences: np.ndarray, num_seeds: int) -> Moments:
    """The moments of the first seeds of differences with shape (N, S, K)."""
    first = differences[:, :num_seeds]
    return Moments(first.mean(1), first.std(1, ddof=1) / math.sqrt(num_seeds), num_seeds)


def verdicts_at(
    looked: Moments, margin: float, plan: LookPlan, level: float = LEVEL, rule: str = "chosen"
) -> np.ndarray:
    """The verdicts at a look as codes (N,), for differences that should be negative.

    `rule` is the chosen one, or one of those that it was compared with: "sign" supports what has the expected sign,
    "strict" only what lies beyond the margin with its whole interval, and "estimate" refutes by the sign and an
    estimate beyond the margin.
    """
    mean, count = looked.mean, looked.mean.shape[1]
    alone, jointly = looked.half_width(level / 2, plan), looked.half_width(level / 2 / count, plan)
    supported = mean + alone < (-margin if rule == "strict" else 0)
    if rule != "sign":
        supported &= mean < -margin
    refuted = mean - jointly > (0 if rule == "estimate" else margin)
    if rule == "estimate":
        refuted &= mean > margin
    none_refutes = mean + looked.half_width(level, plan) < margin
    some_unseen = mean - looked.half_width(level / count, plan) > -margin
    equal = none_refutes.all(1) & some_unseen.any(1)
    return np.select([equal, supported.all(1), refuted.any(1)], [EQUAL, SUPPORTED, REFUTED], UNDECIDED)


def judge_all(
    differences: np.ndarray,
    margin: float = 0.0,
    plan: LookPlan = SEQUENTIAL,
    level: float = LEVEL,
    rule: str = "chosen",
) -> Outcome:
    """The verdicts on claims whose differences have the shape (N, S, K)."""
    verdicts = np.full(len(differences), UNDECIDED)
    num_seeds = np.full(len(differences), plan.looks[-1])
    for look in plan.looks:
        now = verdicts_at(moments(differences, look), margin, plan, level, rule)
        is_new = (verdicts == UNDECIDED) & (now != UNDECIDED)
        verdicts[is_new], num_seeds[is_new] = now[is_new], look
    return Outcome(verdicts, num_seeds)


def simulate(name: str, num: int, num_seeds: int, means: Sequence[float], correlation: float = 0.0) -> np.ndarray:
    """Differences with shape (num, S, K) and deviation 1, with some means and a correlation between contrasts."""
    rng = np.random.default_rng(list(name.encode()))
    own = rng.standard_normal((num, num_seeds, len(means)))
    shared = rng.standard_normal((num, num_seeds, 1))
    return np.array(means) + math.sqrt(1 - correlation) * own + math.sqrt(correlation) * shared


def percent(share: float) -> str:
    """A share as the tables show it."""
    return f"{100 * share:.1f} %"


# The tables: each is a title, the heads of its columns and its rows, which are computed one by one


class Truth(NamedTuple):
    """What is true of a claim: where its differences lie, in margins, and which verdicts are false then."""

    name: str
    place: float
    false_codes: tuple[int, ...]


TRUTHS = (
    Truth("a setting against itself", 0.0, (SUPPORTED, REFUTED)),
    Truth("at the margin, against the claim", 1.0, (SUPPORTED, REFUTED)),
    Truth("just above the margin, against the claim", 1.001, (SUPPORTED, EQUAL)),
    Truth("just beyond the margin, as expected", -1.001, (REFUTED, EQUAL)),
)


def errors_table(num: int) -> Table:
    """False verdicts, whatever is true: margins are in standard deviations of the differences."""
    for plan_name, plan in {"3 seeds": LookPlan.fixed(3), "3 to 12 seeds": SEQUENTIAL}.items():
        for count in (1, 4):
            for margin in (0.0, 2.0):
                for truth in TRUTHS if margin else TRUTHS[:1]:
                    name = f"{plan_name} | {count} | {margin:g} sd | {truth.name}"
                    yield name, partial(errors_row, 5 * num, plan, count, margin, truth)


def errors_row(num: int, plan: LookPlan, count: int, margin: float, truth: Truth) -> list[str]:
    """How often each false verdict is given, by contrasts that share a setting."""
    name = f"errors {plan.looks} {count} {margin} {truth.name}"
    differences = simulate(name, num, plan.looks[-1], [truth.place * margin] * count, 0.5)
    outcome = judge_all(differences, margin, plan)
    parts = ", ".join(f"{VERDICTS[code]} {percent(outcome.share(code))}" for code in truth.false_codes)
    return [parts, percent(outcome.share(*truth.false_codes))]


def power_table(num: int) -> Table:
    """The power for a true claim, and the mean number of seeds."""
    for count in (1, 4):
        for effect in (0.5, 1.0, 1.5, 2.0, 3.0, 5.0):
            yield f"{count} | {effect:g} sd", partial(power_row, num, count, effect)


def power_row(num: int, count: int, effect: float) -> list[str]:
    """The power of the earlier judge, of fixed numbers of seeds, and of looks with the mean number of seeds."""
    differences = simulate(f"power {count} {effect}", num, 12, [-effect] * count)
    cells = [percent(_holm_supports(moments(differences, 3)).mean())]
    for num_seeds in (3, 6, 12):
        cells.append(percent(judge_all(differences, 0, LookPlan.fixed(num_seeds)).share(SUPPORTED)))
    sequential = judge_all(differences)
    return [*cells, percent(sequential.share(SUPPORTED)), f"{sequential.num_seeds.mean():.1f}"]


def _holm_supports(looked: Moments) -> np.ndarray:
    """Whether Holm's procedure finds that all contrasts are negative, as the earlier judge asked."""
    p = np.sort(2 * special.stdtr(looked.num_seeds - 1, looked.mean / looked.error), axis=1)
    return (p < LEVEL / np.arange(p.shape[1], 0, -1)).all(1)


def looks_table(num: int) -> Table:
    """The power of several methods for looks at 3 to 12 seeds."""
    for power in (0.5, 1.0, 2.0, 3.0):
        levels = exact_nominal_levels(SEQUENTIAL.looks, LEVEL / 2, power)
        yield f"spending, power {power:g}", partial(looks_row, num, levels)
    yield "e-values (t likelihood ratios)", partial(e_value_row, num // 4)
    for num_seeds in (6, 12):
        yield f"{num_seeds} seeds, no looks", partial(fixed_row, num, num_seeds)


EFFECTS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)


def looks_row(num: int, levels: Sequence[float]) -> list[str]:
    """The power of looks with some nominal levels, and the mean number of seeds, for each effect."""
    cells = []
    for effect in EFFECTS:
        differences = simulate("looks", num, 12, [effect])
        crossed = []
        for look, level in zip(SEQUENTIAL.looks, levels, strict=True):
            looked = moments(differences, look)
            crossed.append(looked.mean[:, 0] / looked.error[:, 0] > t_bound(level, look))
        cells.append(_crossing_text(np.array(crossed)))
    return cells


def e_value_row(num: int) -> list[str]:
    """The likelihood ratio of the t statistic, averaged over effects from 0.5 to 16, must reach 1 / 0.025.

    Source: Optional Stopping with Bayes Factors, Hendriksen, de Heide and Gruenwald 2021.
    """
    alternatives = np.array([0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16])
    cells = []
    for effect in EFFECTS:
        differences = simulate("looks", num, 12, [effect])
        crossed = []
        for look in SEQUENTIAL.looks:
            looked = moments(differences, look)
            t = looked.mean[:, 0] / looked.error[:, 0]
            densities = [stats.nct.pdf(t, look - 1, a * math.sqrt(look)) for a in alternatives]
            crossed.append(np.mean(densities, axis=0) > stats.t.pdf(t, look - 1) / (LEVEL / 2))
        cells.append(_crossing_text(np.array(crossed)))
    return cells


def fixed_row(num: int, num_seeds: int) -> list[str]:
    """The power of one test, for each effect."""
    cells = []
    for effect in EFFECTS:
        outcome = judge_all(simulate("looks", num, 12, [-effect]), 0, LookPlan.fixed(num_seeds))
        cells.append(f"{percent(outcome.share(SUPPORTED))}, {num_seeds}")
    return cells


def _crossing_text(crossed: np.ndarray) -> str:
    """The power and the mean number of seeds, from what each look found, (J, N)."""
    first = np.where(crossed.any(0), crossed.argmax(0), len(crossed) - 1)
    return f"{percent(crossed.any(0).mean())}, {np.mean(np.array(SEQUENTIAL.looks)[first]):.1f}"


RULES = ("chosen", "sign", "strict", "estimate")


def rules_table(num: int) -> Table:
    """The verdicts of four rules for differences on both sides of the margin, which is one standard deviation."""
    for place in (-3.0, -2.0, -1.5, -0.9, -0.5, 0.0, 0.5, 0.9, 1.5, 2.0, 3.0):
        yield f"{place:g}", partial(rules_row, num, place)


def rules_row(num: int, place: float) -> list[str]:
    """The shares of supported, equal and refuted, and the mean number of seeds, for each rule."""
    differences = simulate(f"rules {place}", num, 12, [place])
    cells = []
    for rule in RULES:
        outcome = judge_all(differences, 1.0, rule=rule)
        shares = [f"{100 * outcome.share(code):.0f}" for code in (SUPPORTED, EQUAL, REFUTED)]
        cells.append(f"{' / '.join(shares)}; {outcome.num_seeds.mean():.1f}")
    return cells


def coverage_table(num: int) -> Table:
    """The probability that intervals hold all true differences of a claim."""
    for plan_name, plan in {
        "3 seeds": LookPlan.fixed(3),
        "5 seeds": LookPlan.fixed(5),
        "3 to 12 seeds": SEQUENTIAL,
    }.items():
        for means in ([0.0, 0.0], [-1.0, 0.5, 2.0, -4.0], [0.0] * 4 + [-3.0] * 4):
            name = f"{plan_name} | {len(means)}, from {min(means):g} to {max(means):g} sd"
            yield name, partial(coverage_row, num, means, plan)


def coverage_row(num: int, means: list[float], plan: LookPlan) -> list[str]:
    """The coverage of all differences, of the largest one, and of intervals at the levels of Holm's procedure."""
    differences = simulate(f"coverage {plan.looks} {means}", num, 12, means)
    outcome = judge_all(differences, 0.5, plan)
    joint, weakest, holm = np.empty(num, bool), np.empty(num, bool), np.empty(num, bool)
    for look in plan.looks:
        here = outcome.num_seeds == look
        looked = moments(differences[here], look)
        distance = np.abs(looked.mean - means)
        joint[here] = (distance < looked.half_width(LEVEL / 2 / len(means), plan)).all(1)
        upper = (looked.mean + looked.half_width(LEVEL / 2, plan)).max(1)
        lower = (looked.mean - looked.half_width(LEVEL / 2 / len(means), plan)).max(1)
        weakest[here] = (lower < max(means)) & (max(means) < upper)
        holm[here] = (distance < _holm_half_width(looked)).all(1)
    return [percent(joint.mean()), percent(weakest.mean()), percent(holm.mean())]


def _holm_half_width(looked: Moments) -> np.ndarray:
    """The half width at the level at which Holm's procedure tests each contrast, as the earlier judge printed it."""
    count = looked.mean.shape[1]
    p = 2 * special.stdtr(looked.num_seeds - 1, -np.abs(looked.mean / looked.error))
    order = np.argsort(p, axis=1)
    levels = np.empty_like(p)
    level, is_rejected = np.full(len(p), LEVEL), np.ones(len(p), bool)
    for rank in range(count):
        level = np.where(is_rejected, LEVEL / (count - rank), level)
        is_rejected &= np.take_along_axis(p, order[:, [rank]], 1)[:, 0] < level
        np.put_along_axis(levels, order[:, [rank]], level[:, None], 1)
    return -special.stdtrit(looked.num_seeds - 1, levels / 2) * looked.error


def studies_table(num: int) -> Table:
    """False verdicts in a study of 36 claims."""
    for num_true in (0, 9, 18, 30):
        for correlation in (0.0, 0.5):
            name = f"{36 - num_true} of 36 | {correlation:g}"
            yield name, partial(studies_row, num // 20, num_true, correlation)


def studies_row(num: int, num_true: int, correlation: float) -> list[str]:
    """Claims of one contrast with margin 0; the true ones have an effect of 3 sd."""
    means = [-3.0] * num_true + [0.0] * (36 - num_true)
    differences = simulate(f"studies {num_true} {correlation}", num, 12, means, correlation)
    p = np.stack([_claim_p(moments(differences, look)) for look in SEQUENTIAL.looks])
    is_null = np.array([mean == 0 for mean in means])
    alone = p.min(0) <= LEVEL
    kept: list[np.ndarray] = []
    for study in range(num):
        errors = control_false_verdicts(p[:, study].min(0).tolist())
        kept.append(p[:, study].min(0) <= errors.level)
    decided = np.stack(kept)
    cells = []
    for chosen in (alone, decided):
        false_share = (chosen & is_null).sum(1) / np.maximum(chosen.sum(1), 1)
        power = percent(chosen[:, ~is_null].mean()) if num_true else ""
        cells += [percent((chosen & is_null).any(1).mean()), percent(false_share.mean()), power]
    return cells


def _claim_p(looked: Moments) -> np.ndarray:
    """The level at which claims of one contrast, without margin, are supported or refuted at a look."""
    supported = looked.adjusted_p_below(0, SEQUENTIAL)
    refuted = looked._replace(mean=-looked.mean).adjusted_p_below(0, SEQUENTIAL)
    return np.minimum(1, 2 * np.minimum(supported, refuted))


def images_table(num: int) -> Table:
    """Intervals for a mean over seeds and test images."""
    plans = {str(num_seeds): LookPlan.fixed(num_seeds) for num_seeds in (2, 3, 5, 12)}
    for name, plan in (plans | {"3 to 12, at every look": SEQUENTIAL}).items():
        for ratio in (0.1, 1.0, 10.0):
            yield f"{name} | {ratio:g}", partial(images_row, num, plan, ratio)


def images_row(num: int, plan: LookPlan, ratio: float) -> list[str]:
    """At the first look the variance of the mean is 1 from the seeds and `ratio` from 500 test images."""
    rng = np.random.default_rng(list(plan.looks))
    seeds = rng.standard_normal((num, plan.looks[-1])) * math.sqrt(plan.looks[0])
    of_images = rng.standard_normal(num) * math.sqrt(ratio)  # the same images at every look
    image_variance = ratio * rng.chisquare(499, num) / 499
    covered = np.ones((3, num), bool)
    for look in plan.looks:
        mean = np.abs(seeds[:, :look].mean(1) + of_images)
        seed_variance = seeds[:, :look].var(1, ddof=1) / look
        total = seed_variance + image_variance
        df = total**2 / (seed_variance**2 / (look - 1) + image_variance**2 / 499)
        level = nominal_level(LEVEL / 2, look, plan)
        t_seeds, t_images = special.stdtrit(look - 1, level), special.stdtrit(499, level)
        covered[0] &= mean < np.sqrt(t_seeds**2 * seed_variance + t_images**2 * image_variance)
        covered[1] &= mean < -special.stdtrit(df, level) * np.sqrt(total)
        covered[2] &= mean < -t_seeds * np.sqrt(seed_variance)
    return [percent(share) for share in covered.mean(1)]


def counts_table(num: int) -> Table:
    """A measure of whole numbers: a setting against itself."""
    for deviation in (0.3, 0.5, 0.7, 1.0, 3.0):
        yield f"{deviation:g}", partial(counts_row, num, deviation)


def counts_row(num: int, deviation: float) -> list[str]:
    """How often a t test at 5 % finds a difference, with the deviation as it is, and with that of rounding at least."""
    rng = np.random.default_rng(int(100 * deviation))
    values = np.round(deviation * rng.standard_normal((num, 3, 2)) + rng.random((num, 1, 1)))
    differences = values[..., 0] - values[..., 1]
    cells = []
    for num_seeds in (2, 3):
        mean = np.abs(differences[:, :num_seeds].mean(1))
        spread = differences[:, :num_seeds].std(1, ddof=1)
        bound = t_bound(LEVEL / 2, num_seeds) / math.sqrt(num_seeds)
        cells.append(percent(((mean > bound * spread) & (mean > 0)).mean()))
        cells.append(percent((mean > bound * np.maximum(spread, 1 / math.sqrt(6))).mean()))
    return cells


TABLES: dict[str, tuple[Callable[[int], Table], str]] = {
    "errors": (errors_table, "seeds | contrasts | margin | truth | false verdicts | together"),
    "power": (
        power_table,
        "contrasts | effect | 3 seeds, Holm | 3 seeds | 6 seeds | 12 seeds | 3 to 12 seeds | mean seeds",
    ),
    "looks": (looks_table, "method | " + " | ".join(f"{effect:g} sd" for effect in EFFECTS)),
    "rules": (rules_table, "true difference / margin | " + " | ".join(RULES)),
    "coverage": (
        coverage_table,
        "seeds | contrasts | joint intervals | interval of the weakest | Holm-matched (earlier)",
    ),
    "studies": (
        studies_table,
        "null claims | correlation | each at 5 %: any false | share false | power "
        "| controlled: any false | share false | power",
    ),
    "images": (images_table, "seeds | variance from images / from seeds | here | Satterthwaite | seeds alone"),
    "counts": (counts_table, "deviation | 2 seeds, plain t | 2 seeds, here | 3 seeds, plain t | 3 seeds, here"),
}


# Keeping and writing


def compute(name: str, num: int, kept: Path) -> list[str]:
    """A table as lines of markdown; rows that were kept are not computed again."""
    table, head = TABLES[name]
    rows: dict[str, list[str]] = {}
    if kept.exists():
        for line in kept.read_text().splitlines():
            row = json.loads(line)
            if row["table"] == name and row["simulations"] == num:
                rows[row["row"]] = row["cells"]
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    for row_name, cells in table(num):
        if row_name not in rows:
            rows[row_name] = cells()
            with kept.open("a") as file:
                record = {"table": name, "simulations": num, "row": row_name, "cells": rows[row_name]}
                file.write(json.dumps(record) + "\n")
        lines.append(f"| {row_name} | {' | '.join(rows[row_name])} |")
    return lines


def write_between_markers(file: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between the markers of a table."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    text = file.read_text()
    before, after = text.split(start)[0], text.split(end)[1]
    file.write_text(before + start + "\n".join(["", *lines, "", end]) + after)


def main() -> None:
    """Compute the tables, and print or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(TABLES), nargs="+", default=list(TABLES))
    parser.add_argument("--simulations", type=int, default=40_000, help="simulated claims in each row")
    parser.add_argument("--keep", type=Path, default=Path("judge-rows.jsonl"), help="the file of finished rows")
    parser.add_argument("--write", type=Path, help="the document whose tables are replaced")
    options = parser.parse_args()
    for name in options.only:
        lines = compute(name, options.simulations, options.keep)
        print(f"\n{name}\n", *lines, sep="\n", flush=True)
        if options.write:
            write_between_markers(options.write, name, lines)


if __name__ == "__main__":
    main()
