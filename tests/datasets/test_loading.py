"""Every source and every kind of picture becomes the same thing: bytes, labels, splits and a fingerprint of them."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hub import serving
from PIL import Image
from pyarrow import parquet

from vaelab.core import files
from vaelab.core.errors import UserError
from vaelab.datasets import build, chunks, loading
from vaelab.datasets import cache as decode_cache
from vaelab.datasets.build import DecodeSettings
from vaelab.datasets.decoding import read_images
from vaelab.datasets.loading import describe_dataset, load_dataset
from vaelab.datasets.sources import hub
from vaelab.datasets.sources.source import find_source, source_not_found_error

SRC = str(Path(loading.__file__).parents[2])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VAELAB_DATA", raising=False)
    return tmp_path / "cache"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def folder(root, counts, side=8):
    """A folder of grey pictures, {sub-folder: number}, all different."""
    for k, (name, n) in enumerate(counts.items()):
        for i in range(n):
            save(root / name / f"{i:03}.png", noise(side, side, seed=1000 * k + i))
    return root


def sizes(dataset):
    return {split: len(images) for split, images in dataset.splits.items()}


def entries(cache):
    return sorted(path.name for path in cache.iterdir())


# ---- decoding -------------------------------------------------------------------------------------------------------

GREY, RGB, ALPHA = noise(8, 10), noise(8, 10, 3), noise(8, 10)
WIDE = noise(8, 10).astype(np.uint16) * 257
WHITE = np.rint(RGB * (ALPHA[..., None] / 255.0) + 255 * (1 - ALPHA[..., None] / 255.0))


def grey_palette():
    image = Image.fromarray(GREY).convert("P")
    image.putpalette([level for i in range(256) for level in (255 - i,) * 3])
    return image


def colour_palette():
    image = Image.new("P", (10, 8), 1)
    image.putpalette([0, 0, 0, 200, 30, 40, 10, 20, 250])
    image.paste(2, (0, 0, 5, 8))
    return image


PALETTE = np.full((8, 10, 3), (200, 30, 40), np.uint8)
PALETTE[:, :5] = (10, 20, 250)
HOLES = PALETTE.copy()
HOLES[:, :5] = 255
CMYK = np.stack([noise(8, 10, seed=s) for s in range(3)] + [np.zeros((8, 10), np.uint8)], -1)
PICTURES = {
    "grey": ("png", GREY, {}, GREY),
    "colour": ("bmp", RGB, {}, RGB),
    "bilevel": ("png", Image.fromarray(GREY > 127), {}, (GREY > 127) * 255),
    "grey-alpha": ("png", np.stack([GREY, ALPHA], -1), {}, np.rint(GREY * (ALPHA / 255.0) + 255 - ALPHA)),
    "alpha": ("png", np.concatenate([RGB, ALPHA[..., None]], -1), {}, WHITE),
    "16-bit-png": ("png", WIDE, {}, GREY),
    "16-bit-tiff": ("tiff", WIDE, {}, GREY),
    "16-bit-big-endian": ("tiff", Image.frombytes("I;16B", (10, 8), WIDE.astype(">u2").tobytes()), {}, GREY),
    "16-bit-pgm": ("pgm", WIDE.astype(np.int32), {}, GREY),
    "float": ("tiff", GREY.astype(np.float32) / 255, {}, GREY),
    "cmyk": ("tiff", Image.frombytes("CMYK", (10, 8), CMYK.tobytes()), {}, 255 - CMYK[..., :3]),
    "grey-palette": ("png", grey_palette(), {}, 255 - GREY),
    "palette": ("png", colour_palette(), {}, PALETTE),
    "palette-transparent": ("png", colour_palette(), {"transparency": 2}, HOLES),
    "colour-key": ("png", PALETTE, {"transparency": (10, 20, 250)}, HOLES),
    "animated": ("gif", colour_palette(), {"save_all": True, "append_images": [Image.new("L", (10, 8))]}, PALETTE),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_mode_decodes_to_its_pixels(kind, tmp_path):
    suffix, pixels, options, expected = PICTURES[kind]
    path = save(tmp_path / f"picture.{suffix}", pixels, **options)
    images = load_dataset(path).splits["train"]
    expected = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    assert images.shape == expected.shape  # grey modes give one channel, the others three
    assert np.abs(images.uint8()[0].astype(int) - expected).max() <= (1 if "alpha" in kind else 0)
    assert (read_images([path], images.shape)[0] == images.uint8()[0]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, tmp_path):
    down = GREY.T
    turned = [GREY, GREY[:, ::-1], GREY[::-1, ::-1], GREY[::-1], down, down[:, ::-1], down[::-1, ::-1], down[::-1]]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "photo.png", GREY, exif=exif)
    assert (load_dataset(path).splits["train"].uint8()[0, 0] == turned[orientation - 1]).all()


def test_jpeg_is_read_as_pillow_reads_it(tmp_path):
    path = save(tmp_path / "photo.jpg", noise(16, 24, 3))
    assert (load_dataset(path).splits["train"].uint8()[0] == np.asarray(Image.open(path)).transpose(2, 0, 1)).all()


def test_size_crops_to_the_centre_and_resizes(tmp_path):
    bands = np.zeros((16, 48), np.uint8)
    bands[:, 16:32] = 200  # the centre square; the rest must not leak in
    path = save(tmp_path / "wide.png", bands)
    assert (load_dataset(path, size=16).splits["train"].uint8() == 200).all()
    assert (load_dataset(path, size=8).splits["train"].uint8() == 200).all()
    assert load_dataset(path, size=(8, 24)).splits["train"].shape == (1, 8, 24)
    assert read_images([path, path], (3, 16, 16)).shape == (2, 3, 16, 16)
    assert (read_images([path], (3, 16, 16)) == 200).all()


def test_large_jpeg_in_part_looks_like_the_whole(tmp_path):
    smooth = np.add.outer(np.linspace(0, 120, 640), np.linspace(0, 130, 640)).astype(np.uint8)
    path = save(tmp_path / "large.jpg", smooth, quality=95)
    whole = Image.fromarray(smooth).resize((16, 16), Image.Resampling.BOX)
    assert np.abs(load_dataset(path, size=16).splits["train"].uint8()[0, 0].astype(int) - np.asarray(whole)).max() <= 3


def test_channels_override(tmp_path):
    folder(tmp_path / "grey", {"a": 3})
    assert load_dataset(tmp_path / "grey", channels=3).splits["train"].shape == (3, 8, 8)
    path = save(tmp_path / "red.png", np.full((8, 8, 3), (255, 0, 0), np.uint8))
    assert set(load_dataset(path, channels=1).splits["train"].uint8().ravel().tolist()) == {76}  # ITU-R 601


def test_one_colour_picture_makes_all_colour(tmp_path):
    folder(tmp_path / "mixed", {"a": 3})
    save(tmp_path / "mixed/a/999.png", noise(8, 8, 3))
    images = load_dataset(tmp_path / "mixed").splits["train"]
    assert images.shape == (3, 8, 8)


def test_large_pictures_neither_warn_nor_stop(tmp_path, monkeypatch):
    for name, side in (("small", 8), ("large", 12), ("bomb", 16)):
        save(tmp_path / "d" / f"{name}.png", noise(side, side))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns above, and refuses above twice as much
    dataset = load_dataset(tmp_path / "d", size=8)
    assert [file for file, _ in dataset.skipped] == ["bomb.png"]
    assert sum(map(len, dataset.splits.values())) == 2


def test_read_names_the_file_it_cannot_read(tmp_path):
    good = save(tmp_path / "good.png", GREY)
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(UserError, match=r"bad\.png cannot be read as a picture: not a picture"):
        read_images([good, tmp_path / "bad.png"], (1, 8, 8))
    with pytest.raises(UserError, match=r"gone\.png cannot be read as a picture: No such file"):
        read_images([tmp_path / "gone.png"], (1, 8, 8))
    assert read_images([], (1, 8, 8)).shape == (0, 1, 8, 8)


# ---- splits ---------------------------------------------------------------------------------------------------------


def test_digits():
    dataset = load_dataset("digits", validation=0.1)
    assert sizes(dataset) == {"train": 1294, "validation": 144, "test": 359}
    train = dataset.splits["train"]
    assert train.shape == (1, 8, 8)
    assert train.categories == tuple("0123456789")
    assert (train.stored_pixels.min(), train.stored_pixels.max()) == (0, 255)
    assert dataset.location == "bundled with scikit-learn"


def test_made_splits_are_disjoint_complete_stratified_and_always_the_same(tmp_path):
    folder(tmp_path / "d", {"a": 40, "b": 20, "c": 10})
    splits = load_dataset(tmp_path / "d", validation=0.25).splits
    rows = [images.rows for images in splits.values()]
    assert sorted(np.concatenate(rows).tolist()) == list(range(70))
    counts = {split: np.bincount(images.label()).tolist() for split, images in splits.items()}
    assert {split: sum(n) for split, n in counts.items()} == {"train": 42, "validation": 14, "test": 14}
    for split, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        assert np.abs(np.array(counts[split]) - share * np.array([40, 20, 10])).max() <= 1.5
    again = load_dataset(tmp_path / "d", validation=0.25).splits
    assert all((again[split].rows == images.rows).all() for split, images in splits.items())
    assert (load_dataset(tmp_path / "d").splits["test"].rows == splits["test"].rows).all()  # whatever the validation
    for images in splits.values():  # rows, labels, names and pixels stay together
        for i in (0, len(images) - 1):
            name = images.name(i)
            assert name.startswith(images.categories[images.label(i)[0]])
            assert (images.uint8(i)[0, 0] == np.asarray(Image.open(tmp_path / "d" / name))).all()


def test_each_split_seed_draws_other_splits_and_stored_splits_stay(tmp_path):
    """Small data sets are split anew for each seed, so that a result does not rest on one choice of test pictures."""
    usual = load_dataset("digits", validation=0.1, subset=500)
    assert dataset_rows(load_dataset("digits", validation=0.1, subset=500, split_seed=0)) == dataset_rows(usual)
    other = load_dataset("digits", validation=0.1, subset=500, split_seed=1)
    assert sizes(other) == sizes(usual)
    assert other.fingerprint == usual.fingerprint, "the pictures are the same"
    for split, rows in dataset_rows(usual).items():
        assert len(rows & dataset_rows(other)[split]) < 0.7 * len(rows), split
    assert not set.intersection(*dataset_rows(other).values())
    labels = np.bincount(other.splits["test"].label())
    assert labels.min() >= 34, "stratified"
    assert "by split seed 1" in other.facts.split_origins["test"]
    (tmp_path / "d").mkdir()
    for split in ("train", "test"):
        folder(tmp_path / "d" / split, {"a": 6})
    assert dataset_rows(load_dataset(tmp_path / "d", split_seed=1)) == dataset_rows(load_dataset(tmp_path / "d"))


def dataset_rows(dataset):
    return {split: set(images.rows.tolist()) for split, images in dataset.splits.items()}


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_few_pictures(n, tmp_path):
    folder(tmp_path / "d", {"a": n})
    expected = {1: {"train": 1}, 2: {"train": 1, "test": 1}}.get(n, {"train": n - 2, "validation": 1, "test": 1})
    assert sizes(load_dataset(tmp_path / "d", validation=0.01)) == expected


def test_categories_of_one_picture_stay_in_training(tmp_path):
    folder(tmp_path / "d", {"a": 10, "lonely": 1})
    dataset = load_dataset(tmp_path / "d", validation=0.5)
    assert 1 in dataset.splits["train"].label()
    assert "categories with one training picture only: lonely" in dataset.notes
    folder(tmp_path / "only", {"a": 1, "b": 1})
    dataset = load_dataset(tmp_path / "only", validation=0.1)
    assert sizes(dataset) == {"train": 1, "validation": 1}
    assert "no picture could be spared for a test split" in dataset.notes


def test_selection_is_a_view(tmp_path):
    images = load_dataset(folder(tmp_path / "d", {"a": 12})).splits["train"]
    part = images.select(slice(2, 5)).select(np.array([2, 0]))
    assert part.stored_pixels is images.stored_pixels
    assert part.rows.tolist() == [images.rows[4], images.rows[2]]
    assert (part.uint8() == images.uint8([4, 2])).all()
    assert (part.uint8(np.array([False, True])) == images.uint8(2)).all()
    assert part.uint8().flags.c_contiguous
    assert part.uint8().flags.writeable


# ---- folders --------------------------------------------------------------------------------------------------------


def test_stored_splits_of_a_folder(tmp_path):
    folder(tmp_path / "d", {"train/cat": 3, "train/dog/deep/er": 2, "test/cat": 2, "val/dog": 1, "extra/x": 1})
    dataset = load_dataset(tmp_path / "d", validation=0.1)
    names = {split: [images.name(i) for i in range(len(images))] for split, images in dataset.splits.items()}
    assert names["train"] == [f"train/cat/00{i}.png" for i in range(3)] + [
        f"train/dog/deep/er/00{i}.png" for i in range(2)
    ]
    assert names["validation"] == ["val/dog/000.png"]
    assert dataset.splits["train"].categories == ("cat", "dog")
    assert {split: images.label().tolist() for split, images in dataset.splits.items()} == {
        "train": [0, 0, 0, 1, 1], "validation": [1], "test": [0, 0]}  # fmt: skip
    assert dataset.notes == ("1 picture beside train is not used, such as extra/x/000.png",)
    assert set(load_dataset(tmp_path / "d", validation=0).splits) == {"train", "test"}  # of which nothing is held out


def test_a_category_may_be_called_train(tmp_path):
    folder(tmp_path / "d", {"train": 3, "ship": 4})
    assert load_dataset(tmp_path / "d").splits["train"].categories == ("ship", "train")


def test_test_without_train_is_refused(tmp_path):
    folder(tmp_path / "d", {"test/a": 3})
    with pytest.raises(UserError, match="has test but no pictures in train"):
        load_dataset(tmp_path / "d")


def test_flat_folder_has_no_labels(tmp_path):
    images = load_dataset(folder(tmp_path / "d", {".": 5})).splits["train"]
    assert images.labels is None
    assert images.categories == ()
    assert images.label().tolist() == [-1] * 4


def test_loose_pictures_are_unlabelled(tmp_path):
    folder(tmp_path / "d", {"a": 5, ".": 1})
    dataset = load_dataset(tmp_path / "d")
    assert dataset.splits["train"].stored_labels.tolist() == [-1, 0, 0, 0, 0, 0]
    assert describe_dataset(dataset)["splits"]["train"]["unlabelled"] == 1


def test_links_in_a_ring_end(tmp_path):
    folder(tmp_path / "d", {"a": 4})
    (tmp_path / "d/a/again").symlink_to(tmp_path / "d")
    (tmp_path / "d/a/self").symlink_to(tmp_path / "d/a/self")
    (tmp_path / "d/b").symlink_to(tmp_path / "d/a")  # no ring, but the same pictures
    (tmp_path / "d/a/gone.png").symlink_to(tmp_path / "nowhere.png")
    dataset = load_dataset(tmp_path / "d")
    assert sum(map(len, dataset.splits.values())) == 4
    assert {file for file, _ in dataset.skipped} == {"a/gone.png", "a/self"}
    assert "2 links to folders that are read already: a/again, b; every folder is read once" in dataset.notes


def test_what_is_no_picture_is_left_aside_and_said(tmp_path):
    root = folder(tmp_path / "d", {"a": 4, "b": 3})
    (root / "a/text.png").write_text("I am text")
    (root / "a/empty.jpg").write_bytes(b"")
    whole = (root / "a/000.png").read_bytes()
    (root / "b/cut.png").write_bytes(whole[: len(whole) // 2])
    save(root / "b/tiny.png", noise(1, 1))
    (root / "a/notes.txt").write_text("not meant to be a picture")
    for hidden in (".DS_Store", "._000.png", ".thumbs/x.png"):
        (root / hidden).parent.mkdir(exist_ok=True)
        (root / hidden).write_bytes(b"hidden")
    dataset = load_dataset(root)
    assert dict(dataset.skipped) == {
        "a/text.png": "not a picture", "a/empty.jpg": "empty", "b/tiny.png": "too small: 1x1",
        "b/cut.png": dict(dataset.skipped)["b/cut.png"]}  # fmt: skip
    assert "truncated" in dict(dataset.skipped)["b/cut.png"]
    assert sum(map(len, dataset.splits.values())) == 7
    assert dataset.facts.other_files == 1
    kept = {images.name(i): images.label(i)[0] for images in dataset.splits.values() for i in range(len(images))}
    assert kept == {**{f"a/00{i}.png": 0 for i in range(4)}, **{f"b/00{i}.png": 1 for i in range(3)}}


def test_mixed_sizes_are_refused_by_name(tmp_path):
    folder(tmp_path / "d", {"a": 3})
    save(tmp_path / "d/a/wide.png", noise(9, 20))
    with pytest.raises(UserError, match=r"several sizes in .*: 8x8 \(3\), 20x9 \(1\), width x height\ngive --size"):
        load_dataset(tmp_path / "d")
    assert load_dataset(tmp_path / "d", size=8).splits["train"].shape == (1, 8, 8)


@pytest.mark.parametrize(("height", "width", "said"), [(300, 16, "16x300"), (4, 6, "6x4")])
def test_sides_have_limits(height, width, said, tmp_path):
    path = save(tmp_path / "p.png", noise(height, width))
    with pytest.raises(UserError, match=rf"pictures of {said} in .*: sides must be between 8 and 256\ngive --size"):
        load_dataset(path)
    assert load_dataset(path, size=16).splits["train"].shape == (1, 16, 16)


def test_folders_without_a_readable_picture(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError, match=r"no pictures in .*d \(it is empty\)"):
        load_dataset(tmp_path / "d")
    (tmp_path / "d/readme.txt").write_text("words")
    with pytest.raises(UserError, match=r"no pictures in .*d \(it holds 1 other file: readme\.txt\)"):
        load_dataset(tmp_path / "d")
    (tmp_path / "d/p.png").write_text("words")
    with pytest.raises(
        UserError, match=r"no training picture in .*d can be read \(1 skipped, the first p\.png: not a pict"
    ):
        load_dataset(tmp_path / "d")
    whole = save(tmp_path / "whole.png", noise(8, 8)).read_bytes()
    (tmp_path / "d/p.png").write_bytes(whole[:60])  # a sound header, no pixels
    with pytest.raises(UserError, match="no training picture in"):
        load_dataset(tmp_path / "d")
    assert entries(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "size must be between 8 and 256 pixels a side, got 4"),
        ({"size": (32, 512)}, "got 512"),
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(colour\), got 2"),
        ({"validation": 1.0}, "at least 0 and below 1, got 1.0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        load_dataset("digits", **options)


# ---- arrays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (noise(10, 9, 11), (1, 9, 11)),
        (noise(10, 9, 11, 1), (1, 9, 11)),
        (noise(10, 1, 9, 11), (1, 9, 11)),
        (noise(10, 9, 11, 3), (3, 9, 11)),
        (noise(10, 3, 9, 11), (3, 9, 11)),
        (noise(10, 9, 11).astype(np.float32) / 255, (1, 9, 11)),
        (noise(10, 3, 9, 11) / 255.0, (3, 9, 11)),
        (noise(10, 9, 11) > 99, (1, 9, 11)),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else f"{value.dtype}{value.shape}",
)
def test_array_layouts(array, shape, tmp_path):
    np.save(tmp_path / "x.npy", array)
    dataset = load_dataset(tmp_path / "x.npy")
    levels = array if array.dtype == np.uint8 else np.rint(array * 255.0).astype(np.uint8)
    expected = levels if levels.shape[1:] == shape else levels.reshape(10, 9, 11, -1).transpose(0, 3, 1, 2)
    assert dataset.splits["train"].shape == shape
    assert (dataset.splits["train"].stored_pixels == expected).all()
    assert sizes(dataset) == {"train": 8, "test": 2}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (noise(4, 3, 32, 3), r"the shape \(4, 3, 32, 3\) is ambiguous"),
        (
            noise(4, 9, 9, 9),
            r"the shape \(4, 9, 9, 9\) is not that of pictures; allowed are \(N, H, W\), \(N, H, W, C\)",
        ),
        (noise(9, 9), r"the shape \(9, 9\) is not that of pictures"),
        (noise(0, 9, 9), r"the shape \(0, 9, 9\)"),
        (
            noise(4, 9, 9).astype(np.int64) * 2,
            r"holds integers from 0 to .*; images must be whole numbers from 0 to 255, or floats in ",
        ),
        (noise(4, 9, 9) * 2.5, r"holds floats from 0 to .*\ngive the values .* value_range=0,6"),
        (noise(4, 9, 9) * 0.5, r"holds floats from 0 to .*\ngive the values that become black and white"),
        (np.full((4, 9, 9), np.nan), r"no training picture .* \(4 skipped, the first train 0: not finite"),
        (np.zeros((4, 9, 9), complex), r"images must be numbers or truth values, got complex128"),
        (np.full((4, 9, 9), None), "cannot be read as an array of numbers"),
    ],
)
def test_arrays_that_are_refused(array, message, tmp_path):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        load_dataset(tmp_path / "x.npy")


def test_npz_with_labels_and_test(tmp_path):
    arrays = {"images": noise(6, 8, 8), "labels": np.array([7, 3, 7, 3, 7, -1]), "test_images": noise(2, 8, 8, seed=9)}
    np.savez(tmp_path / "x.npz", **arrays)
    splits = load_dataset(tmp_path / "x.npz").splits
    assert splits["train"].categories == ("3", "7")
    assert splits["train"].label().tolist() == [1, 0, 1, 0, 1, -1]
    assert splits["test"].label().tolist() == [-1, -1]
    np.savez(tmp_path / "y.npz", images=noise(3, 8, 8), labels=np.array(["dog", "cat", "dog"]))
    train = load_dataset(tmp_path / "y.npz").splits["train"]
    assert (train.categories, train.stored_labels.tolist()) == (("cat", "dog"), [1, 0, 1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"z": noise(3, 8, 8)},
            r'has no array "images" \(has: z\)\nallowed are images and labels, or a word',
        ),
        (
            {"images": noise(3, 8, 8), "labels": np.arange(4)},
            r"labels of .* must be 3 integers or words, got int64\[4\]",
        ),
        ({"images": noise(3, 8, 8), "labels": np.zeros(3, complex)}, r"got complex128\[3\]"),
    ],
)
def test_npz_that_is_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load_dataset(tmp_path / "x.npz")


def test_files_that_are_not_what_they_are_called(tmp_path):
    for name in ("x.npz", "x.npy", "x.parquet"):
        (tmp_path / name).write_bytes(b"text")
        with pytest.raises(UserError, match="cannot be read"):
            load_dataset(tmp_path / name)
    (tmp_path / "x.doc").write_bytes(b"text")
    with pytest.raises(UserError, match=r"neither a folder nor a picture, \.parquet, \.npy or \.npz file"):
        load_dataset(tmp_path / "x.doc")


# ---- parquet and the hub --------------------------------------------------------------------------------------------


def encoded(pixels, form="png"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **({"lossless": True} if form == "webp" else {}))
    return buffer.getvalue()


def table(pictures, column="image", names=None, form="png", **columns):
    """A table in the hub's schema: encoded pictures as struct<bytes, path>, ClassLabel names as metadata."""
    cells = [{"bytes": p if isinstance(p, bytes | None) else encoded(p, form), "path": None} for p in pictures]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    data = pa.table({column: pa.array(cells, kind), **columns})
    features = {column: {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return data.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    )


def test_parquet_in_the_hubs_schema(tmp_path):
    train, test = noise(6, 8, 8, 3), noise(2, 8, 8, 3, seed=1)
    names = ["plane", "boat", "never"]
    parquet.write_table(
        table(train, "img", names, "webp", label=[1, 0, 1, 0, None, -1]), tmp_path / "train.parquet", row_group_size=2
    )
    parquet.write_table(table(test, "img", names, label=[0, 1]), tmp_path / "test.parquet")
    dataset = load_dataset(tmp_path, validation=0.2)
    assert (dataset.splits["train"].stored_pixels == train.transpose(0, 3, 1, 2)).all()
    assert (dataset.splits["test"].uint8() == test.transpose(0, 3, 1, 2)).all()
    assert dataset.splits["train"].stored_labels.tolist() == [1, 0, 1, 0, -1, -1]
    assert dataset.splits["train"].categories == tuple(names)
    assert describe_dataset(dataset)["splits"]["test"]["categories"] == {"plane": 1, "boat": 1, "never": 0}
    assert dataset.facts.formats == {"WEBP": 6, "PNG": 2}


def test_parquet_without_names_and_with_holes(tmp_path):
    pictures = [noise(8, 8), b"damaged", None, noise(8, 8, seed=1)]
    parquet.write_table(table(pictures, "photo", label=[5, 5, 5, 3]), tmp_path / "train-00000-of-00001.parquet")
    dataset = load_dataset(tmp_path)
    assert dataset.splits["train"].categories == ("3", "5")
    assert dataset.splits["train"].stored_labels.tolist() == [1, 0]
    assert dataset.skipped == (("train 1", "not a picture"), ("train 2", "empty"))
    parquet.write_table(pa.table({"image": [encoded(noise(8, 8))] * 2}), tmp_path / "plain.parquet")
    assert load_dataset(tmp_path / "plain.parquet").splits["train"].labels is None
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "none.parquet")
    with pytest.raises(UserError, match=r"no column of images.*\(has: x\)"):
        load_dataset(tmp_path / "none.parquet")


def outcome(names, **environment):
    """What loading each name gives in a process of its own: its description, or the error's text."""
    code = """
import json, sys
from vaelab.datasets.loading import describe_dataset, load_dataset
for name in sys.argv[1:]:
    try:
        print(json.dumps(describe_dataset(load_dataset(name))))
    except ValueError as error:
        print(json.dumps(str(error)))
"""
    variables = {**os.environ, "PYTHONPATH": SRC, **{key: str(value) for key, value in environment.items()}}
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_TOKEN"):
        variables.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code, *names], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_hub_and_its_silence(tmp_path, cache):
    def shard(pictures):
        buffer = io.BytesIO()
        parquet.write_table(table(pictures, names=["a", "b"], label=[i % 2 for i in range(len(pictures))]), buffer)
        return buffer.getvalue()

    files = {
        f"data/{split}-00000-of-00001.parquet": shard(noise(n, 8, 8, seed=n))
        for split, n in (("train", 6), ("test", 3))
    }
    where = {"HF_HOME": tmp_path / "hf", "NO_PROXY": "127.0.0.1", "TMPDIR": tmp_path}
    with serving({"ylecun/mnist": files}) as endpoint:
        mnist, unknown, missing = outcome(["mnist", "some/thing", "mnits"], HF_ENDPOINT=endpoint, **where)
    assert mnist["location"] == "Hugging Face hub ylecun/mnist"
    assert {split: part["n"] for split, part in mnist["splits"].items()} == {"train": 6, "test": 3}
    assert mnist["categories"] == ["a", "b"]
    assert unknown.startswith('data "some/thing" not found\nlooked for: the path ')
    assert f"({endpoint} has no some/thing; cache {tmp_path / 'hf'})" in unknown
    assert missing.startswith('unknown data "mnits"; did you mean "mnist"?')

    # The server is gone. Our cache serves what it has; without it the hub's own does; what neither has fails at once.
    [cached] = outcome(["mnist"], HF_ENDPOINT=endpoint, **where)
    assert cached == mnist
    shutil.rmtree(cache)
    [local, silent] = outcome(["mnist", "cifar10"], HF_ENDPOINT=endpoint, **where)
    assert local["fingerprint"] == mnist["fingerprint"]
    assert len(silent.splitlines()) == 3
    assert f"$VAELAB_DATA (unset), the Hugging Face hub ({endpoint} does not answer; cache {tmp_path / 'hf'})" in silent
    assert silent.startswith('data "cifar10" not found')


# ---- names ----------------------------------------------------------------------------------------------------------


def test_stored_splits_are_all_there_unless_validation_is_asked_otherwise(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / "d" / split / "a").mkdir(parents=True)
        for i in range(4):
            Image.fromarray(noise(9, 9, seed=hash((split, i)) % 1000)).save(tmp_path / "d" / split / "a" / f"{i}.png")
    counts = {
        v: {s: len(p) for s, p in load_dataset(tmp_path / "d", validation=v).splits.items()} for v in (None, 0.0, 0.5)
    }
    assert counts[None] == counts[0.5] == {"train": 4, "validation": 4, "test": 4}
    assert counts[0.0] == {"train": 4, "test": 4}


def test_names_are_paths_first_then_under_vaelab_data(tmp_path, monkeypatch):
    folder(tmp_path / "root/pets", {"cat": 5})
    monkeypatch.setenv("VAELAB_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    assert load_dataset("pets").location == str(tmp_path / "root/pets")
    folder(tmp_path / "pets", {"dog": 5})
    assert load_dataset("pets").location == str(tmp_path / "pets")


@pytest.mark.parametrize("name", ["/no/such/folder", "./no/such", "pictures.npz", "a/b/c", "", "x" * 5000])
def test_a_path_that_is_not_there_never_asks_the_hub(name, monkeypatch):
    monkeypatch.setattr(hub, "read_hub", lambda name: pytest.fail("asked the hub"))
    with pytest.raises(
        UserError, match=r"looked for: the path .*, \$VAELAB_DATA \(unset\)(.|\n)*give a folder of images"
    ):
        load_dataset(name)


def test_a_near_name_is_suggested(tmp_path, monkeypatch):
    (tmp_path / "flowers").mkdir()
    monkeypatch.setenv("VAELAB_DATA", str(tmp_path))
    assert 'did you mean "flowers"?' in str(source_not_found_error("flower", "the hub"))
    assert 'did you mean "digits"?' in str(source_not_found_error("digit", "the hub"))
    assert "did you mean" not in str(source_not_found_error("zzz", "the hub"))


# ---- fingerprint and duplicates -------------------------------------------------------------------------------------


def test_fingerprint_is_of_content(tmp_path):
    root = folder(tmp_path / "d", {"a": 4, "b": 4})
    prints = [load_dataset(root).fingerprint, load_dataset(root, validation=0.3).fingerprint]
    prints.append(load_dataset(Path(shutil.copytree(root, tmp_path / "elsewhere"))).fingerprint)
    assert len(set(prints)) == 1
    pixels = np.asarray(Image.open(root / "a/000.png")).copy()
    pixels[3, 3] ^= 1
    save(root / "a/000.png", pixels)
    prints.append(load_dataset(root).fingerprint)
    (tmp_path / "elsewhere/b").rename(tmp_path / "elsewhere/c")
    prints.append(load_dataset(tmp_path / "elsewhere").fingerprint)
    (tmp_path / "elsewhere/c/000.png").rename(tmp_path / "elsewhere/a/zzz.png")
    prints.append(load_dataset(tmp_path / "elsewhere").fingerprint)
    assert len(set(prints)) == 4


def test_the_form_of_a_source_does_not_matter(tmp_path):
    pixels, labels = noise(6, 8, 8), np.array([0, 0, 0, 1, 1, 1])
    for i, label in enumerate(labels):
        save(tmp_path / "d" / str(label) / f"{i}.png", pixels[i])
    np.savez(tmp_path / "x.npz", images=pixels, labels=labels)
    parquet.write_table(table(pixels, names=["0", "1"], label=labels), tmp_path / "x.parquet")
    assert len({load_dataset(tmp_path / name).fingerprint for name in ("d", "x.npz", "x.parquet")}) == 1


def test_duplicates_across_splits_are_counted(tmp_path):
    root = folder(tmp_path / "d", {"train/a": 3, "test/a": 0, "test/b": 2})
    save(root / "test/a/copy.bmp", noise(8, 8, seed=1))  # the pixels of train/a/001.png in another format
    dataset = load_dataset(root)
    assert describe_dataset(dataset)["duplicates"] == {"count": 1, "examples": [["test/a/copy.bmp", "train/a/001.png"]]}
    assert "1 of 3 test pictures stands in the training split too" in dataset.notes
    assert "categories with no training picture: b" in dataset.notes


def test_description_is_json(tmp_path):
    root = folder(tmp_path / "d", {"a": 5, "b": 5})
    (root / "a/bad.png").write_text("text")
    dataset = load_dataset(root)
    said = describe_dataset(dataset)
    assert json.loads(json.dumps(said)) == said
    assert said["splits"]["train"] == {"n": 8, "origin": "the rest", "categories": {"a": 4, "b": 4}}
    assert said["splits"]["test"]["origin"] == "0.2 of train, stratified, by a fixed seed"
    assert said["skipped"] == [{"file": "a/bad.png", "reason": "not a picture"}]
    assert (said["sizes"], said["modes"], said["formats"]) == ({"8x8": 10}, {"L": 10}, {"PNG": 10})
    assert said["bytes"] == sum(file.stat().st_size for file in Path(said["cache"]).iterdir())
    assert (said["shape"], said["source"], said["fingerprint"]) == ([1, 8, 8], str(root), dataset.fingerprint)


# ---- cache ----------------------------------------------------------------------------------------------------------


def forbid_decoding(monkeypatch):
    monkeypatch.setattr(decode_cache, "build_entry", lambda *_: pytest.fail("decoded again"))


def test_second_load_maps_the_first(tmp_path, cache, monkeypatch):
    root = folder(tmp_path / "d", {"a": 5})
    first = load_dataset(root)
    forbid_decoding(monkeypatch)
    second = load_dataset(root, validation=0.3)
    assert isinstance(second.splits["train"].stored_pixels, np.memmap)
    assert not second.splits["train"].stored_pixels.flags.writeable
    assert (second.fingerprint, second.skipped, second.notes) == (first.fingerprint, first.skipped, first.notes)
    root.rename(tmp_path / "renamed")
    assert load_dataset(tmp_path / "renamed").fingerprint == first.fingerprint
    names = ["checked.json", "meta.json", "train-labels.npy", "train-names.npy", "train.npy"]
    assert sorted(file.name for file in Path(first.facts.cache).iterdir()) == names


def test_pictures_are_read_ahead_where_memory_may_not_hold_them(tmp_path, cache, monkeypatch):
    images = load_dataset(folder(tmp_path / "d", {"a": 9})).splits["train"]
    before = images.uint8()
    monkeypatch.setattr("vaelab.datasets.images.PREFETCH_BYTES", 0)
    images.prefetch(np.arange(len(images))[::-1])
    images.prefetch(np.arange(0))
    assert (images.uint8() == before).all()


def test_each_setting_and_each_change_is_an_entry_of_its_own(tmp_path, cache):
    root = folder(tmp_path / "d", {"a": 5})
    for options in ({}, {"size": 16}, {"channels": 3}, {"size": (8, 16)}):
        load_dataset(root, **options)
    assert len(entries(cache)) == 4
    os.utime(root / "a/000.png", ns=(1, 1))
    load_dataset(root)
    assert len(entries(cache)) == 5


@pytest.mark.parametrize("harm", ["cut", "gone", "meta", "empty"])
def test_a_damaged_entry_is_built_again(harm, tmp_path, capsys):
    root = folder(tmp_path / "d", {"a": 5})
    whole = load_dataset(root).splits["train"].uint8()
    entry = Path(load_dataset(root).facts.cache)
    if harm == "cut":
        os.truncate(entry / "train.npy", 200)
    elif harm == "gone":
        (entry / "train-names.npy").unlink()
    else:
        (entry / "meta.json").write_text("{" if harm == "meta" else "{}")
    again = load_dataset(root)
    assert (again.splits["train"].uint8() == whole).all()
    assert "is damaged" in capsys.readouterr().err
    load_dataset(root)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stage", ["_read_headers", "_decode_chunk"])
def test_an_interrupted_build_goes_on_where_it_was(stage, tmp_path, cache, monkeypatch):
    root = folder(tmp_path / "d", {"a": 9})
    (root / "a/004.png").write_bytes((root / "a/004.png").read_bytes()[:60])  # its header is whole
    (root / "a/007.png").write_text("not a picture")
    monkeypatch.setattr(chunks, "CHUNK", 2)
    whole = load_dataset(root, size=8)
    shutil.rmtree(cache)
    work, worked = getattr(build, stage), []

    def interrupted(pictures, start, **rest):
        if start == 4 and len(worked) == 2:
            raise KeyboardInterrupt
        worked.append(start)
        return work(pictures, start, **rest)

    monkeypatch.setattr(build, stage, interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_dataset(root, size=8)
    assert [Path(name).suffix for name in entries(cache)] == [".part"]
    monkeypatch.setattr(build, stage, lambda *given, **rest: worked.append(given[1]) or work(*given, **rest))
    again = load_dataset(root, size=8)
    assert worked == [0, 2, 4, 6, 8][: len(worked)], "each piece once"
    assert (again.fingerprint, sorted(again.skipped)) == (whole.fingerprint, sorted(whole.skipped))
    assert len(again.skipped) == 2
    assert (again.splits["train"].stored_pixels == whole.splits["train"].stored_pixels).all()
    assert len(entries(cache)) == 1, "nothing else is left"


def test_a_build_killed_at_its_very_end_is_whole(tmp_path, cache, monkeypatch):
    root = folder(tmp_path / "d", {"a": 9})
    (root / "a/004.png").write_bytes((root / "a/004.png").read_bytes()[:60])  # found out when it is decoded
    monkeypatch.setattr(chunks, "CHUNK", 2)
    whole = load_dataset(root, size=8)
    shutil.rmtree(cache)
    remove = shutil.rmtree

    def killed(path, **settings):
        if Path(path).name == "marks":
            next(Path(path).glob("decode*")).unlink()
            raise KeyboardInterrupt
        remove(path, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            load_dataset(root, size=8)
    again = load_dataset(root, size=8)
    assert (again.splits["train"].stored_pixels == whole.splits["train"].stored_pixels).all()
    assert again.fingerprint == whole.fingerprint


def test_many_processes_decode_as_one_does(tmp_path, cache, monkeypatch):
    root = folder(tmp_path / "d", {"a": 12})
    (root / "a/003.png").write_text("not a picture")
    alone = load_dataset(root, size=8)
    shutil.rmtree(cache)
    monkeypatch.setattr(chunks, "CHUNK", 4)
    monkeypatch.setattr(chunks, "SINGLE_PROCESS_SECONDS", 0)
    monkeypatch.setattr(chunks, "_num_processors", lambda: 2)
    together = load_dataset(root, size=8)
    assert (together.fingerprint, together.skipped) == (alone.fingerprint, alone.skipped)
    assert (together.splits["train"].stored_pixels == alone.splits["train"].stored_pixels).all()


def test_two_processes_at_once(tmp_path, cache):
    root = folder(tmp_path / "d", {"a": 100})
    code = "import sys; from vaelab.datasets.loading import load_dataset; print(load_dataset(sys.argv[1]).fingerprint)"
    call = [sys.executable, "-c", code, str(root)]
    variables = {**os.environ, "PYTHONPATH": SRC}
    both = [subprocess.Popen(call, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    results = [process.communicate() for process in both]
    assert results[0][0] == results[1][0]
    assert {said.decode().split(":")[0] for _, said in results} <= {"", f"another process is decoding {root}"}
    assert results[0][0].strip() == load_dataset(root).fingerprint.encode()
    assert len(entries(cache)) == 1


def test_a_build_that_comes_too_late_leaves_nothing(tmp_path, cache):
    root = folder(tmp_path / "d", {"a": 3})
    load_dataset(root)
    [entry] = cache.iterdir()
    build.build_entry(entry, find_source(str(root)), DecodeSettings())  # as one that looked before the other had ended
    assert list(cache.iterdir()) == [entry]


def test_no_room_is_said_and_leaves_nothing(tmp_path, cache, monkeypatch):
    root = folder(tmp_path / "d", {"a": 5})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(build, "_decode_chunk", full)
        with pytest.raises(
            UserError, match=r"need 640 bytes in the cache folder .*cache: No space left on device\nmake room"
        ):
            load_dataset(root)
    assert entries(cache) == []
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
        with pytest.raises(UserError, match=r"need 640 bytes in the cache folder .*, 0 are free(.|\n)*VAELAB_CACHE"):
            load_dataset(root)
    assert entries(cache) == []
    assert len(load_dataset(root).splits["train"]) == 4


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(
        UserError, match=r"the cache folder .*file/cache cannot be written: Not a directory\n.*VAELAB_CACHE"
    ):
        load_dataset("digits")


def test_where_the_cache_lies(tmp_path, monkeypatch):
    assert files.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("VAELAB_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_folder() == tmp_path / "xdg/vaelab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache/vaelab"


def test_importing_costs_nothing():
    heavy = {"torch", "PIL", "datasets", "pyarrow", "sklearn", "huggingface_hub"}
    code = f"import sys, vaelab.datasets.loading; print(sorted({heavy} & set(sys.modules)))"
    variables = {**os.environ, "PYTHONPATH": SRC}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
