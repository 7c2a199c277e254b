"""Studies: the file says what is run, only what is missing is, and what comes out depends on nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import vaelab
from vaelab.cli import main
from vaelab.core.errors import UserError
from vaelab.core.jobs import run_jobs
from vaelab.studies.judging import is_directional
from vaelab.studies.parsing import Overrides, parse_study, read_study, shipped_studies, with_overrides

SOURCES = {"faces": {f"A{i}" for i in range(9)}, "mnist": {"B0", "B1", "B2", "B3", "B4", "B6"},
           "cifar10": {"B0", "B1", "B2", "B3", "B5", "B6"}, "digits": {"B0", "B1", "B2", "B3", "B4", "B6"}}  # fmt: skip

SMALL = """
title = "Small"
data = "digits"
seeds = 2

[base]
network = "mlp:hidden=16"
epochs = 2

[readings]
vae = { kl_weight = 1 }
bare = { kl_weight = 0 }

[[experiments]]
id = "size"
vary = { latent_dim = [2, 4] }
figures = ["curves"]

[[experiments.claims]]
id = "more"
sentence = "More dimensions give a lower loss."
measure = "loss"
expect = "decreasing"

[[experiments]]
id = "codes"
readings = ["vae"]
base = { latent_dim = 4 }
figures = ["samples"]

[[experiments.claims]]
id = "diverse"
sentence = "Samples differ."
measure = "samples.diversity"
expect = "between:low=0"
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path / "small.toml"


def test_shipped_studies_cover_every_row_of_the_reports() -> None:
    assert set(shipped_studies()) > set(SOURCES)
    for name in shipped_studies():
        study, rows = read_study(name), SOURCES.get(name, set())
        assert {row for e in study.experiments for row in e.rows} == rows == set(study.rows)
        assert all(c.sentence and c.source and c.expectation_text for e in study.experiments for c in e.claims)


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_claims_have_margins_with_reasons_and_published_figures_are_anchors(name: str) -> None:
    for experiment in read_study(name).experiments:
        for claim in experiment.claims:
            if any(map(is_directional, claim.expectations)):
                assert claim.margin.amount > 0, claim.id
                assert len(claim.margin_reason.split()) > 3, f"{claim.id}: a reason is a sentence"


def test_a_claim_that_depends_on_no_reading_counts_once() -> None:
    study = parse_study(SMALL.replace('measure = "loss"', 'measure = "loss"\nonce = true'), "small")
    claim = study.experiments[0].claims[0]
    assert (claim.once, claim.conditions) == (True, ("vae",))
    assert read_study("digits").experiment("B4").claims[-1].conditions == ("KL weight 1",)


def test_small_data_are_split_anew_for_each_seed() -> None:
    study = parse_study(SMALL.replace("seeds = 2", "seeds = 2\nrepeat_splits = true"), "small")
    assert {(trial.spec.seed, trial.spec.split_seed) for trial in study.trials} == {(1, 1), (2, 2)}
    assert {trial.spec.split_seed for trial in parse_study(SMALL, "small").trials} == {0}
    assert read_study("digits").repeat_splits


def test_a_study_is_a_grid_of_specs() -> None:
    study = parse_study(SMALL, "small")
    assert len(study.trials) == 2 * (2 * 2 + 1)
    assert len({trial.spec for trial in study.trials}) == 8, "the codes of experiment codes are those of size, 4"
    assert {trial.spec.objective.kl_weight for trial in study.trials} == {0, 1}
    assert [trial.spec.seed for trial in study.trials] == [1] * 5 + [2] * 5, "the first seed comes first"
    grid = parse_study(SMALL.replace("[2, 4] }", '[2, 4], lr = [0.1, 0.2, 0.3] }').replace('measure = "loss"\n',
                 'measure = "loss"\nwhere = { lr = 0.1 }\n'), "grid").experiments[0]  # fmt: skip
    assert [s.name for s in grid.settings][:2] == ["2, 0.1", "2, 0.2"]
    assert [s.name for s in grid.claims[0].settings(grid)] == ["2, 0.1", "4, 0.1"]


def test_what_is_overridden_is_part_of_its_text() -> None:
    study = with_overrides(parse_study(SMALL, "small"), Overrides(seeds=3, epochs=1))
    again = parse_study(study.text, "small")
    assert again.trials == study.trials
    assert {t.spec.epochs for t in study.trials} == {1}
    more = with_overrides(again, Overrides(seeds=5))
    assert more.seeds == (1, 2, 3, 4, 5)
    assert {t.spec.epochs for t in more.trials} == {1}, "earlier changes stay"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = 2", "seedz = 2", 'unknown entry in the study "seedz"; did you mean "seeds"'),
        ("seeds = 2", "seeds = 0", "seeds in the study must be how many"),
        ("seeds = 2", "seeds = [1, 1]", "different whole numbers"),
        ('data = "digits"', "", "the study lacks data"),
        ("epochs = 2", "epoch = 2", 'unknown setting "epoch"; did you mean "epochs"'),
        ("epochs = 2", "epochs = 0", "epochs must be at least 1, got 0"),
        ("epochs = 2", "seed = 2", "seed is nothing that a study varies"),
        ("latent_dim = [2, 4] }", "latent_dims = [2, 4] }", 'unknown setting "latent_dims"; did you mean "latent_dim"'),
        ("latent_dim = [2, 4] }", "latent_dim = 2 }", "must be a table of lists of different values"),
        ('readings = ["vae"]', 'readings = ["va"]', 'unknown reading in experiment codes "va"; did you mean "vae"'),
        ('expect = "decreasing"', 'expect = "decresing"', 'unknown expect "decresing"; did you mean "decreasing"'),
        ('expect = "decreasing"', 'expect = "lowest:setting=3"', 'claim more of experiment size: unknown setting "3"'),
        ('measure = "loss"', 'measure = "los"', 'did you mean "loss"'),
        ('measure = "loss"', "", "claim more of experiment size lacks measure"),
        ("samples.diversity", "sampels.diversity", 'did you mean "samples"'),
        ('figures = ["curves"]', 'figures = ["curvs"]', 'did you mean "curves"'),
        ('id = "codes"', 'id = "size"', 'experiment id "size" stands there twice'),
        ("seeds = 2", "seeds = ", "not TOML"),
        ('id = "size"', 'id = "../size"', "must be a name of letters"),
        ('title = "Small"', 'name = "../../evil"', "must be a name of letters"),
        ("[2, 4]", "[4, 4]", "lists of different values"),
        ("[2, 4]", "[4]", "decreasing has nothing to compare here"),
        ('measure = "loss"', 'measure = "at(loss)"', "takes curve, epoch"),
        ('expect = "decreasing"', "expect = []", "expect in claim more"),
        ('expect = "decreasing"', 'expect = "between"', "nothing to compare"),
        ('expect = "decreasing"', 'expect = "between:low=2,high=1"', "low must be below high"),
        ('readings = ["vae"]', "readings = []", "must be a text or a list"),
    ],
)
def test_a_wrong_file_is_refused_with_what_was_meant(
    old: str, new: str, said: str, small: Path, capsys: pytest.CaptureFixture
) -> None:
    assert old in SMALL
    small.write_text(SMALL.replace(old, new, 1))
    assert main.run_cli(["study", str(small), "--dry-run"]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert len(message.splitlines()) <= 3


def test_which_studies_there_are(capsys: pytest.CaptureFixture) -> None:
    assert main.run_cli(["study", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == sorted(shipped_studies())
    assert main.run_cli(["study", "mnits"]) == 2
    assert 'did you mean "mnist"' in capsys.readouterr().err
    assert main.run_cli(["study"]) == 2
    assert main.run_cli(["study", "digits", "--workers", "0"]) == 2
    with pytest.raises(UserError, match=r"nowhere\.toml"):
        vaelab.study("nowhere.toml")


KEPT = "study.toml", "table.csv", "table.parquet", "claims.json"


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "studies" / "small" / name).read_bytes() for name in KEPT}


@contextmanager
def running(study: Path, out: Path) -> Iterator[subprocess.Popen]:
    """The study in a process of its own, with two workers."""
    command = [sys.executable, "-m", "vaelab", "study", str(study), "--workers", "2", "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study, carried out without interruption by one worker."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "small.toml").write_text(SMALL)
    vaelab.study(folder / "small.toml", workers=1, out=folder)
    return folder


def test_a_study_from_its_file_to_its_verdicts(whole: Path) -> None:
    done = vaelab.study(whole / "small.toml", workers=1, out=whole)
    assert done.images_trained == 0, "a second time nothing is trained"
    assert done.report.is_file()
    claims = json.loads((done.folder / "claims.json").read_text())
    assert [(c["id"], c["reading"]) for c in claims] == [("more", "vae"), ("more", "bare"), ("diverse", "vae")]
    assert {"id", "sentence", "source", "reading", "expected", "verdict", "effect", "interval", "n"} <= set(claims[0])
    assert {c["n"] for c in claims} == {2}
    text = (done.folder / "table.csv").read_text()
    assert len(text.splitlines()) == 1 + 10
    assert "second" not in text + json.dumps(claims), "wall time stands in timings alone"
    assert "seconds" in (done.folder / "timings.csv").read_text()


def test_a_run_has_a_report_too(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(min((whole / "runs").iterdir()), tmp_path / "runs" / "copy"))
    report = vaelab.report(run, workers=1)
    assert report == run / "report.html"
    assert {"run-curves.png", "run-features.pdf"} <= {f.name for f in (run / "figures").iterdir()}
    assert not (run / "study.toml").exists()


def test_more_seeds_train_only_what_is_missing(whole: Path) -> None:
    before = len(list((whole / "runs").iterdir()))
    assert before == 8
    more = vaelab.study(whole / "small.toml", workers=1, seeds=3, out=whole)
    assert len(list((whole / "runs").iterdir())) == before + 4
    assert {c["n"] for c in more.claims} == {3}
    vaelab.study(whole / "small.toml", workers=1, out=whole)  # as it was, for the other tests


def test_interrupted_and_with_other_workers_it_comes_to_the_same(small: Path, whole: Path, tmp_path: Path) -> None:
    """Stopped once, killed once, then finished by two workers; none of them outlives its master.

    Seeds are added for the claims that two seeds do not decide.
    """
    deciding = SMALL.replace("seeds = 2", "seeds = 2\ndecide = true\nmost_seeds = 3")
    small.write_text(deciding.replace("epochs = 2", "epochs = 30"))
    out = tmp_path / "out"
    for stop, status in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        before = epochs(out)
        with running(small, out) as process:
            wait_for(lambda there=before: epochs(out) > there, process)
            workers = children(process.pid)
            assert workers
            process.send_signal(stop)
            assert process.wait(60) == status
        wait_for(lambda ids=workers: not any(map(alive, ids)))
    with running(small, out) as process:
        said = process.communicate(timeout=600)
        assert process.returncode == 0, said
    straight = vaelab.study(small, workers=1, out=tmp_path / "straight")
    assert files(out) == files(tmp_path / "straight")
    assert len(straight.results.looks) == 2


def epochs(out: Path) -> int:
    """How many rows of history there are in all."""
    return sum(file.read_text().count("\n") for file in out.glob("runs/*/history.jsonl"))


def wait_for(condition: object, process: subprocess.Popen | None = None) -> None:
    for _ in range(1200):
        if condition():  # type: ignore[operator]
            return
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("it did not come about within a minute")


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        pytest.skip("no /proc to look for worker processes in")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except OSError:
        return False


def test_a_failed_run_is_reported_and_the_rest_goes_on(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    small.write_text(SMALL.replace("vary = { latent_dim = [2, 4] }", "vary = { lr = [0.001, 1e30] }"))
    assert main.run_cli(["study", str(small), "--workers", "1", "--seeds", "1", "--out", str(tmp_path)]) == 3
    said = capsys.readouterr().out
    assert "failed: run" in said
    assert "became NaN" in said or "became infinite" in said
    assert "partial: 2 of 5" in said
    assert (tmp_path / "studies" / "small" / "report.html").is_file()


def test_a_dry_run_trains_nothing(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main.run_cli(["study", str(small), "--workers", "1", "--dry-run", "--json", "--out", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["existing"], told["missing"]) == (8, 0, 8)
    assert told["seconds"] > 0
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "studies").exists()


def test_workers_follow_their_master_into_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert [result.value for result in run_jobs([Path.cwd, Path.cwd], 2)] == [tmp_path / name] * 2
