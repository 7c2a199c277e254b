"""Pictures of more than eight bits a channel: every way to store the same values gives the same pixels."""

from __future__ import annotations

import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import vaelab
from vaelab.core.errors import UserError
from vaelab.datasets.decoding import read_images, readable_suffixes
from vaelab.datasets.depth import declared_bits
from vaelab.datasets.loading import load_dataset

SIDE = 9


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "cache"))


def values(channels, highest, seed=0):
    return np.random.default_rng(seed).integers(0, highest + 1, (SIDE, SIDE, channels)).astype(np.uint16)


def png_file(pixels, colour_type, clear=None):
    """A PNG of 16 bits a channel, which Pillow cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, colour_type, 0, 0, 0)
    key = chunk(b"tRNS", np.array(clear, ">u2").tobytes()) if clear is not None else b""
    body = chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff_file(pixels, *, order="<", compression=1, planar=1, photometric=2, extra=None, orientation=1, strip=4):
    """A TIFF of 16 bits a channel, in strips of a few rows."""
    channels = pixels.shape[2]
    planes = [pixels] if planar == 1 else [pixels[..., i : i + 1] for i in range(channels)]
    strips = []
    for plane in planes:
        for top in range(0, SIDE, strip):
            data = plane[top : top + strip].astype(f"{order}u2").tobytes()
            strips.append(zlib.compress(data) if compression == 8 else data)
    offsets = np.cumsum([8] + [len(data) for data in strips])[:-1].tolist()
    tags = {256: [SIDE], 257: [SIDE], 258: [16] * channels, 259: [compression], 262: [photometric], 273: offsets}
    tags |= {274: [orientation], 277: [channels], 278: [strip], 279: [len(data) for data in strips], 284: [planar]}
    if extra is not None:
        tags[338] = [extra]
    body = b"".join(strips)
    place = 8 + len(body)
    entries, beyond = b"", b""
    end = place + 2 + 12 * len(tags) + 4
    for number, entry in sorted(tags.items()):
        data = np.array(entry, f"{order}u4" if number in (273, 279) else f"{order}u2").tobytes()
        if len(data) > 4:
            pointer = struct.pack(f"{order}I", end + len(beyond))
            beyond += data
        else:
            pointer = data.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", number, 4 if number in (273, 279) else 3, len(entry)) + pointer
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
    return magic + body + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0) + beyond


def loaded(tmp_path, name, content, **settings):
    (tmp_path / name).write_bytes(content)
    dataset = load_dataset(tmp_path / name, **settings)
    return dataset, dataset.splits["train"].uint8()[0].transpose(1, 2, 0).astype(int)


def expected(pixels, highest):
    return np.rint(pixels / highest * 255).astype(int)


FORMS = [
    {"order": order, "compression": compression, "planar": planar}
    for order in "<>"
    for compression, planar in ((1, 1), (8, 1), (1, 2))
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("highest", [4095, 65535])
def test_colour_tiff_of_16_bits(form, highest, tmp_path):
    pixels = values(3, highest)
    dataset, decoded = loaded(tmp_path, "x.tif", tiff_file(pixels, **form))
    assert (decoded == expected(pixels, highest)).all()
    assert dataset.facts.value_range == (0, highest)
    assert any(f"0 is taken as black, {highest} as white" in note for note in dataset.notes)
    _, decoded = loaded(tmp_path, "x.tif", tiff_file(pixels, **form), value_range=(0, 2 * highest))
    assert (decoded == expected(pixels, 2 * highest)).all()


@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("compression", [1, 8])
def test_alpha_of_16_bits_in_tiff(extra, compression, tmp_path):
    """0: the fourth channel means nothing; 1: it was multiplied into the others; 2: it was not."""
    pixels = values(4, 4095)
    pixels[..., 3] = 65535
    pixels[:3, :, 3] = 0
    shown = np.where(pixels[..., 3:] == 0, 0, pixels[..., :3]).astype(np.uint16) if extra == 1 else pixels[..., :3]
    stored = np.concatenate([shown, pixels[..., 3:]], axis=2)
    _, decoded = loaded(tmp_path, "x.tif", tiff_file(stored, compression=compression, extra=extra))
    colours = expected(pixels[..., :3], 4095)
    assert (decoded[3:] == colours[3:]).all()
    assert (decoded[:3] == (colours[:3] if extra == 0 else 255)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_pictures(orientation, tmp_path):
    pixels = values(3, 4095)
    _, decoded = loaded(tmp_path, "x.tif", tiff_file(pixels, orientation=orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(expected(pixels, 4095).astype(np.uint8)).save(tmp_path / "y.png", exif=exif)
    assert (decoded == read_images([tmp_path / "y.png"], (3, SIDE, SIDE))[0].transpose(1, 2, 0)).all()


@pytest.mark.parametrize("highest", [4095, 65535])
def test_grey_with_alpha_of_16_bits_stays_grey(highest, tmp_path):
    pixels = values(2, highest)
    pixels[..., 1] = 65535
    pixels[:3, :, 1] = 0
    pixels[:3, :, 0] = 60000  # what cannot be seen has no say in the range
    dataset, decoded = loaded(tmp_path, "x.png", png_file(pixels, 4))
    assert dataset.splits["train"].shape == (1, SIDE, SIDE)
    assert (decoded[3:] == expected(pixels[3:, :, :1], highest)).all()
    assert (decoded[:3] == 255).all()


def test_a_colour_that_is_declared_transparent_is_white(tmp_path):
    pixels = values(3, 4095)
    pixels[2, 2] = 40000, 3, 3
    dataset, decoded = loaded(tmp_path, "x.png", png_file(pixels, 2, clear=(40000, 3, 3)))
    assert dataset.facts.value_range == (0, 4095)
    assert (decoded[2, 2] == 255).all()
    assert (decoded[3:] == expected(pixels[3:], 4095)).all()


def test_grey_tiff_whose_zero_is_white(tmp_path):
    pixels = values(1, 65535)
    _, decoded = loaded(tmp_path, "x.tif", tiff_file(pixels, photometric=0))
    assert (decoded == 255 - expected(pixels, 65535)).all()


@pytest.mark.parametrize("sign", ["P6", "P3"])
@pytest.mark.parametrize("highest", [4095, 65535])
def test_ppm_of_more_than_8_bits(sign, highest, tmp_path):
    pixels = values(3, 4095)
    body = pixels.astype(">u2").tobytes() if sign == "P6" else " ".join(map(str, pixels.ravel())).encode()
    _, decoded = loaded(tmp_path, "x.ppm", f"{sign}\n# by hand\n{SIDE} {SIDE}\n{highest}\n".encode() + body)
    assert np.abs(decoded - expected(pixels, 4095)).max() <= 1  # of 65535 values not all have an exact place


@pytest.mark.parametrize("form", [{"photometric": 5}, {"compression": 8, "planar": 2}], ids=str)
def test_forms_of_which_the_upper_byte_alone_is_read_are_said(form, tmp_path):
    pixels = values(4 if form.get("photometric") else 3, 65535)
    dataset, _ = loaded(tmp_path, "x.tif", tiff_file(pixels, **form))
    assert any("1 picture has more than 8 bits a channel, of which the upper 8 alone" in note for note in dataset.notes)


def test_the_bits_that_a_file_declares(tmp_path):
    Image.fromarray(values(1, 65535)[..., 0]).save(tmp_path / "deep.jp2")
    for name in ("plain.jp2", "plain.avif"):
        if name.removeprefix("plain") in readable_suffixes():
            Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(tmp_path / name)
    bits = {file.stem: declared_bits(file.read_bytes()) for file in tmp_path.iterdir() if file.is_file()}
    assert bits == {"deep": 16, "plain": 8}


def test_one_picture_with_far_higher_values_is_named(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(10):
        scale = 1e6 if i == 3 else 1.0
        Image.fromarray((rng.random((SIDE, SIDE)) * scale).astype(np.float32)).save(tmp_path / f"{i}.tif")
    [note] = [note for note in load_dataset(tmp_path).notes if "levels" in note]
    assert note.startswith("9 of 10 pictures have fewer than 16 of 256 levels in that range, since 3.tif has values")
    assert not any("levels" in note for note in load_dataset(tmp_path, value_range=(0, 1)).notes)


# ---- arrays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint16", "int16", "float32", "float64"])
def test_whole_numbers_up_to_255_are_bytes(dtype, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE))
    np.save(tmp_path / "x.npy", pixels.astype(dtype))
    assert (load_dataset(tmp_path / "x.npy").splits["train"].stored_pixels[:, 0] == pixels).all()


@pytest.mark.parametrize("dtype", ["int64", "uint16", "float32", "float64", "uint8"])
def test_arrays_with_a_given_range(dtype, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 200, (5, SIDE, SIDE))
    array = (pixels if dtype == "uint8" else pixels * 20).astype(dtype)
    white = 85 if dtype == "uint8" else 1700
    np.save(tmp_path / "x.npy", array)
    dataset = load_dataset(tmp_path / "x.npy", value_range=(0, white))
    assert (dataset.splits["train"].stored_pixels[:, 0] == pixels.clip(0, 85) * 3).all()
    assert dataset.facts.value_range == (0, white)


def test_arrays_of_other_values_are_refused_with_the_remedy(tmp_path):
    np.save(tmp_path / "x.npy", np.linspace(-1, 1, 5 * SIDE * SIDE).reshape(5, SIDE, SIDE))
    with pytest.raises(
        UserError, match=r"floats from -1 to 1; .*\ngive the values .* such as value_range=-1,1"
    ) as error:
        load_dataset(tmp_path / "x.npy")
    assert error.value.settings == ("value_range",)
    pixels = load_dataset(tmp_path / "x.npy", value_range=(-1, 1)).splits["train"].stored_pixels
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_a_picture_of_an_array_that_holds_no_number_is_left_out(tmp_path):
    array = np.random.default_rng(0).random((5, SIDE, SIDE))
    array[2, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", array)
    assert [tuple(file) for file in load_dataset(tmp_path / "x.npy").skipped] == [
        ("train 2", "not finite: values that are no numbers")
    ]


def test_masks_that_are_nearly_black_are_said(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 2, (5, SIDE, SIDE)).astype(np.uint8))
    assert any(
        "no pixel is above 1 of 255: give --value-range" in note for note in load_dataset(tmp_path / "x.npy").notes
    )


def test_pictures_for_a_run_have_one_range(tmp_path):
    dark, bright = values(1, 900)[..., 0], values(1, 4000, seed=1)[..., 0]
    for name, pixels in (("dark", dark), ("bright", bright)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    paths = [tmp_path / "dark.png", tmp_path / "bright.png"]
    together = read_images(paths, (1, SIDE, SIDE))
    assert (together[:, 0] == np.stack([expected(dark, 4095), expected(bright, 4095)])).all()
    given = read_images(paths[:1], (1, SIDE, SIDE), lambda: {"integer": (0.0, 65535.0)})
    assert (given[0, 0] == expected(dark, 65535)).all()


def test_a_picture_given_to_a_run_is_scaled_as_its_data_were(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(values(1, 4095, seed=i)[..., 0]).save(folder / f"{i}.png")
    dark = values(1, 900)[..., 0]  # alone, it would be taken to have 10 bits
    Image.fromarray(dark).save(tmp_path / "dark.png")
    Image.fromarray(expected(dark, 4095).astype(np.uint8)).save(tmp_path / "plain.png")
    settings = {"network": "mlp:hidden=4", "latent_dim": 2, "epochs": 1, "figures": False}
    run = vaelab.train(folder, **settings, out=tmp_path / "runs")
    assert run.value_ranges == {"integer": (0, 4095)}
    dark_file, plain_file = str(tmp_path / "dark.png"), str(tmp_path / "plain.png")
    assert (vaelab.reconstruct(run, [dark_file]) == vaelab.reconstruct(run, [plain_file])).all()
    paths = [vaelab.interpolate(run, from_=name, to=plain_file) for name in (dark_file, plain_file)]
    assert (paths[0] == paths[1]).all()
    other = load_dataset(tmp_path / "dark.png", run_ranges=run.value_ranges)
    assert (other.splits["train"].uint8()[0, 0] == expected(dark, 4095)).all()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


KINDS = {
    "grey": lambda i: noise(SIDE, SIDE, seed=i),
    "colour": lambda i: noise(SIDE, SIDE, 3, seed=i),
    "black and white": lambda i: 255 * (noise(SIDE, SIDE, seed=i) // 128),
}


@pytest.mark.parametrize(("train", "test"), list(itertools.permutations(KINDS, 2)), ids=str)
def test_a_test_split_of_another_kind_is_refused_before_training(train, test, tmp_path):
    for split, kind in (("train", train), ("test", test)):
        (tmp_path / "d" / split).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(KINDS[kind](i)).save(tmp_path / f"d/{split}/{i}.png")
    sentence = f"the test split is {test}, the train split is {train}"
    assert any(sentence in note for note in load_dataset(tmp_path / "d").notes)
    with pytest.raises(UserError, match=f"{sentence}\nconvert the pictures of that split"):
        vaelab.train(tmp_path / "d", network="mlp:hidden=4", epochs=1, figures=False, out=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/*"))
