"""Data that other people had trouble with, in `cases/` and in other spellings: each is read as meant, or named."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import stat
import struct
import subprocess
import sys
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from vaelab.cli.text import data_lines
from vaelab.core.console import printable
from vaelab.core.errors import UserError
from vaelab.datasets import build, decoding, files
from vaelab.datasets.decoding import read_header, read_images
from vaelab.datasets.depth import Levels, choose_ranges
from vaelab.datasets.loading import describe_dataset, load_dataset
from vaelab.datasets.sources import walk

CASES = Path(__file__).parent / "cases"


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


def encoded(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def folder(root, counts):
    for k, (name, n) in enumerate(counts.items()):
        for i in range(n):
            save(root / name / f"{i:03}.png", noise(8, 8, seed=1000 * k + i))
    return root


def sizes(dataset):
    return {split: len(images) for split, images in dataset.splits.items()}


def counts(dataset):
    """Pictures of each category over all splits."""
    labels = np.concatenate([images.label() for images in dataset.splits.values()])
    return {name: int((labels == i).sum()) for i, name in enumerate(dataset.splits["train"].categories)}


# ---- the cases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected_sizes", "expected_counts"),
    [
        ("pandas-str.parquet", {"train": 32, "test": 8}, {"cat": 20, "dog": 20}),
        ("hf-from-pandas.parquet", {"train": 32, "test": 8}, {"cat": 20, "dog": 20}),
        ("label-large-string.parquet", {"train": 32, "test": 8}, {"cat": 20, "dog": 20}),
        ("large-binary.parquet", {"train": 32, "test": 8}, {"cat": 20, "dog": 20}),
        ("val-parquet", {"train": 40, "validation": 10, "test": 10}, {"0": 30, "1": 30}),
        ("training-testing", {"train": 40, "test": 20}, {"glioma": 30, "healthy": 30}),
        ("schema-differs", {"train": 40, "test": 10}, {"0": 20, "1": 20}),
        ("path-only.parquet", {"train": 32, "test": 8}, {}),
        ("wrapped", {"train": 32, "test": 8}, {"daisy": 20, "rose": 20}),
        ("metadata-csv", {"train": 32, "test": 8}, {"cat": 20, "dog": 20}),
        ("medmnist.npz", {"train": 40, "validation": 10, "test": 10}, {"0": 24, "1": 15, "2": 21}),
    ],
)
def test_splits_and_categories_are_as_meant(name, expected_sizes, expected_counts, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # nothing depends on the working folder
    dataset = load_dataset(CASES / name)
    assert sizes(dataset) == expected_sizes
    assert counts(dataset) == expected_counts
    assert not dataset.skipped


def test_a_tiff_is_turned_as_its_twin():
    tiff, twin = load_dataset(CASES / "tiff-orientation"), load_dataset(CASES / "jpeg-orientation")
    assert tiff.splits["train"].shape == twin.splits["train"].shape == (3, 20, 12)
    assert tiff.facts.sizes == {"12x20": 10}
    assert tiff.fingerprint == twin.fingerprint


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_every_orientation_of_a_tiff(orientation, compression, tmp_path):
    pixels = noise(8, 10)
    exif = Image.Exif()
    exif[0x0112] = orientation
    tiff = save(tmp_path / "x.tif", pixels, compression=compression, tiffinfo={0x0112: orientation})
    png = save(tmp_path / "x.png", pixels, exif=exif)
    assert load_dataset(tiff).fingerprint == load_dataset(png).fingerprint


def test_the_range_of_values_that_is_used_is_said_and_can_be_set():
    dataset = load_dataset(CASES / "twelve-bit")
    pixels = np.concatenate([images.uint8() for images in dataset.splits.values()])
    assert len(np.unique(pixels)) > 200
    assert dataset.facts.value_range == (0, 4095)
    assert any("0 is taken as black, 4095 as white" in note for note in dataset.notes)
    other = load_dataset(CASES / "twelve-bit", value_range=(0, 65535))
    assert other.splits["train"].uint8().max() == 16
    assert any("65535 as white" in note for note in other.notes)
    with pytest.raises(UserError, match="the lower first, got 5 and 2"):
        load_dataset("digits", value_range=(5, 2))


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (Levels((0, 255)), (0, 255)),
        (Levels((0, 1000)), (0, 1023)),
        (Levels((3, 4095)), (0, 4095)),
        (Levels((3, 16000)), (0, 16383)),
        (Levels((3, 65535)), (0, 65535)),
        (Levels((-1024, 3000)), (-1024, 3000)),
        (Levels((0, 100000)), (0, 100000)),
    ],
)
def test_ranges_of_integers(levels, expected):
    assert choose_ranges(levels).integer == expected


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_twelve_bits_of_colour(mode, tmp_path):
    """A PNG with 16 bits a channel, which Pillow cannot write: by hand."""
    channels, side = len(mode), 8
    values = np.random.default_rng(0).integers(0, 4096, (side, side, channels))
    if mode == "RGBA":
        values[..., 3] = 65535
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "x.png").write_bytes(png_file(side, side, 16, {"RGB": 2, "RGBA": 6}[mode], rows))
    images = load_dataset(tmp_path / "x.png")
    expected = np.rint(values[..., :3] / 4095 * 255).astype(np.uint8).transpose(2, 0, 1)
    assert np.abs(images.splits["train"].uint8()[0].astype(int) - expected).max() <= 1
    assert images.facts.value_range == (0, 4095)


def png_file(width, height, depth, colour, rows):
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_what_is_transparent_is_white_at_any_depth(tmp_path):
    deep = load_dataset(CASES / "grey16-transparent").splits["train"].uint8()
    stored = np.stack([np.asarray(Image.open(CASES / f"grey16-transparent/{i}.png")) for i in range(8)])
    assert (deep[:, 0][stored[: len(deep)] == 0] == 255).all() or deep.max() == 255
    grey = noise(8, 8)
    save(tmp_path / "eight.png", grey, transparency=int(grey[0, 0]))
    expected = np.where(grey == grey[0, 0], 255, grey)
    assert (load_dataset(tmp_path / "eight.png").splits["train"].uint8()[0, 0] == expected).all()


def test_pictures_of_one_colour_are_counted_and_said():
    dataset = load_dataset(CASES / "alpha-zero")
    assert dataset.facts.one_colour.count == 10
    assert "10 pictures are of one colour, such as 0.png" in dataset.notes
    assert load_dataset(CASES / "one-flat").facts.one_colour.count == 5
    assert load_dataset("digits").facts.one_colour.count == 0


def test_the_noise_of_the_tiff_library_becomes_a_note(capfd):
    dataset = load_dataset(CASES / "tiff-noise")
    read_images([CASES / "tiff-noise/0.tif"], (1, 16, 16))
    assert capfd.readouterr().err == ""
    assert any("complains about 4 pictures, such as 0.tif" in note for note in dataset.notes)


def test_a_split_without_labels_is_said():
    dataset = load_dataset(CASES / "schema-differs")
    assert "the test split is unlabelled" in dataset.notes
    assert dataset.splits["test"].label().tolist() == [-1] * 10


def test_a_lone_folder_around_everything_is_said():
    assert any("all pictures lie below flowers" in note for note in load_dataset(CASES / "wrapped").notes)


# ---- HEIC -----------------------------------------------------------------------------------------------------------


def test_heic_without_its_reader_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "has_heic_reader", lambda: False)
    decoding.readable_suffixes.cache_clear()
    try:
        with pytest.raises(UserError) as error:
            load_dataset(CASES / "heic")
        assert "HEIC: pip install pi-heif" in str(error.value)
        assert ".heic" not in str(error.value).split("known are")[1]
        for name in ("0.heic", "1.heic"):
            (tmp_path / name).write_bytes((CASES / "heic" / name).read_bytes())
        folder(tmp_path, {"a": 3})
        [group] = load_dataset(tmp_path).skipped_groups
        assert (group.kind, group.reason, group.count) == (".heic", "HEIC", 2)
        assert "pip install" in group.remedy
    finally:
        decoding.readable_suffixes.cache_clear()


@pytest.mark.skipif(importlib.util.find_spec("pi_heif") is None, reason="needs pi-heif")
def test_heic_is_read_where_its_reader_is_installed():
    dataset = load_dataset(CASES / "heic")
    assert sizes(dataset) == {"train": 8, "test": 2}
    assert dataset.facts.formats == {"HEIF": 10}


def test_heic_is_known_where_its_reader_is_installed(monkeypatch):
    monkeypatch.setattr(decoding, "has_heic_reader", lambda: True)
    decoding.readable_suffixes.cache_clear()
    assert ".heic" in decoding.readable_suffixes()
    decoding.readable_suffixes.cache_clear()


# ---- one vocabulary of splits ---------------------------------------------------------------------------------------

SPELLINGS = [
    ("train", "val", "test"),
    ("training", "validation", "testing"),
    ("Train", "Valid", "Test"),
    ("TRAINING", "DEV", "EVAL"),
    ("train", "dev", "test"),
]


@pytest.mark.parametrize("spelling", SPELLINGS, ids="-".join)
def test_splits_of_folders_files_and_arrays_have_one_vocabulary(spelling, tmp_path):
    expected = {"train": 6, "validation": 3, "test": 2}
    arrays, pictures = {}, {}
    for split, n in zip(spelling, (6, 3, 2), strict=True):
        folder(tmp_path / "folders", {f"{split}/a": 0})
        pictures[split] = [noise(8, 8, seed=100 * n + i) for i in range(n)]
        for i, picture in enumerate(pictures[split]):
            save(tmp_path / "folders" / split / "a" / f"{i}.png", picture)
        arrays[f"{split}_images"] = np.stack(pictures[split])
        arrays[f"{split}_labels"] = np.zeros(n, int)
        cells = pa.table({"image": [encoded(picture) for picture in pictures[split]]})
        for place in (f"files/{split}.parquet", f"shards/data/{split}-00000-of-00001.parquet", f"x/{split}/0.parquet"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(cells, tmp_path / place)
    np.savez(tmp_path / "a.npz", **arrays)
    for place in ("folders", "files", "shards", "x", "a.npz"):
        assert sizes(load_dataset(tmp_path / place)) == expected, place


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_x", "train_y", "test_x", "test_y"),
        ("trainImages", "trainLabels", "testImages", "testLabels"),
        ("images", "labels", "test_images", "test_labels"),
        ("train_data", "train_targets", "test_data", "test_targets"),
        ("xtrain", "ytrain", "xtest", "ytest"),
    ],
    ids=lambda keys: keys[0],
)
def test_names_of_arrays(keys, tmp_path):
    train, test = noise(6, 8, 8), noise(2, 8, 8, seed=1)
    values = (train, np.array([[1], [0], [1], [0], [1], [0]]), test, np.eye(2, dtype=int))
    np.savez(tmp_path / "x.npz", **dict(zip(keys, values, strict=True)))
    dataset = load_dataset(tmp_path / "x.npz")
    assert sizes(dataset) == {"train": 6, "test": 2}
    assert dataset.splits["train"].label().tolist() == [1, 0, 1, 0, 1, 0]
    assert dataset.splits["test"].label().tolist() == [0, 1]


def test_only_a_test_split_names_the_remedy(tmp_path):
    parquet.write_table(pa.table({"image": [encoded(noise(8, 8))]}), tmp_path / "test.parquet")
    with pytest.raises(UserError, match=r"no parquet file for training\n.*train\.parquet"):
        load_dataset(tmp_path)
    np.savez(tmp_path / "x.npz", x_test=noise(3, 8, 8))
    with pytest.raises(UserError, match=r"images for test, but none for training"):
        load_dataset(tmp_path / "x.npz")
    folder(tmp_path / "d", {"Testing/a": 2})
    with pytest.raises(UserError, match=r"has Testing but no pictures in train\nput pictures"):
        load_dataset(tmp_path / "d")


def test_parquet_files_without_a_split_are_for_training(tmp_path):
    for name in ("0000", "0001"):
        parquet.write_table(
            pa.table({"image": [encoded(noise(8, 8, seed=int(name)))] * 2}), tmp_path / f"{name}.parquet"
        )
    dataset = load_dataset(tmp_path)
    assert sum(sizes(dataset).values()) == 4
    assert any("0000.parquet, 0001.parquet are for training" in note for note in dataset.notes)
    (tmp_path / "0000.parquet").rename(tmp_path / "train.parquet")
    assert any("1 parquet file not used: 0001.parquet" in note for note in load_dataset(tmp_path).notes)


# ---- tables ---------------------------------------------------------------------------------------------------------

PNGS = [encoded(noise(8, 8, seed=i)) for i in range(4)]
WORDS = ["cat", "dog", "cat", "dog"]


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary()), "list8", "list64"],
    ids=str,
)
@pytest.mark.parametrize("in_struct", [True, False])
def test_every_type_of_bytes(kind, in_struct, tmp_path):
    if isinstance(kind, str):
        numbers = pa.uint8() if kind == "list8" else pa.int64()
        column = pa.array([list(png) for png in PNGS], pa.list_(numbers))
    elif pa.types.is_dictionary(kind):
        column = pa.array(PNGS, pa.binary()).dictionary_encode()
    else:
        column = pa.array(PNGS, kind)
    if in_struct:
        column = pa.StructArray.from_arrays([column, pa.nulls(4, pa.string())], ["bytes", "path"])
    parquet.write_table(pa.table({"image": column}), tmp_path / "x.parquet")
    assert sizes(load_dataset(tmp_path / "x.parquet")) == {"train": 3, "test": 1}


@pytest.mark.parametrize(
    ("column", "categories"),
    [
        (pa.array(WORDS, pa.string()), ("cat", "dog")),
        (pa.array(WORDS, pa.large_string()), ("cat", "dog")),
        (pa.array(WORDS, pa.string_view()), ("cat", "dog")),
        (pa.array(WORDS).dictionary_encode(), ("cat", "dog")),
        (pa.array([b"cat", b"dog", b"cat", b"dog"]), ("cat", "dog")),
        (pa.array([1, 0, 1, 0], pa.int8()), ("0", "1")),
        (pa.array([10, 9, 10, 9], pa.uint64()), ("9", "10")),
        (pa.array([True, False, True, False]), ("False", "True")),
        (pa.array([1.0, 2.0, None, 2.0]), ("1", "2")),
        (pa.array([["cat"], ["dog"], [], ["dog"]]), ("cat", "dog")),
        (pa.array([[3], [5], [3], [5]], pa.list_(pa.int32(), 1)), ("3", "5")),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
@pytest.mark.parametrize("name", ["label", "labels", "Class", "category", "target"])
def test_every_type_of_labels(column, categories, name, tmp_path):
    parquet.write_table(pa.table({"image": PNGS, name: column}), tmp_path / "x.parquet")
    dataset = load_dataset(tmp_path / "x.parquet")
    assert dataset.splits["train"].categories == categories
    assert list(dataset.facts.columns) == ["image", name]


NO_LABELS = [
    ([["a", "b"], ["a"], [], ["b"]], "holds several values for a picture: not used"),
    ([0.5, 1.5, 2.0, 3.0], "holds numbers that are not whole, such as 0.5: not used"),
    ([None] * 4, "is empty: not used"),
    ([-1] * 4, "is empty: not used"),
]


@pytest.mark.parametrize(("column", "reason"), NO_LABELS)
@pytest.mark.parametrize("form", ["table", "jsonl", "array"])
def test_a_column_of_labels_that_is_not_used_is_named_once_with_its_reason(column, reason, form, tmp_path):
    if form == "table":
        parquet.write_table(pa.table({"image": PNGS, "label": column}), tmp_path / "x.parquet")
    elif form == "jsonl":
        folder(tmp_path / "x.parquet", {"": 4})
        rows = [{"file_name": f"{i:03}.png", "label": value} for i, value in enumerate(column)]
        (tmp_path / "x.parquet/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        several = isinstance(column[0], list)
        labels = [[1, 1], [0, 1], [0, 0], [1, 0]] if several else [-1 if value is None else value for value in column]
        np.savez(tmp_path / "x.npz", images=noise(4, 8, 8), labels=labels)
    dataset = load_dataset(tmp_path / ("x.npz" if form == "array" else "x.parquet"))
    assert dataset.splits["train"].labels is None
    name = "the array labels" if form == "array" else "the column label"
    assert [note for note in dataset.notes if "label" in note] == [f"{name} {reason}"]


def test_a_column_of_another_type_that_looks_like_labels_is_named(tmp_path):
    table = {"image": PNGS, "label": [{"x": 1}] * 4, "category": pa.nulls(4), "class": WORDS}
    parquet.write_table(pa.table(table), tmp_path / "x.parquet")
    dataset = load_dataset(tmp_path / "x.parquet")
    assert dataset.splits["train"].categories == ("cat", "dog")
    notes = [f"the column {name} looks like labels and is not used" for name in ("label", "category")]
    assert [note for note in dataset.notes if "column" in note] == notes


def test_splits_and_shards_without_labels_are_said(tmp_path):
    empty = pa.nulls(4, pa.string())
    parquet.write_table(pa.table({"image": PNGS, "label": WORDS}), tmp_path / "train-0.parquet")
    parquet.write_table(pa.table({"image": PNGS, "label": empty}), tmp_path / "train-1.parquet")
    parquet.write_table(pa.table({"image": PNGS, "label": empty}), tmp_path / "val.parquet")
    parquet.write_table(pa.table({"image": PNGS}), tmp_path / "test.parquet")
    assert [note for note in load_dataset(tmp_path).notes if "label" in note] == [
        "the column label of a part of the train split is empty",
        "the column label of the validation split is empty",
        "the validation split is unlabelled",
        "the test split is unlabelled",
        "4 training pictures have no label",
    ]


def test_a_label_without_a_name_is_refused_with_its_file_and_column(tmp_path):
    for labels, value in (([0, 1, 0, 2], 2), ([0, 1, -7, 0], -7)):
        table = pa.table({"image": PNGS, "kind": labels})
        features = {"info": {"features": {"kind": {"names": CLASSES, "_type": "ClassLabel"}}}}
        parquet.write_table(
            table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "x.parquet"
        )
        with pytest.raises(UserError, match=rf"column kind of .*x\.parquet holds the label {value}, but there are 2 n"):
            load_dataset(tmp_path / "x.parquet")


def test_a_second_column_of_pictures_is_named(tmp_path):
    parquet.write_table(pa.table({"image": PNGS, "mask": PNGS, "label": WORDS}), tmp_path / "x.parquet")
    assert "the column mask looks like pictures and is not used: image is" in load_dataset(tmp_path / "x.parquet").notes


def test_columns_that_are_not_used_are_named_where_there_are_no_labels(tmp_path):
    parquet.write_table(pa.table({"image": PNGS, "species": WORDS}), tmp_path / "x.parquet")
    assert any(
        "no column of labels" in note and "species" in note for note in load_dataset(tmp_path / "x.parquet").notes
    )


def test_pictures_beside_a_table_of_something_else_stay_pictures(tmp_path):
    folder(tmp_path / "d", {"train/a": 3, "test/a": 2})
    for place in ("metadata.parquet", "test.parquet", "train/metadata.parquet", "train/0000.parquet"):
        parquet.write_table(pa.table({"x": [1]}), tmp_path / "d" / place)
    assert sizes(load_dataset(tmp_path / "d")) == {"train": 3, "test": 2}


CLASSES = ["plane", "boat"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"info": {"features": {"label": {"names": CLASSES, "_type": "ClassLabel"}}}},
        {"info": {"features": {"label": {"names": {"1": "boat", "0": "plane"}, "_type": "ClassLabel"}}}},
        {"info": {"features": [{"name": "label", "dtype": {"class_label": {"names": {"0": "plane", "1": "boat"}}}}]}},
        {"info": {"features": {"label": {"feature": {"names": CLASSES, "_type": "ClassLabel"}, "_type": "List"}}}},
        {"features": {"label": [{"names": CLASSES, "_type": "ClassLabel"}]}},
    ],
)
def test_names_of_classes_in_any_form(metadata, tmp_path):
    table = pa.table({"image": PNGS, "label": [0, 1, 0, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert load_dataset(tmp_path / "x.parquet").splits["train"].categories == ("plane", "boat")


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "{", "[]", "7", "[" * 50_000),
        *('{"info": null}', '{"info": []}', '{"info": {"features": null}}'),
        *('{"info": {"features": {"label": null, "image": 3}}}', '{"info": {"features": {"label": {"names": 3}}}}'),
    ],
    ids=lambda text: text[:30],
)
def test_metadata_that_say_nothing_are_no_error(text, tmp_path):
    table = pa.table({"image": PNGS, "label": WORDS}).replace_schema_metadata({"huggingface": text})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert load_dataset(tmp_path / "x.parquet").splits["train"].categories == ("cat", "dog")


def test_shards_may_differ(tmp_path):
    pictures = [encoded(noise(8, 8, seed=i)) for i in range(8)]
    kinds = [pa.array([0, 1], pa.int32()), pa.array([1, 0], pa.int64()), pa.array(["0", "1"], pa.large_string())]
    for i, kind in enumerate(kinds):
        shard = pa.table({"image": pictures[2 * i : 2 * i + 2], "label": kind})
        parquet.write_table(shard, tmp_path / f"train-0000{i}-of-00004.parquet")
    parquet.write_table(pa.table({"image": pictures[6:8]}), tmp_path / "train-00003-of-00004.parquet")
    parquet.write_table(pa.table({"image": PNGS, "label": WORDS}), tmp_path / "test.parquet")
    dataset = load_dataset(tmp_path)
    assert dataset.splits["train"].categories == ("0", "1", "cat", "dog")
    assert dataset.splits["train"].label().tolist() == [0, 1, 1, 0, 0, 1, -1, -1]
    assert dataset.splits["test"].label().tolist() == [2, 3, 2, 3]


def test_shards_may_order_their_classes_otherwise(tmp_path):
    for split, names in (("train", ["cat", "dog"]), ("test", ["dog", "cat", "cow"])):
        table = pa.table({"image": PNGS, "label": [0, 1, 0, 1]})
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    dataset = load_dataset(tmp_path)
    assert dataset.splits["train"].categories == ("cat", "dog", "cow")
    assert dataset.splits["train"].label().tolist() == [0, 1, 0, 1]
    assert dataset.splits["test"].label().tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("kind", ["struct", "string"])
def test_rows_that_name_files(kind, tmp_path, monkeypatch):
    for i in range(4):
        save(tmp_path / f"d/pictures/{i}.png", noise(8, 8, seed=i))
    paths = [f"pictures/{i}.png" for i in range(4)]
    cells = [{"bytes": None, "path": path} for path in paths] if kind == "struct" else paths
    parquet.write_table(pa.table({"image": cells, "label": WORDS}), tmp_path / "d/x.parquet")
    monkeypatch.chdir(tmp_path)
    first = load_dataset("d/x.parquet")
    assert sizes(first) == {"train": 2, "test": 2} or sizes(first) == {"train": 3, "test": 1}
    save(tmp_path / "d/pictures/1.png", noise(8, 8, seed=99))
    assert load_dataset("d/x.parquet").fingerprint != first.fingerprint


def test_rows_name_files_below_their_own_folder_only(tmp_path):
    outside = save(tmp_path / "secret.png", noise(8, 8, seed=7))
    save(tmp_path / "d/in.png", noise(8, 8))
    (tmp_path / "d/link.png").symlink_to(outside)
    os.mkfifo(tmp_path / "d/pipe.png")
    paths = [
        "in.png",
        "../secret.png",
        str(outside),
        "link.png",
        "/dev/zero",
        "pipe.png",
        "gone.png",
        "x" * 5000,
        str(tmp_path / "d/in.png"),
    ]
    table = pa.table({"image": [{"bytes": None, "path": path} for path in paths]})
    parquet.write_table(table, tmp_path / "d/x.parquet")
    dataset = load_dataset(tmp_path / "d/x.parquet")
    assert sum(sizes(dataset).values()) == 2
    reasons = [reason.split(":")[0] for _, reason in dataset.skipped]
    outsiders = ["outside the folder of the table"] * 4
    assert reasons == [*outsiders, "not a regular file", "no file", "no file of that name"]
    assert all(group.kind == "row" for group in dataset.skipped_groups)


# ---- folders --------------------------------------------------------------------------------------------------------


def test_metadata_of_any_form_give_labels_and_attributes(tmp_path):
    rows = [("a/000.png", "cat", 3, 0.5), ("a/001.png", "dog", 4, 1.5), ("b/000.png", "cat", 5, 2.5)]
    folder(tmp_path / "csv", {"a": 2, "b": 1})
    folder(tmp_path / "jsonl/train", {"a": 2, "b": 1})
    lines = ["file_name,label,age,weight", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "csv/metadata.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    names = ("file_name", "label", "age", "weight")
    text = "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    (tmp_path / "jsonl/train/metadata.jsonl").write_text(text)
    for place in ("csv", "jsonl"):
        dataset = load_dataset(tmp_path / place)
        assert dataset.splits["train"].categories == ("cat", "dog")
        assert dataset.facts.attributes == ("age", "weight")
        ages = np.concatenate([images.attributes["age"] for images in dataset.splits.values()])
        assert sorted(ages.tolist()) == [3, 4, 5]
        again = load_dataset(tmp_path / place)
        assert again.splits["train"].attributes["weight"].dtype == np.float64
        assert not any("metadata" in note for note in dataset.notes)
    before = load_dataset(tmp_path / "csv").fingerprint
    (tmp_path / "csv/metadata.csv").write_text("\n".join(lines).replace("dog", "cow"))
    assert load_dataset(tmp_path / "csv").fingerprint != before


def test_metadata_that_do_not_fit_are_said(tmp_path):
    folder(tmp_path, {"a": 3})
    (tmp_path / "metadata.csv").write_text("file_name,label\na/000.png,x\ngone.png,y\n")
    notes = load_dataset(tmp_path).notes
    assert "the metadata name 1 file that is not there, such as gone.png" in notes
    assert "2 pictures without a row in the metadata, such as a/001.png" in notes
    for text in ("", "a,b\n1,2\n", "\x00\xff"):
        (tmp_path / "metadata.csv").write_bytes(text.encode("latin-1"))
        assert load_dataset(tmp_path).splits["train"].categories in (("a",), ())
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.jsonl").write_text("[" * 100_000)
    [note] = [note for note in load_dataset(tmp_path).notes if "metadata.jsonl" in note]
    assert note.startswith("metadata.jsonl is not used: line 1 is no JSON object, such as")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("header", ["file_name", '"File_Name"', " filename "])
def test_metadata_as_spreadsheets_write_them(separator, encoding, header, tmp_path):
    folder(tmp_path, {"a": 4})
    rows = [[header, "Label", "note"], *([f"a\\{i:03}.png", word, "é"] for i, word in enumerate(WORDS))]
    newline = {"utf-8": "\n", "utf-8-sig": "\r\n", "utf-16": "\r"}[encoding]
    text = newline * 2 + newline.join(separator.join(row) for row in rows)
    (tmp_path / "metadata.csv").write_bytes(text.encode(encoding))
    dataset = load_dataset(tmp_path)
    assert counts(dataset) == {"cat": 2, "dog": 2}
    assert dataset.facts.attributes == ("note",)
    assert any("separated by" in note for note in dataset.notes) == (separator != ",")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file_name,label\n000.png,é".encode("latin-1"), "is not used: it is not text in UTF-8: save"),
        ("metadata.csv", b"", "is not used: it has no column file_name (has: nothing)"),
        ("metadata.csv", b'file_name,label\n000.png,"' + b"x" * 200_000, "is not used: it is no table"),
        ("metadata.csv", b"file_name,label\n000.png,a,b\n", ": 1 row has more cells than the header"),
        ("metadata.csv", b"file_name,label\n000.png,a\n000.png,b\n", "the metadata repeat 1 row, such as 000.png"),
        ("metadata.csv", b"file_name,label,label\n000.png,a,b\n", ": the header repeats label"),
        ("metadata.jsonl", b'{"file_name": 3}', "is not used: no row names a file"),
        ("metadata.jsonl", b'{"file_name": "000.png"}\n[1]\n', "is not used: line 2 is no JSON object"),
        ("metadata.parquet", b"PAR1", "is not used: it is no parquet file that can be read"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_metadata_that_are_no_table_are_explained_in_a_sentence(name, content, message, tmp_path):
    folder(tmp_path, {"": 4})
    (tmp_path / name).write_bytes(content)
    assert any(message in note for note in load_dataset(tmp_path).notes)


def test_metadata_in_a_parquet_file(tmp_path):
    folder(tmp_path, {"": 4})
    table = pa.table({"file_name": [f"{i:03}.png" for i in range(4)], "label": WORDS})
    parquet.write_table(table, tmp_path / "metadata.parquet")
    assert counts(load_dataset(tmp_path)) == {"cat": 2, "dog": 2}


@pytest.mark.parametrize("words", [("train", "test"), ("Training", "Testing"), ("seg_train", "seg_test")])
def test_splits_inside_the_categories_are_splits(words, tmp_path):
    folder(tmp_path, {f"{name}/{word}": n for name in ("cat", "dog") for word, n in zip(words, (3, 2), strict=True)})
    dataset = load_dataset(tmp_path)
    assert sizes(dataset) == {"train": 6, "test": 4}
    assert counts(dataset) == {"cat": 5, "dog": 5}
    assert any("inside the categories are the splits" in note for note in dataset.notes)
    folder(tmp_path, {"cow/test": 2})
    dataset = load_dataset(tmp_path)
    assert (sum(sizes(dataset).values()), len(counts(dataset))) == (12, 3)
    assert any("are no splits, since not every category has train" in note for note in dataset.notes)


def test_what_systems_leave_behind_is_no_data(tmp_path):
    folder(tmp_path, {"cat": 3, "dog": 3})
    for name in (
        "@eaDir/cat/000.png",
        "__MACOSX/cat/000.png",
        ".ipynb_checkpoints/cat-checkpoint.png",
        "cat/@eaDir/1.jpg",
    ):
        save(tmp_path / name, noise(8, 8))
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "cat/._000.png"):
        (tmp_path / name).write_bytes(b"x")
    dataset = load_dataset(tmp_path)
    assert counts(dataset) == {"cat": 3, "dog": 3}
    assert (dataset.skipped, dataset.facts.other_files) == ((), 0)


def test_folders_that_link_to_each_other_are_read_once(tmp_path):
    root = folder(tmp_path / "d", {"a": 3, "b": 2, "c": 2})
    for one in "abc":
        for other in "abc":
            (root / one / f"to-{other}").symlink_to(root / other)
    (root / "up").symlink_to(tmp_path)
    dataset = load_dataset(root)
    assert sum(sizes(dataset).values()) == 7
    assert any(note.startswith("10 links to folders that are read already") for note in dataset.notes)


def test_links_out_of_the_folder_are_followed_once_and_said(tmp_path):
    folder(tmp_path / "elsewhere", {"x": 3})
    root = folder(tmp_path / "d", {"a": 3})
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a/linked.png").symlink_to(tmp_path / "elsewhere/x/000.png")
    dataset = load_dataset(root)
    assert sum(sizes(dataset).values()) == 7
    assert f"1 linked folder out of the folder, such as b -> {tmp_path / 'elsewhere'}" in dataset.notes
    assert any("1 linked file out of the folder, such as a/linked.png" in note for note in dataset.notes)


def test_deeply_nested_folders(tmp_path):
    here = tmp_path / "d"
    here.mkdir()
    start = Path.cwd()
    try:
        os.chdir(here)
        for _ in range(1100):
            Path("n").mkdir()
            os.chdir("n")
        save(Path("deep.png"), noise(8, 8))
    finally:
        os.chdir(start)
    save(here / "top.png", noise(8, 8, seed=1))
    dataset = load_dataset(here)
    assert sum(sizes(dataset).values()) == 2
    describe_dataset(dataset)
    subprocess.run(["rm", "-r", "--", here], check=True)  # pytest itself could not


def test_pipes_and_devices_are_not_read(tmp_path):
    root = folder(tmp_path / "d", {"a": 3})
    os.mkfifo(root / "a/pipe.png")
    (root / "a/zero.png").symlink_to("/dev/zero")
    assert {file.file: file.reason for file in load_dataset(root).skipped} == {
        "a/pipe.png": "not a regular file",
        "a/zero.png": "not a regular file",
    }
    for name in ("x.npy", "x.npz", "x.png", "x.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match=r"neither a file nor a folder|not a regular file"):
            load_dataset(tmp_path / name)
        with pytest.raises(UserError, match="cannot be read as a picture: not a regular file"):
            read_images([tmp_path / name], (1, 8, 8))
    with pytest.raises(UserError):
        load_dataset("/dev/zero")
    (tmp_path / "t").mkdir()
    os.mkfifo(tmp_path / "t/train.parquet")
    with pytest.raises(UserError, match="not a regular file"):
        load_dataset(tmp_path / "t")


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_names_that_are_not_utf8_or_cannot_be_printed(tmp_path):
    root = os.fsencode(tmp_path / "d")
    names = [b"caf\xe9", b"bell\x07", b"\x1b[31mred", "花".encode(), "a\u202eb".encode()]
    for i, name in enumerate(names):
        place = Path(os.fsdecode(root + b"/" + name))
        place.mkdir(parents=True)
        for j in range(2):
            picture = encoded(noise(8, 8, seed=10 * i + j))
            (place / f"{j}.png").write_bytes(picture if j else picture[: 40 * (i == 1) or None])
    dataset = load_dataset(tmp_path / "d")
    assert set(dataset.splits["train"].categories) == {"caf\\udce9", "bell\\x07", "\\x1b[31mred", "花", "a\\u202eb"}
    for images in dataset.splits.values():
        for i in range(len(images)):
            images.name(i).encode("utf-8")
    assert [file.file for file in dataset.skipped] == ["bell\\x07/0.png"]
    json.dumps(describe_dataset(dataset)).encode("ascii")
    assert load_dataset(tmp_path / "d").fingerprint == dataset.fingerprint
    assert printable("plain name.png") == "plain name.png"


def test_other_files_are_counted_by_kind(tmp_path):
    folder(tmp_path, {"a": 3})
    for name in ("a.txt", "b.txt", "c.csv", "README"):
        (tmp_path / name).write_text("words")
    (tmp_path / "raw.NEF").write_text("words")
    dataset = load_dataset(tmp_path)
    assert dataset.facts.other_kinds == {".txt": 2, ".csv": 1, "no suffix": 1}
    assert [(group.kind, group.reason) for group in dataset.skipped_groups] == [(".nef", "camera raw is not read")]


# ---- failures that may pass -----------------------------------------------------------------------------------------


FAILURES = [OSError(5, "Input/output error"), OSError(24, "Too many open files"), OSError(13, "Permission denied")]

FAULTS = list(itertools.product(FAILURES, ["open", "readinto", "readall"], [1, 2, 4]))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0].strerror}-{fault[1]}-{fault[2]}")
def test_a_failure_of_the_system_stops_the_build_and_is_not_remembered(fault, tmp_path, cache, monkeypatch):
    error, operation, nth = fault
    root = folder(tmp_path / "d", {"a": 4})
    real = decoding.open_regular if operation == "open" else getattr(io.FileIO, operation)
    calls = []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == nth:
            raise error
        return real(*arguments)

    with monkeypatch.context() as patch:
        if operation == "open":
            patch.setattr(decoding, "open_regular", failing)
            patch.setattr(files, "open_regular", failing)
        else:
            raw = type("Raw", (io.FileIO,), {operation: failing})
            patch.setattr(files, "WatchedFile", type("Faulty", (files.WatchedFile, raw), {}))
        with pytest.raises(UserError, match=rf"cannot be read: {error.strerror}; nothing was stored"):
            load_dataset(root)
    assert not list(cache.iterdir())
    dataset = load_dataset(root)
    assert (sum(sizes(dataset).values()), dataset.skipped) == (4, ())


def test_a_folder_that_cannot_be_read_is_not_empty(tmp_path, monkeypatch):
    root = folder(tmp_path / "d", {"a": 2, "b": 2})
    real = os.scandir

    def denied(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(walk.os, "scandir", denied)
    with pytest.raises(UserError, match=r"d/b cannot be read: Permission denied"):
        load_dataset(root)


def test_no_memory_is_no_verdict(tmp_path, cache, monkeypatch):
    root = folder(tmp_path / "d", {"a": 3})

    def exhausted(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_quietly", exhausted)
        with pytest.raises(UserError, match=r"not enough memory to read .*a/000\.png: nothing was stored"):
            load_dataset(root)
    assert not list(cache.iterdir())
    assert load_dataset(root).skipped == ()


def test_a_picture_that_needs_more_memory_than_there_is_is_refused_before(tmp_path, monkeypatch):
    path = save(tmp_path / "wide.png", np.zeros((4000, 4000), np.uint8))
    monkeypatch.setattr(files, "available_memory", lambda: 10**8)
    with pytest.raises(UserError, match=r"wide\.png takes about 256\.0 MB of memory \(4000 x 4000 pixels\), 100\.0 MB"):
        load_dataset(path, size=16)


def test_an_archive_that_unpacks_to_more_than_memory_is_refused_before(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        description = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 64, 64)}
        np.lib.format.write_array_header_1_0(header, description)
        archive.writestr("images.npy", header.getvalue())
    monkeypatch.setattr(files, "available_memory", lambda: 10**9)
    with pytest.raises(UserError, match=r"x\.npz takes about 4\.1 GB of memory \(unpacked\), 1\.0 GB are free"):
        load_dataset(tmp_path / "x.npz")
    monkeypatch.undo()


def test_a_table_larger_than_memory_is_refused_before(tmp_path, monkeypatch):
    cells = [os.urandom(2**16) for _ in range(1100)]
    parquet.write_table(pa.table({"image": cells}), tmp_path / "x.parquet")
    monkeypatch.setattr(files, "available_memory", lambda: 10**6)
    with pytest.raises(UserError, match=r"x\.parquet takes about .* of memory \(unpacked\)"):
        load_dataset(tmp_path / "x.parquet")


# ---- the cache ------------------------------------------------------------------------------------------------------


def entry_of(dataset):
    return Path(dataset.facts.cache)


@pytest.mark.parametrize("name", ["train.npy", "train-labels.npy", "train-names.npy", "meta.json"])
def test_one_changed_byte_is_noticed(name, tmp_path, capsys):
    root = folder(tmp_path / "d", {"a": 5, "b": 5})
    dataset = load_dataset(root)
    whole = dataset.splits["train"].uint8()
    file = entry_of(dataset) / name
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[-20] ^= 4
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = load_dataset(root)
    assert "is damaged" in capsys.readouterr().err
    assert (again.splits["train"].uint8() == whole).all()
    assert again.fingerprint == dataset.fingerprint


def test_an_entry_that_was_copied_is_checked_once(tmp_path, monkeypatch):
    root = folder(tmp_path / "d", {"a": 5})
    entry = entry_of(load_dataset(root))
    for file in entry.iterdir():
        os.utime(file, ns=(1, 1))
    assert entry_of(load_dataset(root)) == entry
    assert (entry / "checked.json").exists()
    monkeypatch.setattr("vaelab.datasets.entry.describe_file", lambda path: pytest.fail("checked again"))
    load_dataset(root)


def test_an_error_in_reading_an_entry_does_not_delete_it(tmp_path, monkeypatch):
    root = folder(tmp_path / "d", {"a": 5})
    entry = entry_of(load_dataset(root))
    before = {file.name: file.read_bytes() for file in entry.iterdir()}

    def failing(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("vaelab.datasets.entry.open_regular", failing)
        with pytest.raises(UserError, match=r"cannot be read: Input/output error; it was left as it is"):
            load_dataset(root)
    assert {file.name: file.read_bytes() for file in entry.iterdir()} == before


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "null", "[]", '{"digest": 3}', '{"files": null}', "pipe", '{"a": NaN}', "\udc80"], ids=repr
)
def test_meta_of_the_wrong_shape_is_damage(text, tmp_path, capsys):
    root = folder(tmp_path / "d", {"a": 3})
    file = entry_of(load_dataset(root)) / "meta.json"
    if text == "pipe":
        file.unlink()
        os.mkfifo(file)
    else:
        file.write_text(text, errors="surrogateescape")
    assert sum(sizes(load_dataset(root)).values()) == 3
    assert "is damaged" in capsys.readouterr().err
    assert stat.S_ISREG(file.stat().st_mode)


def test_leftovers_of_a_killed_process_are_removed(tmp_path, cache):
    root = folder(tmp_path / "d", {"a": 3})
    entry = entry_of(load_dataset(root))
    (cache / f".{entry.name}.lock").touch()
    (cache / f".{entry.name}.part/marks").mkdir(parents=True)
    load_dataset(root)
    assert [path.name for path in cache.iterdir()] == [entry.name]


def test_a_temporary_file_of_a_killed_build_does_not_stay(tmp_path, cache, monkeypatch):
    root = folder(tmp_path / "d", {"a": 3})

    def killed(partial_dir, meta):
        (partial_dir / ".checked-12345678.json").write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "remember_checked", killed)
        with pytest.raises(KeyboardInterrupt):
            load_dataset(root)
    entry = entry_of(load_dataset(root))
    assert not [file.name for file in entry.iterdir() if file.name.startswith(".")]


def test_a_cache_that_fails_is_said(tmp_path, cache, monkeypatch):
    root = folder(tmp_path / "d", {"a": 3})

    def failing(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(build, "describe_file", failing)
    with pytest.raises(UserError, match="Permission denied"):
        load_dataset(root)
    assert not list(cache.iterdir())


# ---- two hundred odd pictures ---------------------------------------------------------------------------------------


def odd_pictures(root):
    """Pictures of many modes, sizes and states, sound and damaged; gives how many there are."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
    modes = ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "PA", "I;16"]
    forms = ["png", "tif", "jpg", "gif", "bmp", "webp", "ppm", "tga", "ico", "jp2", "avif", "dib", "j2k", "jfif"]
    total = 0
    for mode in modes:
        for form in forms:
            base = Image.fromarray(rng.integers(0, 60000, (20, 24)).astype(np.uint16)) if mode == "I;16" else None
            try:
                image = base or colour.convert("RGB").convert(mode)
                save(root / f"{mode.replace(';', '')}.{form}", image)
                total += 1
            except (OSError, ValueError, KeyError):
                (root / f"{mode.replace(';', '')}.{form}").unlink(missing_ok=True)
    sound = sorted(root.iterdir())
    for i, file in enumerate(sound[:60]):
        content = bytearray(file.read_bytes())
        kind = i % 5
        if kind == 0:
            content = content[: len(content) // 2]
        elif kind == 1:
            content[10:30] = os.urandom(20)
        elif kind == 2:
            content = bytearray()
        elif kind == 3:
            content = content[: len(content) - 3]
        else:
            content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        (root / f"damaged-{i}{file.suffix}").write_bytes(content)
        total += 1
    for i in range(200 - total):
        (root / f"text-{i}.png").write_text("no picture" * i)
        total += 1
    return total


def test_two_hundred_odd_pictures_are_used_or_named(tmp_path, capfd):
    root = tmp_path / "d"
    root.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        total = odd_pictures(root)
    assert total >= 200
    dataset = load_dataset(root, size=16)
    used = {images.name(i) for images in dataset.splits.values() for i in range(len(images))}
    skipped = {file.file for file in dataset.skipped}
    assert used | skipped == {file.name for file in root.iterdir()}
    assert not used & skipped
    assert len(used) > 100
    assert all(file.reason for file in dataset.skipped)
    assert sum(group.count for group in dataset.skipped_groups) == len(skipped)
    assert capfd.readouterr().err == ""


def test_every_reader_says_what_is_wrong_with_any_file():
    """Random bytes after each format's signature are a verdict, never a failure of the system."""
    signs = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*", b"RIFF\x10\0\0\0WEBP"]
    signs += [b"P5 8 8 255\n", b"\x00\x00\x01\x00", b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"8BPS", b"SIMPLE  =", b"%!PS"]
    rng = np.random.default_rng(0)
    for sign in signs:
        for length in (0, 10, 100, 1000):
            verdict = verdict_on(sign + rng.bytes(length))
            assert verdict is None or not isinstance(verdict, UserError), sign


def verdict_on(content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read_header(content)
            decoding.decode_image(content, (1, 8, 8))
        except Exception as error:
            return error
    return None


def test_a_source_is_a_module_that_registers_itself(monkeypatch, tmp_path):
    """A new source is one module: what it registers is found."""
    from vaelab.datasets.sources import source

    def matches(request):
        return request.path is not None and request.path.suffix == ".stars"

    module = types.ModuleType("stars")

    def stars_source(request):
        raw = source.RawDataset({"train": source.RawSplit(noise(4, 8, 8), None, None)})
        return source.DataSource(str(request.path), ["stars"], lambda: raw)

    stars_source.__module__ = module.__name__
    monkeypatch.setattr(source, "REGISTRY", dict(source.REGISTRY))
    source.register(source.Precedence.MARKED_PATH, matches, lambda: (".stars",))(stars_source)
    (tmp_path / "night.stars").write_text("")
    assert sizes(load_dataset(tmp_path / "night.stars")) == {"train": 3, "test": 1}


def test_long_names_and_values_are_shortened_in_messages(tmp_path):
    cell = "word " * 4000
    folder(tmp_path / "d", {"a": 4})
    rows = [f"a/{i:03}.png,{cell}{i}" for i in range(3)] + [f"{cell}.png,x"]
    (tmp_path / "d/metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    parquet.write_table(
        pa.table({"image": [cell, "no.png"], "label": [cell, "b"], cell: [1, 2]}), tmp_path / "x.parquet"
    )
    dataset = load_dataset(tmp_path / "d")
    with pytest.raises(UserError) as error:
        load_dataset(tmp_path / "x.parquet")
    messages = [str(error.value), *dataset.notes, *data_lines(describe_dataset(dataset), {})]
    assert max(map(len, messages)) < 700
    assert any(category.startswith(cell.strip()) for category in dataset.splits["train"].categories)


CONTENTS = {
    b"": "empty",
    b"<!DOCTYPE html><html>404</html>": "a web page, not a picture",
    b"version https://git-lfs.github.com/spec/v1\n": "a pointer of Git LFS, not the picture itself",
    b"%PDF-1.7": "a document, not a picture",
    b"PK\x03\x04": "an archive, not a picture",
    b"II*\x00": "damaged, or a form of TIFF that is not read",
    b"words": "not a picture",
    PNGS[0][:60]: "damaged: image file is truncated",
    PNGS[0][:20]: "damaged: Truncated File Read",
}


def test_files_that_are_no_pictures_are_called_what_they_are(tmp_path):
    folder(tmp_path, {"a": 2})
    for i, content in enumerate(CONTENTS):
        (tmp_path / f"{i}.png").write_bytes(content)
    dataset = load_dataset(tmp_path)
    reasons = {file.file: file.reason.partition(" (")[0] for file in dataset.skipped}
    assert reasons == {f"{i}.png": reason for i, reason in enumerate(CONTENTS.values())}
    assert all(group.remedy for group in dataset.skipped_groups)


@pytest.mark.parametrize("form", ["gif", "tif", "png", "webp"])
def test_files_of_several_pictures_are_said(form, tmp_path):
    first, *others = [Image.fromarray(noise(9, 9, 3, seed=i)) for i in range(3)]
    first.save(tmp_path / f"x.{form}", save_all=True, append_images=others)
    assert any(f"of which the first one is read, such as x.{form}" in note for note in load_dataset(tmp_path).notes)


def test_paths_as_windows_writes_them_and_addresses_on_the_web(tmp_path):
    for i in range(3):
        save(tmp_path / f"d/pictures/{i}.png", noise(8, 8, seed=i))
    paths = [*(f"pictures\\{i}.png" for i in range(3)), "https://example.org/a.png"]
    parquet.write_table(pa.table({"image": paths}), tmp_path / "d/x.parquet")
    dataset = load_dataset(tmp_path / "d/x.parquet")
    assert sum(sizes(dataset).values()) == 3
    assert [group.reason for group in dataset.skipped_groups] == ["an address on the web"]
