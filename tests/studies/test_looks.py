"""Looks: seeds are added to the settings of open claims alone, and what comes out depends on the runs alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vaelab
from vaelab.core.errors import UserError
from vaelab.core.jobs import Executor
from vaelab.reporting.outputs import write_result_files
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.studies import runner
from vaelab.studies.definition import Cell, Study
from vaelab.studies.looks import num_open_claims, with_next_look
from vaelab.studies.parsing import Overrides, parse_study, with_overrides
from vaelab.studies.plan import plan_runs
from vaelab.studies.quantities import RunRecord
from vaelab.studies.results import SettingResult, StudyResults

TEXT = """
data = "digits"
seeds = 3
decide = true
most_seeds = 6

[base]
network = "mlp:hidden=8"
epochs = 1
kl_weight = 0

[[experiments]]
id = "size"
vary = { latent_dim = [2, 4, 8] }
figures = []

[[experiments.claims]]
id = "clear"
sentence = "Four are better than two."
measure = "mse"
expect = "decreasing"
where = { latent_dim = [2, 4] }

[[experiments.claims]]
id = "close"
sentence = "Eight are better than four."
measure = "mse"
expect = "decreasing"
where = { latent_dim = [4, 8] }
"""

STUDY = parse_study(TEXT, "looks")

LEVELS = {"2": 3.0, "4": 1.0, "8": 1.0}


def value_of(setting: str, seed: int) -> float:
    """The error of a run: two dimensions are worse; whether four or eight are better depends on the seed."""
    variation = {"2": 0.01 * seed, "4": 0.0, "8": 0.1 * (-1) ** seed}
    return LEVELS[setting] + variation[setting]


def results_of(study: Study, value: Callable[[str, int], float] = value_of) -> StudyResults:
    """What the runs that a study asks for would have come to."""
    settings = []
    for experiment in study.experiments:
        for setting in experiment.settings:
            seeds = study.seeds_of(Cell(experiment.id, "", setting.name))
            records = {seed: RunRecord({"test": {"mse": value(setting.name, seed)}}, [], {}) for seed in seeds}
            runs = {seed: Run(Path(f"{setting.name}-{seed}")) for seed in seeds}
            settings.append(SettingResult(experiment, "", setting, runs, records))
    return StudyResults(study, tuple(settings))


def decided(study: Study) -> StudyResults:
    """The results after the last look."""
    while True:
        results = results_of(study)
        extended = with_next_look(results)
        if extended is None:
            return results
        study = extended


def test_only_the_settings_of_open_claims_get_seeds() -> None:
    first = results_of(STUDY)
    assert [result.verdict for result in first.claim_results] == ["supported", "undecided"]
    assert num_open_claims(first) == 1
    extended = with_next_look(first)
    assert extended is not None
    assert extended.added_seeds == {Cell("size", "", "4"): (4,), Cell("size", "", "8"): (4,)}
    assert len(extended.trials) == len(STUDY.trials) + 2
    assert [trial.spec.seed for trial in extended.trials] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 2


def test_seeds_are_added_until_the_limit() -> None:
    results = decided(STUDY)
    clear, close = results.claim_results
    assert (clear.verdict, clear.num_seeds) == ("supported", 3)
    assert (close.verdict, close.num_seeds) == ("undecided", 6)
    assert close.seeds_needed_text
    assert [look.num_seeds for look in close.looks] == [3, 4, 5, 6]
    assert [(look.num_seeds, len(look.runs)) for look in results.looks] == [(3, 9), (4, 2), (5, 2), (6, 2)]


def test_a_decided_claim_keeps_its_verdict_when_others_get_seeds() -> None:
    """The first claim shares a setting with the second one; what the added seeds say of it does not count."""
    before, after = results_of(STUDY).claim_results[0], decided(STUDY).claim_results[0]
    assert (after.verdict, after.num_seeds, after.differences) == (before.verdict, before.num_seeds, before.differences)


def test_a_study_that_does_not_decide_has_one_look() -> None:
    study = parse_study(TEXT.replace("decide = true", "decide = false"), "looks")
    assert with_next_look(results_of(study)) is None
    assert study.all_seeds == (1, 2, 3)


def test_all_that_a_study_may_ask_for() -> None:
    assert len(STUDY.with_all_seeds().trials) == 3 * 6
    study = parse_study(TEXT.replace("decide = true", "decide = false"), "looks")
    assert study.with_all_seeds().trials == study.trials


def test_seeds_that_are_added_come_after_those_of_the_study() -> None:
    study = parse_study(TEXT.replace("seeds = 3\ndecide", "seeds = [7, 2]\ndecide"), "looks")
    assert study.all_seeds == (7, 2, 8, 9, 10, 11)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("most_seeds = 6", "most_seeds = 2", "most_seeds must be at least 3"),
        ("most_seeds = 6", "most_seeds = 0", "most_seeds in the study must be how many, from 1 to 1000, got 0"),
        ("decide = true", "decide = 1", "decide in the study must be true or false, got 1"),
        ("seeds = 3\ndecide", "seeds = [2147483647, 1]\ndecide", "take smaller ones"),
        ('expect = "decreasing"', 'expect = "decreasing"\nmargin = "much"', "a margin is a number of at least 0"),
        ('expect = "decreasing"', 'expect = "decreasing"\nmargin = -1', "a margin is a number of at least 0"),
        ('expect = "decreasing"', 'expect = "decreasing"\nanchor = true', "an anchor is one measure of one setting"),
    ],
)
def test_what_is_wrong_in_a_file_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_study(TEXT.replace(old, new, 1), "looks")


def test_the_command_line_decides_too(tmp_path: Path) -> None:
    study = with_overrides(
        parse_study(TEXT.replace("decide = true\nmost_seeds = 6\n", ""), "looks"), Overrides(decide=True)
    )
    assert (study.decide, study.most_seeds, study.look_plan) == (True, 12, study.look_plan)
    assert parse_study(study.text, "looks").decide, "study.toml says so"
    with pytest.raises(UserError, match="give --decide too"):
        vaelab.study("digits", most_seeds=5, dry_run=True, out=tmp_path)


# With runs


def carry_out(study: Study, out: Path) -> dict[str, bytes]:
    """Train what is missing of a study, and read what it leaves."""
    results = runner.run_study(study, plan_runs(study, out), out, Executor(1))
    return written(results, out)


def written(results: StudyResults, out: Path) -> dict[str, bytes]:
    folder = out / "studies" / "looks"
    write_result_files(results, folder)
    return {name: (folder / name).read_bytes() for name in ("study.toml", "table.csv", "claims.json")}


def test_interrupted_between_looks_it_comes_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after the first look, gone on with up to a smaller limit, extended, and reported on."""
    text = TEXT.replace("seeds = 3\n", "seeds = 2\n")
    study, shorter = (parse_study(text.replace("= 6", f"= {most}"), "looks") for most in (4, 3))
    straight = carry_out(study, tmp_path / "straight")
    looks = (tmp_path / "straight/studies/looks/looks.csv").read_text()
    assert len(looks.splitlines()) > 2, "seeds were added"

    train = runner.train_missing_runs
    calls = iter([True, False])

    def train_once(*arguments: Any) -> Any:
        if not next(calls):
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(runner, "train_missing_runs", train_once)
    with pytest.raises(KeyboardInterrupt):
        carry_out(study, tmp_path / "parts")
    monkeypatch.undo()
    carry_out(shorter, tmp_path / "parts")
    assert carry_out(study, tmp_path / "parts") == straight
    reported = runner.resume_study(tmp_path / "parts/studies/looks", Executor(1))
    assert written(reported, tmp_path / "parts") == straight
    assert reported.missing == 0
    shutil.rmtree(reported.looks[1].runs[0].path)
    partial = runner.resume_study(tmp_path / "parts/studies/looks", Executor(1))
    assert partial.missing == 1, "a look that was begun is reported as far as it came"


SICK = """
data = "digits"
seeds = 2
decide = true

[base]
network = "mlp:hidden=8"
latent_dim = 4
epochs = 2

[[experiments]]
id = "weight"
variants.empty = { kl_weight = 1e6 }
variants.full = { kl_weight = 0 }
figures = []

[[experiments.claims]]
id = "error"
sentence = "Full codes are better."
measure = "mse"
expect = "lowest:setting=full"

[[experiments.claims]]
id = "pixels"
sentence = "Pixels have clusters."
measure = "features.raw_ari"
expect = "between:low=0.1"
where = { variant = "full" }
"""


def test_a_sick_setting_makes_its_claims_void_and_gets_no_seeds(tmp_path: Path) -> None:
    """A KL weight of a million nats empties the codes."""
    study = parse_study(SICK.split('[[experiments.claims]]\nid = "pixels"', maxsplit=1)[0], "sick")
    results = runner.run_study(study, plan_runs(study, tmp_path), tmp_path, Executor(1))
    [claim] = results.claim_results
    assert claim.verdict == "void"
    assert {run.setting for run in claim.sick} == {"empty"}
    assert "posterior collapse in 2 of 4 runs: empty, seed 1, KL" in claim.note
    assert "at least 0.5 nats" in claim.note
    assert len(results.looks) == 1


def test_a_claim_that_is_not_about_models_is_judged_beside_sick_ones() -> None:
    study = parse_study(SICK, "sick")
    health = {"finite": 1.0, "kl": 0.0, "active_units": 0.0, "residual": 0.1, "binary": 0.0}
    settings = []
    for setting in study.experiments[0].settings:
        records, runs = {}, {}
        for seed in study.seeds:
            analyses = {"health": health, "features": {"raw_ari": 0.5 + 0.001 * seed}}
            records[seed] = RunRecord({"test": {"mse": 1.0}}, [], analyses)
            runs[seed] = Run(Path(f"{setting.name}-{seed}"))
            runs[seed].__dict__["spec"] = Spec(latent_dim=4)  # in place of its file
        settings.append(SettingResult(study.experiments[0], "", setting, runs, records))
    error, pixels = StudyResults(study, tuple(settings)).claim_results
    assert (error.verdict, len(error.sick)) == ("void", 4)
    assert (pixels.verdict, pixels.sick) == ("supported", ())
