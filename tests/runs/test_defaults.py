"""What is trained where nothing is said of the training, and settings that change its length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vaelab
from vaelab.datasets.images import Dataset, Images
from vaelab.models.networks import Conv, Mlp, ValidConv
from vaelab.runs.defaults import given_fields, suited_settings
from vaelab.runs.spec import Spec, check_spec, run_key, updated
from vaelab.training.augmentation import random_shifts, shift_images


def dataset(train: int, validation: int, shape: tuple[int, int, int]) -> Dataset:
    """Black pictures."""
    pixels = np.zeros((train + validation, *shape), np.uint8)
    split = Images(pixels, np.arange(train), None, (), "train", None)
    splits = {"train": split}
    if validation:
        splits["validation"] = replace(split, rows=np.arange(train, train + validation), split="validation")
    return Dataset("made", "made", splits, "0", (), (), {}, None, 0.1)


@pytest.mark.parametrize(
    ("train", "validation", "shape", "expected"),
    [
        (36, 4, (3, 32, 32), {"steps": 3000, "batch_size": 32, "keep": "best", "shift": 8, "flips": True}),
        (20, 2, (3, 32, 32), {"steps": 3000, "batch_size": 20, "shift": 8, "flips": True}),
        (900, 100, (3, 64, 48), {"steps": 3000, "batch_size": 32, "keep": "best", "shift": 6, "flips": True}),
        (400, 40, (1, 28, 28), {"steps": 3000, "batch_size": 32, "keep": "best", "shift": 7, "flips": False}),
        (50_000, 5000, (3, 32, 32), {"steps": 3000, "batch_size": 32, "keep": "best"}),
        (200, 0, (1, 28, 28), {"steps": 3000, "batch_size": 32, "shift": 7, "flips": False}),
    ],
)
def test_settings_suit_the_number_and_kind_of_pictures(
    train: int, validation: int, shape: tuple[int, int, int], expected: dict[str, object]
) -> None:
    data = dataset(train, validation, shape)
    settings = suited_settings(Spec(), data, given=())
    assert settings == expected | {"ema": 0.99, "network": Conv()}
    check_spec(replace(Spec(), **settings))
    kept = suited_settings(Spec(), data, given=("batch_size", "steps", "ema"))
    assert not {"batch_size", "steps", "ema"} & kept.keys()
    assert "steps" not in suited_settings(Spec(minutes=1.0), data, given=("minutes",))


def test_a_network_starts_as_suits_it_unless_the_user_says_how() -> None:
    data = dataset(36, 4, (1, 28, 28))
    starts = {Mlp(hidden=(8,)): Mlp((8,), init="he", output_bias="mean"), Conv(init="torch"): Conv(init="torch")}
    for network, expected in (starts | {ValidConv(): ValidConv()}).items():
        assert suited_settings(Spec(network=network), data, given=("network",))["network"] == expected
    given = given_fields("network", "mlp:hidden=8,init=torch")
    assert suited_settings(Spec(network=Mlp()), data, given)["network"] == Mlp(output_bias="mean")
    for value in ("mlp:output-bias=init", {"name": "mlp", "output_bias": "init"}, Mlp()):
        assert "network.output_bias" in given_fields("network", value)
    assert given_fields("network", "mlp:hidden=400,200") == {"network"}


def test_the_length_that_is_given_last_counts() -> None:
    by_steps = Spec(steps=50, minutes=2.0)
    assert updated(by_steps, {"epochs": 3}) == Spec(epochs=3)
    assert updated(by_steps, {"steps": 9}) == Spec(steps=9)
    assert updated(by_steps, {"minutes": 1}) == Spec(steps=50, minutes=1.0)
    assert (Spec(steps=50).num_steps(130), Spec(steps=50).num_epochs(130)) == (50, 25)
    assert (Spec(epochs=3).num_steps(130), Spec(epochs=3).num_epochs(130)) == (6, 3)


def test_new_settings_leave_the_keys_of_stored_runs() -> None:
    assert run_key(Spec(), "f", "float32") == run_key(Spec(steps=None, shift=0), "f", "float32")
    keys = {run_key(spec, "f", "float32") for spec in (Spec(), Spec(steps=5), Spec(shift=1))}
    assert len(keys) == 3


def test_pictures_are_shifted_with_their_edges_repeated() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4).expand(3, 2, 3, 4)
    moved = shift_images(pixels, torch.tensor([[0, 0], [1, 0], [-2, -1]]))
    assert torch.equal(moved[0], pixels[0])
    assert moved[1, 0].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert moved[2, 1].tolist() == [[9, 10, 11, 11]] * 3
    shifts = random_shifts(1000, 2, torch.Generator().manual_seed(0))
    assert shifts.unique().tolist() == [-2, -1, 0, 1, 2]


def test_steps_are_taken_exactly_and_a_repeated_command_finds_the_run(tmp_path: Path) -> None:
    settings = {"network": "mlp:hidden=8", "latent_dim": 2, "steps": 50, "threads": 1, "figures": False}
    run = vaelab.train("digits", out=tmp_path, **settings)
    assert run.history[-1]["step"] == 50
    assert (run.spec.batch_size, run.spec.keep, run.spec.ema, run.spec.shift) == (32, "best", 0.99, 1)
    assert vaelab.train("digits", out=tmp_path, **settings).outcome == "existing"
    shorter = vaelab.train("digits", out=tmp_path, from_=run.path, epochs=1, threads=1, figures=False)
    assert (shorter.spec.epochs, shorter.spec.steps, shorter.history[-1]["epoch"]) == (1, None, 1)


def test_a_run_begun_with_the_plain_defaults_is_continued(tmp_path: Path) -> None:
    from vaelab.datasets.loading import load_dataset
    from vaelab.training.fit import fit

    spec = updated(Spec(), {"network": "mlp:hidden=4", "latent_dim": 2, "batch_size": 1000})
    [plain] = fit([spec], load_dataset("digits", **spec.data_settings), tmp_path, threads=1)
    found = vaelab.train(
        "digits", network="mlp:hidden=4", latent_dim=2, batch_size=1000, out=tmp_path, threads=1, figures=False
    )
    assert (found.key, found.outcome) == (plain.key, "existing")
