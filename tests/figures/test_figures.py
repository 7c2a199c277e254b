"""Figures: pixels arrive exactly and in order, words are there and fit, files are whole and the same each time."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest
from figure_reading import boxes, cut_off, drawn, overlaps, patches, read, words
from matplotlib.text import Text
from PIL import Image

from vaelab.analysis.projections import Projection
from vaelab.core.errors import UserError
from vaelab.figures import curves, diagram, layout, scatter, tiles


class Layer(NamedTuple):
    part: str
    name: str
    shape: tuple[int, ...]
    parameters: int


def history(count, validation=True):
    terms = {"loss": 2.0, "cross_entropy": 1.5, "squared_error": 0.5, "kl": 0.2, "negative_elbo": 2.5, "kl_of_mean": 9}
    rows = [{name: value + 3 / epoch for name, value in terms.items()} for epoch in range(1, count + 1)]
    return [{"epoch": i, "step": i, "seconds": 1.0, "train": row, "validation": row if validation else {}}
            for i, row in enumerate(rows, start=1)]  # fmt: skip


def views(count=60, seed=0, clusters=4):
    rng = np.random.default_rng(seed)
    return Projection(rng.normal(size=(count, 3)), np.array([0.5, 0.25, 0.125]), np.arange(count) % clusters,
                  rng.normal(size=(count, 2)))  # fmt: skip


def network(depth=3):
    sides = ((part, f"layer {i}", (8, 4, 2), 10 * i) for part in ("encoder", "decoder") for i in range(depth))
    return [Layer(*side) for side in sides]


X = patches(6)
EVERY = {
    "curves": lambda: curves.plot_curves(history(3), "a title"),
    "reconstructions": lambda: tiles.plot_reconstructions(X, X, "a title"),
    "grid": lambda: tiles.plot_grid(X, "a title"),
    "interpolations": lambda: tiles.plot_interpolations(X.reshape(3, 2, *X.shape[1:]), patches(3, 3), (0, 0.5, 1),
                                                     ("cat", "dog"), "a title"),
    "traversals": lambda: tiles.plot_traversals(patches(2, 3), ["z7  KL 3.1", "z0"], (-3, 0, 3), "a title"),
    "latent": lambda: scatter.plot_latent_spaces(views(), views(seed=1), np.arange(60) % 3,
                                                 ("cat", "dog", "猫 $x$"), "a title"),
    "epochs": lambda: tiles.plot_epochs(X, [(1, X), (20, X)], "a title"),
    "model": lambda: diagram.plot_model(network(), 32, "cross entropy", "a title"),
}  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_is_titled_whole_and_drawn_twice_the_same(name, tmp_path):
    figure, again = EVERY[name](), EVERY[name]()
    assert "a title" in words(figure)
    assert not cut_off(figure)
    first, document = layout.save_figure(figure, tmp_path / "one.png", pdf=True)
    second, other = layout.save_figure(again, tmp_path / "two.png", pdf=True)
    assert first.read_bytes() == second.read_bytes()
    assert document.read_bytes() == other.read_bytes()
    assert document.read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pdf", "one.png", "two.pdf", "two.png"]


SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 48), (3, 21, 100), (3, 256, 256)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 7])
def test_pixels_grow_by_a_whole_factor_and_arrive_exactly(shape, count, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    figure = tiles.plot_grid(x / np.float32(255), "title", columns=4)
    picture = read(figure, tmp_path)
    box = figure.axes[0].get_window_extent()
    canvas = picture[picture.shape[0] - round(box.y1) :, round(box.x0) :]
    first = np.broadcast_to(np.moveaxis(x[0], 0, -1), (*shape[1:], 3))
    grown = (first.repeat(factor, 0).repeat(factor, 1) for factor in range(30, 0, -1))
    assert any(np.array_equal(canvas[: tile.shape[0], : tile.shape[1]], tile) for tile in grown)


def test_interpolations_show_originals_left_and_the_path_right_in_order(tmp_path):
    originals, paths = patches(3, 8)[:, :2], patches(3, 8)[:, 2:]
    figure = tiles.plot_interpolations(originals, paths, np.linspace(0, 1, 6), ("woman", "man"))
    found = boxes(read(figure, tmp_path), patches(3, 8)).reshape(3, 8, 4)
    top, left, height, width = np.moveaxis(found, -1, 0)
    assert (height == height[0, 0]).all()
    assert (width == height).all()
    assert height[0, 0] % 8 == 0
    assert (top == top[:, :1]).all()
    assert (np.diff(top[:, 0]) > 0).all()
    steps = np.diff(left[0])
    assert (left == left[:1]).all()
    assert steps[1] > steps[0] == steps[2] == steps[-1]  # a gap between the originals and the path
    heads = sorted((text for text in figure.findobj(Text) if text.get_text()), key=lambda text: text.get_position()[0])
    assert [text.get_text() for text in heads] == ["woman", "man", "α = 0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_reconstructions_stand_below_their_originals_and_wrap(tmp_path):
    x = patches(2, 12)
    figure = tiles.plot_reconstructions(x[0], x[1])
    found = boxes(read(figure, tmp_path), x).reshape(2, 12, 4)
    assert (found[0, :, 1] == found[1, :, 1]).all()
    assert (found[1, :, 0] > found[0, :, 0]).all()
    assert len(np.unique(found[0, :, 0])) == 2
    assert found[0, 6, 0] > found[1, 5, 0]  # the second pair of rows lies below the first
    assert sorted(words(figure)) == ["original"] * 2 + ["reconstruction"] * 2


def test_epochs_and_traversals_are_rows(tmp_path):
    x = patches(3, 4)
    figure = tiles.plot_epochs(x[0], [(1, x[1]), (20, x[2])])
    assert words(figure) == ["original", "epoch 1", "epoch 20"]
    assert (np.diff(boxes(read(figure, tmp_path), x).reshape(3, 4, 4)[:, 0, 0]) > 0).all()
    figure = tiles.plot_traversals(x, ["z7  KL 3.1", "z0  KL 2", "z1  KL 1"], (-3, -1, 1, 3))
    assert words(figure) == ["z7  KL 3.1", "z0  KL 2", "z1  KL 1", "−3", "−1", "1", "3"]


def test_curves_label_both_splits_in_every_panel_without_a_clash():
    figure = curves.plot_curves(history(5))
    assert len(figure.axes) == 5
    figure.draw_without_rendering()
    for axes in figure.axes:
        labels = {text.get_text(): text for text in axes.texts}
        assert {"train", "validation"} <= set(labels)
        assert not overlaps([labels["train"], labels["validation"]])
        assert [len(line.get_xdata()) for line in axes.lines] == [5, 5]
    assert "Kl of mean" not in words(figure)


def test_curves_of_one_epoch_have_markers_and_one_tick():
    figure = curves.plot_curves(history(1, validation=False))
    for axes in figure.axes:
        assert "validation" not in [text.get_text() for text in axes.texts]
        assert axes.lines[0].get_marker() == "o"
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_curves_survive_nan_and_refuse_an_empty_history():
    rows = history(3)
    rows[2]["train"] = dict.fromkeys(rows[2]["train"], float("nan"))
    curves.plot_curves(rows).draw_without_rendering()
    with pytest.raises(UserError, match="no epochs"):
        curves.plot_curves([])


def test_latent_has_six_lettered_panels_and_names_its_categories():
    names = ("cat", "dog", "an extremely long name of a category")
    figure = scatter.plot_latent_spaces(views(), views(seed=1), np.arange(60) % 3, names)
    texts = words(figure)
    assert [text[:3] for text in texts if text.startswith("(")] == [f"({letter})" for letter in "abcdef"]
    assert sum("50.0 + 25.0 + 12.5 = 87.5 %" in text for text in texts) == 2
    assert texts.count("cat") == texts.count("dog") == 2
    assert sum(text.startswith("an ext") and text.endswith("…") for text in texts) == 2
    figure.draw_without_rendering()
    assert not any(overlaps(axes.texts) for axes in figure.axes)


def test_names_at_one_place_are_moved_apart():
    crowd = views(100)._replace(tsne=np.random.default_rng(0).normal(size=(100, 2)) * 1e-3)
    names = [f"category {i}" for i in range(10)]
    figure = scatter.plot_latent_spaces(crowd, crowd, np.arange(100) % 10, names)
    figure.draw_without_rendering()
    assert not cut_off(figure)
    for axes in (figure.axes[2], figure.axes[5]):
        assert len(axes.texts) == 10
        assert not overlaps(axes.texts)


def test_latent_without_labels_shows_clusters():
    figure = scatter.plot_latent_spaces(views(), views(), None, ())
    assert words(figure).count("D") == 4  # in (b), (c), (e) and (f)


def test_latent_of_a_single_place():
    one = Projection(np.zeros((3, 3)), np.zeros(3), np.zeros(3, int), np.zeros((3, 2)))
    scatter.plot_latent_spaces(one, one, np.array([0, 1, 1]), ("a", "b")).draw_without_rendering()


@pytest.mark.parametrize("depth", [1, 16])
def test_model_shows_every_layer_with_shape_and_parameters(depth):
    figure = diagram.plot_model(network(depth), 5, "cross entropy")
    texts = words(figure)
    assert sum(text.startswith(f"layer {depth - 1}") for text in texts) == 2
    assert sum("8 × 4 × 2" in text for text in texts) == 2 * depth
    assert f"encoder, {sum(10 * i for i in range(depth)):,} parameters" in texts
    assert {"mean", "log-variance", "z = mean + σ · noise", "distortion: cross entropy"} <= set(texts)
    assert texts.count("5") == 2
    figure.draw_without_rendering()
    assert not overlaps(drawn(figure))
    assert not cut_off(figure)


def test_text_that_cannot_be_drawn_or_is_too_long_is_replaced(tmp_path):
    names = ("女性", "男性")
    title = "Übergänge von 女性 nach \ud800 男性, $x_1$ \t und " + "weiter " * 40 + "Wort" * 60
    figure = tiles.plot_interpolations(patches(2, 2), patches(2, 4), (0, 0.25, 0.5, 1), names, title)
    assert not cut_off(figure)
    read(figure, tmp_path)  # a warning about missing glyphs would be an error
    heads = words(figure)[1:3] if words(figure)[0].startswith("Üb") else words(figure)[:2]
    assert len(set(heads)) == 2


def test_figures_are_drawn_in_threads(tmp_path):
    def draw(i):
        return layout.save_figure(tiles.plot_grid(patches(6), "title"), tmp_path / f"{i}.png")[0].read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(draw, range(8)))) == 1


def test_save_refuses_an_unknown_format_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="png"):
        layout.save_figure(tiles.plot_grid(patches(2)), tmp_path / "figure.pgn")
    figure = tiles.plot_grid(patches(2))
    figure.savefig = lambda *_, **__: (_ for _ in ()).throw(OSError("no room"))
    (tmp_path / "old.png").write_bytes(b"old")
    with pytest.raises(OSError, match="no room"):
        layout.save_figure(figure, tmp_path / "old.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_no_images_is_said():
    with pytest.raises(UserError, match="no images"):
        tiles.plot_grid(np.zeros((0, 1, 8, 8)))
    with pytest.raises(UserError, match="no frames"):
        tiles.save_animation([], None)


def test_animation_runs_forth_and_back(tmp_path):
    frames = [np.full((1, 8, 8), i / 4) for i in range(5)]
    frames[2] = np.random.default_rng(0).random((1, 8, 8))
    path = tiles.save_animation(frames, tmp_path / "new" / "path.gif", milliseconds=50)
    seen = []
    with Image.open(path) as gif:
        factor = gif.width // 8
        assert gif.size == (8 * factor, 8 * factor)
        assert factor > 1
        for i in range(gif.n_frames):
            gif.seek(i)
            assert gif.info["duration"] == 50
            seen.append(np.asarray(gif.convert("RGB"))[::factor, ::factor, 0])
    expected = [np.rint(frames[i][0] * 255) for i in (0, 1, 2, 3, 4, 3, 2, 1)]
    assert np.array_equal(seen, expected)
