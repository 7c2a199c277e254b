"""What is refused before a study is run, and that two processes never carry out one study."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vaelab
from vaelab.analysis.registry import ANALYSES
from vaelab.core.errors import UserError
from vaelab.core.folders import check_folder
from vaelab.studies.checks import ANALYSIS_NUMBERS, check_measures
from vaelab.studies.lock import check_unlocked, lock_study
from vaelab.studies.parsing import parse_study
from vaelab.studies.plan import plan_runs

STUDY = """
data = "digits"
seeds = 1

[base]
network = "mlp:hidden=8"
epochs = 4

[[experiments]]
id = "size"
vary = { latent_dim = [2, 4] }
figures = []

[[experiments.claims]]
id = "claim"
sentence = "It is so."
measure = "MEASURE"
expect = "decreasing"
"""


def dry_run(text: str, folder: Path, **settings: object) -> dict[str, object]:
    """A dry run of a study file with this text."""
    (folder / "small.toml").write_text(text, encoding="utf-8")
    return vaelab.study(folder / "small.toml", dry_run=True, workers=1, out=folder / "out", **settings)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("samples.sharpnes", 'unknown number of samples in claim claim "sharpnes"; did you mean "sharpness"'),
        ("features.codes_arii / 2", 'did you mean "codes_ari"'),
        ("1 - interpolations.probability_101", "unknown number of interpolations"),
        ("evidence.negative_log_evidense", "negative_log_evidence"),
        ("at(kl, 5)", "reads epoch 5 of a curve that goes from epoch 1 to 4"),
        ("at(kl, 0)", "reads epoch 0"),
        ("at(train.kl, 2 * 3) - last(kl)", "reads epoch 6"),
        ("at(loss, -1)", "reads epoch -1"),
        ("train.mse", "measured on the train split, which"),
    ],
)
def test_a_measure_that_no_run_will_have_is_refused(measure: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        dry_run(STUDY.replace("MEASURE", measure), tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("measure", ["at(kl, 4)", "at(kl, 1.5)", "samples.sharpness", "validation.mse", "at(kl, mse)"])
def test_a_measure_that_runs_have_is_accepted(measure: str, tmp_path: Path) -> None:
    assert dry_run(STUDY.replace("MEASURE", measure), tmp_path)["missing"] == 2


def test_fewer_epochs_on_the_command_line_are_checked_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reads epoch 4 of a curve that goes from epoch 1 to 2"):
        dry_run(STUDY.replace("MEASURE", "at(kl, 4)"), tmp_path, epochs=2)


def test_points_of_a_curve_are_checked_where_steps_are_given(tmp_path: Path) -> None:
    text = STUDY.replace("MEASURE", "at(kl, 4)").replace("epochs = 4", "steps = 15")
    with pytest.raises(UserError, match="reads epoch 4 of a curve that goes from epoch 1 to 2"):
        dry_run(text, tmp_path)
    assert dry_run(text.replace("steps = 15", "steps = 44"), tmp_path)["missing"] == 2


def test_a_study_with_a_misspelt_measure_is_still_read() -> None:
    study = parse_study(STUDY.replace("MEASURE", "samples.sharpnes"), "old")
    assert len(study.trials) == 2
    with pytest.raises(UserError, match="sharpness"):
        check_measures(study)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("validation.mse", "mse is measured on the validation split, which digits does not have"),
        ("last(validation.kl)", "digits has no validation split"),
    ],
)
def test_data_without_the_split_of_a_claim_are_refused(measure: str, message: str, tmp_path: Path) -> None:
    text = STUDY.replace("MEASURE", measure).replace("epochs = 4", "epochs = 4\nvalidation = 0")
    with pytest.raises(UserError, match=message):
        dry_run(text, tmp_path)


def test_a_metric_that_the_test_images_do_not_have_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    binary = 255 * rng.integers(0, 2, (50, 8, 8), np.uint8)
    np.savez(tmp_path / "binary.npz", train_images=binary[:40], test_images=binary[40:])
    text = STUDY.replace("MEASURE", "bits_per_dim").replace('"digits"', json.dumps(str(tmp_path / "binary.npz")))
    with pytest.raises(UserError, match="are black and white, without levels of grey"):
        dry_run(text, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 1", "seeds = 2147483648", "seeds in the study must be how many, from 1 to 1000"),
        ("seeds = 1", "seeds = [4294967296]", "seeds in the study must be how many"),
        ("seeds = 1", "seeds = [-1]", "seeds in the study must be how many"),
        ("[2, 4]", "[10000000000000000000, 2]", "latent_dim must be"),
        ("epochs = 4", "epochs = 10000000000000000000", "epochs must be"),
        ("vary = {", "vary = { lr = [" + ", ".join(str(n / 1000) for n in range(1, 999)) + "], seedless = [1], "
         "batch_size = [" + ", ".join(map(str, range(1, 200))) + "], ", "settings; a study has at most"),
        ('data = "digits"', 'data = "digits"\nname = "' + "é" * 80 + 'ééé"', "must be a name"),
        ("MEASURE", "1" + "+1" * 400, "at most 500 characters"),
        ("MEASURE", "(" * 300 + "1" + ")" * 100, "is no expression"),
    ],
)  # fmt: skip
def test_absurd_numbers_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = STUDY.replace(old, new).replace("MEASURE", "mse")
    with pytest.raises(UserError, match=message):
        dry_run(text, tmp_path)


def test_names_that_the_file_system_refuses_are_refused(tmp_path: Path) -> None:
    text = STUDY.replace("MEASURE", "mse")
    long_name = "é" * 81  # 162 bytes: a name by its characters; with a condition of that length too long for a file
    both = text.replace('id = "size"', f'id = "{long_name}"').replace("figures = []", 'figures = ["curves"]')
    both = both.replace("[[experiments]]", f'[readings]\n"{long_name}" = {{ kl_weight = 1 }}\n[[experiments]]', 1)
    with pytest.raises(UserError, match="cannot be the name of a file here"):
        dry_run(both, tmp_path)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="is no folder; give another place with --out"):
        dry_run(text, tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "\udcff", ".", ".."])
def test_a_folder_that_cannot_be_made_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be the name of a file here|is no name for a folder"):
        check_folder(tmp_path, name)


def test_the_numbers_of_every_analysis_are_known() -> None:
    assert set(ANALYSIS_NUMBERS) == set(ANALYSES)


def test_numbers_that_analyses_gave_are_known() -> None:
    made = Path(__file__).parents[1] / "fixtures" / "made_by_952db17" / "runs"
    files = list(made.glob("*/examinations/*.json"))
    assert files
    for file in files:
        assert set(json.loads(file.read_text())) <= set(ANALYSIS_NUMBERS[file.stem]), file


# Two processes


HOLD = """
import sys, time
from pathlib import Path
from vaelab.studies.lock import lock_study
with lock_study(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_says_so_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY.replace("MEASURE", "mse"))
    folder = tmp_path / "out" / "studies" / "small"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(UserError, match="another process is carrying out the study"):
                vaelab.study(tmp_path / "small.toml", workers=1, out=tmp_path / "out")
            assert not (tmp_path / "out" / "runs").exists()
            (folder / "study.toml").write_text(STUDY.replace("MEASURE", "mse"))
            with pytest.raises(UserError, match="another process is carrying out the study"):
                vaelab.report(folder, workers=1)
        finally:
            holder.kill()
    for _ in range(100):  # a killed process holds nothing
        try:
            check_unlocked(folder)
            break
        except UserError:
            time.sleep(0.05)
    with lock_study(folder):
        pass


TRAIN = """
import sys, time
from pathlib import Path
from vaelab.runs.run import Run, lock_run
with lock_run(Run(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_run_that_another_process_trains_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "small.toml").write_text(STUDY.replace("MEASURE", "mse").replace("[2, 4]", "[2, 3]"))
    study = parse_study((tmp_path / "small.toml").read_text(), "small")
    run = next(iter(plan_runs(study, tmp_path / "out").values())).run
    command = [sys.executable, "-c", TRAIN, str(run.path), "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        result = vaelab.study(tmp_path / "small.toml", workers=1, out=tmp_path / "out")
    assert "1 run under way in another process" in capsys.readouterr().err
    assert (result.results.failed, result.results.missing) == ({}, 0)


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "small"
    (folder / "figures").mkdir(parents=True)
    left = [folder / ".vaelab-study-0123abcd.toml", folder / ".report-0123abcd.html"]
    left.append(folder / "figures" / ".size-curves-0123abcd.pdf")
    for file in left:
        file.write_text("a part")
    (folder / "figures" / "size-curves.pdf").write_text("whole")
    with lock_study(folder):
        assert not any(file.exists() for file in left)
        assert (folder / "figures" / "size-curves.pdf").exists()


# Afterwards


def test_what_earlier_failures_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY.replace("MEASURE", "mse"))
    first = vaelab.study(tmp_path / "small.toml", workers=1, out=tmp_path / "out")
    runs = first.results.finished_runs
    for run in runs:
        (run.path / "failure.log").write_text("an earlier failure")
        (run.path / "state").mkdir()
    again = vaelab.study(tmp_path / "small.toml", workers=1, out=tmp_path / "out")
    assert again.images_trained == 0
    for run in runs:
        assert not (run.path / "failure.log").exists()
        assert not (run.path / "state").exists()


def test_a_damaged_run_is_named_and_the_others_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.toml").write_text(STUDY.replace("MEASURE", "mse"))
    first = vaelab.study(tmp_path / "small.toml", workers=1, out=tmp_path / "out")
    damaged, whole = first.results.finished_runs
    file = damaged.path / "metrics.json"
    file.write_text(file.read_text().replace('"value":', '"value": NaN, "old":', 1))
    results = vaelab.study(tmp_path / "small.toml", workers=1, out=tmp_path / "out").results
    assert list(results.failed) == [damaged.key]
    assert "metrics.json" in results.failed[damaged.key]
    assert [run.key for run in results.finished_runs] == [whole.key]
    capsys.readouterr()
    vaelab.report(tmp_path / "out/studies" / results.study.name, workers=1)
    assert f"left out of the study: {file} is damaged" in capsys.readouterr().err
