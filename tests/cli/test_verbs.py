"""The verbs as a user calls them: what they print and write, and what they say of wrong use."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command_lines import say
from PIL import Image
from sample_images import folder_of_pictures

import vaelab
from vaelab.cli import main
from vaelab.core.errors import UserError
from vaelab.runs.run import Run

PICTURES = ("curves", "reconstructions", "samples", "interpolations", "traversals", "latent", "model", "epochs")


def test_a_trained_run_has_its_pictures(trained: Run) -> None:
    drawn = {file.stem for file in (trained.path / "figures").glob("*.png")}
    assert drawn == set(PICTURES)
    for name in PICTURES:
        with Image.open(trained.path / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 200
            assert np.asarray(picture.convert("L")).std() > 5, "not blank"


def test_the_same_command_finds_the_run(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "digits", "--latent-dim", 4, "--epochs", 12, "--lr", 3e-3, "--precision", "float32",
             "--device", "cpu", "--out", trained.path.parent]  # fmt: skip
    status, out, err = say(capsys, *words, "--json")
    assert status == 0
    assert json.loads(out) == {"run": str(trained.path), "key": trained.key, "outcome": "existing", "from_epoch": 12,
                               "images_trained": 0}  # fmt: skip
    assert "one standard deviation for all pixels, learned" in err
    assert say(capsys, *words)[1].startswith(f"run {trained.path}: found, already trained")


def test_evaluate_prints_metrics_with_errors(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = say(capsys, "evaluate", trained.path, "--json")
    measured = json.loads(out)
    assert status == 0
    assert (measured["split"], measured["n"]) == ("test", 359)
    kept = trained.metrics["test"]
    assert {name: value for name, value in measured.items() if name != "metrics"} | {"metrics": kept["metrics"]} == kept
    assert measured["metrics"].items() >= kept["metrics"].items()
    assert set(measured["metrics"]["negative_elbo"]) == {"value", "stderr"}
    assert len(measured["kl_per_dimension"]) == 4
    assert sum(measured["kl_per_dimension"]) == pytest.approx(measured["metrics"]["kl"]["value"], rel=1e-5)
    evidence = measured["metrics"]["negative_log_evidence"]
    assert evidence["value"] < measured["metrics"]["negative_elbo"]["value"]
    assert (evidence["n"], evidence["samples"]) == (200, 500)
    rate = measured["metrics"]["mutual_information"]["value"] + measured["metrics"]["marginal_kl"]["value"]
    assert rate == pytest.approx(measured["metrics"]["kl"]["value"], rel=0.1)
    _, out, _ = say(capsys, "evaluate", trained.path, "--split", "train", "--n", 50)
    assert "train: 50 images of digits" in out
    assert "negative_elbo_of_mean" in out


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_full_evaluation_is_beside_pixels_and_pca_and_repeats(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted = tmp_path / "inception.pt"
    torch.jit.script(Stand()).save(str(scripted))
    words = ["evaluate", trained.path, "--full", "--evidence", 20, "--inception", scripted, "--json"]
    status, out, _ = say(capsys, *words)
    assert status == 0
    assert say(capsys, *words)[1] == out, "the same input, the same output"
    found = json.loads(out)["metrics"]
    for name in ("ari", "nmi", "ami", "neighbour", "probe"):
        for space in ("codes", "raw", "pca"):
            assert 0 <= found[f"{space}_{name}"]["value"] <= 1
            assert 0 < found[f"{space}_{name}"]["stderr"] < 0.1
    assert found["raw_probe"]["value"] > 0.9 > found["pca_probe"]["value"] > 0.5
    near, far = found["classifier_frechet_distance_of_train"], found["classifier_frechet_distance"]
    assert 0 <= near["value"] < far["value"]
    assert found["frechet_inception_distance"]["value"] > 0
    assert found["kernel_inception_distance"]["stderr"] > 0
    assert found["effective_samples"]["value"] <= 20
    without_error = {name for name, metric in found.items() if metric["stderr"] is None}
    assert without_error == {
        *("loss", "active_units", "frechet_inception_distance_corrected"),
        *("negative_log_evidence", "negative_log_evidence_corrected"),  # of less than ten effective samples
    }


class Stand(torch.nn.Module):
    """A few features of colour pictures of 8-bit values, as the Inception network gives many."""

    def forward(self, x: torch.Tensor, return_features: bool) -> torch.Tensor:
        assert return_features
        assert x.dtype == torch.uint8
        return x.float().div(255).flatten(1)[:, ::16]


def test_new_pictures_of_any_size_go_through_a_run(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_pictures(tmp_path / "pictures", size=(40, 30))
    files = sorted(folder.rglob("*.png"))
    for words, out in (
        (["reconstruct", trained.path, *files[:3]], "r.png"),
        (["interpolate", trained.path, "--from", files[0], "--to", files[-1]], "i.png"),
        (["interpolate", trained.path, "--from", "3", "--to", files[-1], "--path", "slerp"], "s.pdf"),
        (["interpolate", trained.path, "--pairs", 2, "--steps", 4, "--sampled"], "a.gif"),
        (["sample", trained.path, "--n", 5], "p.png"),
        (["model", trained.path], "m.png"),
    ):
        status, printed, err = say(capsys, *words, "--out", tmp_path / out)
        assert status == 0, err
        assert f"wrote {tmp_path / out}" in printed
        assert (tmp_path / out).stat().st_size > 500
    status, out, _ = say(capsys, "embed", trained.path, folder, "--out", tmp_path / "codes.parquet", "--json")
    assert json.loads(out) == {"out": str(tmp_path / "codes.parquet")}
    codes = pq.read_table(tmp_path / "codes.parquet")
    assert codes.column_names == ["path", "split", "label", *(f"mean_{d}" for d in range(4)),
                                  *(f"logvar_{d}" for d in range(4)), "error"]  # fmt: skip
    assert len(codes) == len(files)
    assert set(codes["label"].to_pylist()) == {"blue", "red"}


def test_embedding_gives_the_posterior_means_in_order(trained: Run, tmp_path: Path) -> None:
    import torch

    codes = pq.read_table(vaelab.embed(trained.path, "digits", out=tmp_path / "c.parquet")).to_pandas()
    test = trained.images("test")
    mine = codes[codes["split"] == "test"]
    expected = trained.model.encode(torch.from_numpy(test.uint8()).float() / 255).mean.numpy()
    np.testing.assert_allclose(mine[[f"mean_{d}" for d in range(4)]].to_numpy(), expected, rtol=1e-4, atol=1e-5)
    assert mine["index"].tolist() == test.rows.tolist()
    assert mine["label"].tolist() == [test.categories[i] for i in test.label()]


def test_interpolations_start_and_end_at_the_reconstructions(trained: Run, tmp_path: Path) -> None:
    images = trained.images("test").uint8(slice(0, 2))
    for name, pixels in zip(("a", "b"), images, strict=True):
        Image.fromarray(pixels[0]).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    ends = vaelab.reconstruct(trained, files)
    for path in ("linear", "slerp"):
        made = vaelab.interpolate(trained, from_=files[0], to=files[1], steps=5, path=path)
        assert made.shape == (1, 5, 1, 8, 8)
        np.testing.assert_allclose(made[0, [0, -1]], ends, atol=1e-5)
    sampled = vaelab.interpolate(trained, from_=files[0], to=files[1], sampled=True)
    assert not np.allclose(sampled[0, 0], ends[0], atol=1e-3)
    np.testing.assert_array_equal(sampled, vaelab.interpolate(trained, from_=files[0], to=files[1], sampled=True))


def test_pairs_are_of_the_categories_named(trained: Run) -> None:
    from vaelab.analysis.interpolation import draw_pairs

    images = trained.images("test")
    start, end = draw_pairs(images, 7, "3", "8")
    assert set(images.label()[start]) == {3}
    assert set(images.label()[end]) == {8}
    assert len(set(start)) == 7
    one, other = draw_pairs(images, 7)
    assert not set(one) & set(other)
    assert draw_pairs(images, 7)[0].tolist() == one.tolist()


def test_list_tells_of_the_runs(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = say(capsys, "list", trained.path.parent, "--sort", "mse", "--json")
    [row] = json.loads(out)["runs"]
    assert row["path"] == str(trained.path)
    assert row["metrics"]["mse"] == trained.metrics["test"]["metrics"]["mse"]["value"]
    assert row["bytes"] > 10_000
    assert trained.key in say(capsys, "list", trained.path.parent)[1]


def test_a_damaged_run_does_not_hide_the_others(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, damage in (("a", "{"), ("b", "[]"), ("c", "{}"), ("d", "null")):
        run = Path(shutil.copytree(trained.path, tmp_path / name))
        for file in ("spec.json", "metrics.json", "origin.json", "history.jsonl"):
            (run / file).write_text(damage)
            child = ["train", "--from", run, "--epochs", 1, "--no-figures", "--out", tmp_path / "children"]
            for words in (["evaluate", run], child, ["model", run]):
                status, _, err = say(capsys, *words)
                assert status in (0, 2), err
                assert "Traceback" not in err
            shutil.copy(trained.path / file, run / file)
        (run / "spec.json").write_text(damage)
    shutil.copytree(trained.path, tmp_path / "good")
    status, out, err = say(capsys, "list", tmp_path)
    assert status == 0
    assert str(tmp_path / "good") in out
    assert err.count("left out, damaged") >= 3


def test_train_does_not_call_a_damaged_run_well(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(trained.path, tmp_path / trained.key))
    words = ["train", "digits", "--latent-dim", 4, "--epochs", 12, "--lr", 3e-3, "--precision", "float32",
             "--device", "cpu", "--out", tmp_path]  # fmt: skip
    content = (run / "weights.safetensors").read_bytes()
    (run / "weights.safetensors").write_bytes(content[:1000])
    status, _, err = say(capsys, *words)
    assert status == 2
    assert "weights.safetensors is damaged" in err
    (run / "weights.safetensors").unlink()  # what is missing is trained again
    status, out, _ = say(capsys, *words, "--no-figures", "--threads", 1)
    assert status == 0
    assert "trained" in out
    assert (run / "weights.safetensors").read_bytes() == content


def test_data_of_several_sizes_is_told_and_other_data_are_measured_whole(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_pictures(tmp_path / "pictures", count=3)
    Image.new("RGB", (30, 40), "green").save(folder / "red" / "other.png")
    status, out, _ = say(capsys, "data", folder)
    assert status == 0
    assert "16x12 (6), 30x40 (1)" in out
    assert "train with --size" in out
    (folder / "red" / "broken.png").write_text("text")
    status, out, err = say(capsys, "evaluate", trained.path, "--data", folder, "--json")
    assert status == 0, err
    assert (json.loads(out)["split"], json.loads(out)["n"]) == ("all", 7)
    assert "red/broken.png: not a picture" in err


def test_a_run_is_used_from_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of_pictures(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    words = ["train", "pictures", "--epochs", 1, "--latent-dim", 2, "--threads", 1, "--no-figures", "--json"]
    status, out, err = say(capsys, *words)
    assert status == 0, err
    run = tmp_path / json.loads(out)["run"]
    monkeypatch.chdir("/")
    status, out, _ = say(capsys, "evaluate", run, "--evidence", 0, "--json")
    assert status == 0
    assert json.loads(out) == vaelab.load(run).metrics["test"]


def test_data_tells_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of_pictures(tmp_path / "pictures")
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    status, out, _ = say(capsys, "data", folder, "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["shape"] == [3, 12, 16]
    assert sum(split["n"] for split in facts["splits"].values()) == 24
    assert facts["skipped"] == [{"file": "red/broken.png", "reason": "not a picture"}]
    assert "red/broken.png" in say(capsys, "data", folder)[1]


def test_a_folder_of_pictures_is_trained_with_the_damaged_ones_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_pictures(tmp_path / "pictures", size=(20, 16))
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (1, 1)).save(folder / "red" / "tiny.png")
    (folder / "alone").mkdir()
    Image.new("RGB", (20, 16), "green").save(folder / "alone" / "one.png")
    status, _, err = say(capsys, "train", folder, "--epochs", 1, "--latent-dim", 2, "--threads", 1,
                           "--out", tmp_path / "runs")  # fmt: skip
    assert status == 0, err
    assert "broken.png" in err
    assert "tiny.png" in err
    assert "alone" in err
    assert len(list((tmp_path / "runs").glob("*/figures/*.png"))) == len(PICTURES)


def test_without_a_prior_there_are_no_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "digits", "--loss", "se", "--kl-weight", 0, "--epochs", 1, "--threads", 1, "--no-figures"]
    _, out, err = say(capsys, *words, "--out", tmp_path, "--json")
    assert "no likelihood" in err
    status, _, err = say(capsys, "sample", json.loads(out)["run"], "--out", tmp_path / "s.png")
    assert status == 2
    assert "KL weight 0" in err


WRONG = {
    "trian digits": 'unknown verb "trian"; did you mean "train"?',
    "train": "say what to train on",
    "train nowhere/at/all": "nowhere/at/all",
    "train EMPTY": "it is empty",
    "train UNREADABLE": "not a picture",
    "train digits --lr abc": '--lr must be a number, got "abc"',
    "train digits --lr nan": "--lr must be a positive number, got nan",
    "train digits --latent-dim 0": "--latent-dim must be at least 1, got 0",
    "train digits --latent-dim 10000000000000000000": "--latent-dim must be at most 1,000,000, got 1000000",
    "train digits --latent-dim 1000000 --network mlp:hidden=1000000": "of memory, this machine has",
    "train digits --seed 4294967296": "--seed must be at most 4,294,967,295, got 4294967296",
    "train digits --steps 0": "--steps must be at least 1, got 0",
    "train digits --shift -1": "--shift must be at least 0, got -1",
    "train digits --batch-size 99999999": "--batch-size must be at most 1,000,000",
    "train digits --objective iwae:k=9999999": "k must be at most 1,000,000, got 9999999",
    "train digits --epochs 1 --snapshots 99999999999999": "snapshots are epochs from 1 on",
    "train digits --epochs 1 --out BROKEN": "is no folder",
    "sample RUN --n 100000000": "--n must be at most 100,000",
    "sample RUN --seed -1": "--seed must be at least 0",
    "interpolate RUN --pairs 100000 --out x.png": "--pairs must be at most 1,000",
    "interpolate RUN --steps 100000 --out x.png": "--steps must be at most 1,000",
    "report RUN --workers 100000": "--workers must be at most 1,024",
    "train digits --latent-dim 2.5": '--latent-dim must be a whole number, got "2.5"',
    "train digits --epochs -1": "--epochs must be at least 1, got -1",
    "train digits --preset textbok": 'unknown preset "textbok"; did you mean "textbook"?',
    "train digits --network cnv": 'unknown network "cnv"; did you mean "conv"?',
    "train digits --loss mse": 'unknown loss "mse"',
    "train digits --device tpu": 'device "tpu" is not on this machine',
    "train digits --latent 3": "Unknown option: --latent. Did you mean --latent-dim?",
    "train digits --binarize dynamc": 'unknown binarise "dynamc"; did you mean "dynamic"?',
    "train digits --objective dip:of=x": "objective:of",
    "train digits --network mlp:hidden=0": "--network mlp: hidden must be at least 1, got 0",
    "train digits more": "more",
    "evaluate": "RUN",
    "evaluate nowhere": "there is no run at nowhere",
    "evaluate RUN --split tset": 'no split "tset"',
    "evaluate RUN --n 0": "n must be at least 1, got 0",
    "evaluate RUN --evidence 6000": "evidence is a number of samples from 2 to 5000, or 0 to leave it out, got 6000",
    "evaluate RUN --inception EMPTY": "is no TorchScript file",
    "evaluate RUN --data EMPTY": "it is empty",
    "reconstruct RUN missing.png --out x.png": "missing.png",
    "reconstruct RUN BROKEN --out x.png": "not a picture",
    "interpolate RUN --from 3 --to 12 --out x.png": 'unknown category or picture file "12"',
    "interpolate RUN --path arc --out x.png": "slerp",
    "interpolate RUN --steps 1 --out x.png": "steps must be at least 2",
    "sample RUN --n 0 --out x.png": "n must be at least 1, got 0",
    "sample RUN --out x.jpeg": "--out must end in .png",
    "sample RUN --out x.gif": "--out must end in .png",
    "embed RUN digits --out x.csv": "--out must end in .parquet",
    "train digits --threads 5000": "threads must be from 1 to",
    "train digits --snapshots 0": "snapshots are epochs from 1 on",
    "train digits --loss ce+se:cross_entropy=nan": "cross_entropy must be a number of at least 0, got nan",
    "train ONE --size 16 --keep best": "no picture to spare for a validation",
    "embed RUN nowhere": 'data "nowhere"',
    "list nowhere": "there is no folder nowhere",
    "list RUNS --sort mes": 'unknown metric "mes"; did you mean "mse"?',
    "data EMPTY": "it is empty",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_use_is_answered_in_a_sentence(
    line: str, trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "a.png").write_text("text")
    (tmp_path / "one").mkdir()
    Image.new("RGB", (20, 20), "green").save(tmp_path / "one" / "a.png")
    places = {
        "ONE": "one",
        "EMPTY": "empty",
        "UNREADABLE": "unreadable",
        "BROKEN": "unreadable/a.png",
        "RUN": trained.path,
        "RUNS": trained.path.parent,
    }
    before = sorted(tmp_path.rglob("*"))
    status, out, err = say(capsys, *(places.get(word, word) for word in line.split()))
    assert status == 2
    assert WRONG[line] in err
    assert out == ""
    assert len(err.strip().splitlines()) <= 3
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before, "nothing was written"


def test_help_and_import_do_not_wait_for_torch() -> None:
    code = "import sys; from vaelab.cli.main import run_cli; print(run_cli(['--help']), 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines()[-1] == "0 False"
    assert all(verb in printed for verb in main.COMMANDS)


def test_every_setting_of_a_spec_is_a_flag_of_train_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    from vaelab.runs.spec import spec_settings

    status, out, _ = say(capsys, "train", "--help")
    assert status == 0
    words = out.split()
    for info in spec_settings().values():
        if info.flag:
            for name in (info.name, *info.aliases):
                assert f"--{name.replace('_', '-')}" in words
            assert info.help.split()[0] in words


def test_other_spellings_of_settings_are_one_setting(tmp_path: Path) -> None:
    from vaelab.runs.spec import Spec, accepted_names, updated

    assert updated(Spec(), {"binarize": "fixed", "grad_clip": 1}) == updated(Spec(), {"binarise": "fixed", "clip": 1})
    assert updated(Spec(), {"likelihood": "ce"}) == updated(Spec(), {"loss": "ce"})
    assert {"horizontal_flip", "select", "max_minutes", "kl_weight"} <= accepted_names().keys()
    run = vaelab.train(
        "digits", horizontal_flip=True, loss="ce", epochs=1, network="mlp:hidden=4", out=tmp_path, figures=False
    )
    assert run.spec.flips
    assert run.spec.distortion == run.spec.loss
    assert json.loads((run.path / "spec.json").read_text())["loss"] == {"name": "cross-entropy"}


def test_unknown_settings_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match='unknown setting "latentdim"; did you mean "latent_dim"'):
        vaelab.train("digits", latentdim=3)
    with pytest.raises(UserError, match='unknown setting "figurs"; did you mean "figures"'):
        vaelab.train("digits", figurs=False)
    with pytest.raises(UserError, match="unknown setting"):
        vaelab.train("digits", parent="abc")
    with pytest.raises(UserError, match=r"^batch_size must be at least 1, got 0$"):
        vaelab.train("digits", batch_size=0)


def test_public_names_are_there() -> None:
    assert all(callable(getattr(vaelab, name)) for name in vaelab.__all__)
    assert not hasattr(vaelab, "nothing")
