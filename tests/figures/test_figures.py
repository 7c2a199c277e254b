"""Figures: pixels arrive exactly and in order, words are there and fit, files are whole and the same each time."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest
from figure_reading import boxes, cut_off, drawn, overlaps, patches, read, words
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from vaelab.analysis.projections import Projection
from vaelab.core.errors import UserError
from vaelab.figures import animation, colors, curves, diagram, layout, scatter, text, tiles
from vaelab.figures.curves import MeanCurve
from vaelab.runs.spec import Spec, updated
from vaelab.studies.curves import run_curves, term_heading
from vaelab.studies.quantities import RunRecord


class Layer(NamedTuple):
    part: str
    name: str
    shape: tuple[int, ...]
    parameters: int


def history(count, validation=True, loss=3.5):
    terms = {"loss": loss, "cross_entropy": 1.5, "squared_error": 0.5, "kl": 0.2, "negative_elbo": 2.5, "kl_of_mean": 9}
    rows = [{name: value + 3 / epoch for name, value in terms.items()} for epoch in range(1, count + 1)]
    return [
        {"epoch": i, "step": i, "seconds": 1.0, "train": row, "validation": row if validation else {}}
        for i, row in enumerate(rows, start=1)
    ]


def plot_history(rows, title="", loss="se"):
    """The curves of a run with this history and this loss."""
    found = run_curves(RunRecord({}, rows, {}), updated(Spec(), {"loss": loss}))
    panels = {
        term_heading(term, found.loss_term): {split: MeanCurve(c.epochs, c.mean) for split, c in by.items()}
        for term, by in found.terms.items()
    }
    return curves.plot_curves(panels, colors.SPLIT_COLORS, title)


def views(count=60, seed=0, clusters=4):
    rng = np.random.default_rng(seed)
    return Projection(
        rng.normal(size=(count, 3)),
        np.array([0.5, 0.25, 0.125]),
        np.arange(count) % clusters,
        rng.normal(size=(count, 2)),
    )


def network(depth=3):
    sides = ((part, f"layer {i}", (8, 4, 2), 10 * i) for part in ("encoder", "decoder") for i in range(depth))
    return [Layer(*side) for side in sides]


X = patches(6)
EVERY = {
    "curves": lambda: plot_history(history(3), "a title"),
    "reconstructions": lambda: tiles.plot_reconstructions(X, X, "a title"),
    "grid": lambda: tiles.plot_grid(X, "a title"),
    "interpolations": lambda: tiles.plot_interpolations(
        X.reshape(3, 2, *X.shape[1:]), patches(3, 3), (0, 0.5, 1), ("cat", "dog"), "a title"
    ),
    "traversals": lambda: tiles.plot_traversals(patches(2, 3), ["z7  KL 3.1", "z0"], (-3, 0, 3), "a title"),
    "latent": lambda: scatter.plot_latent_spaces(
        views(), views(seed=1), np.arange(60) % 3, ("cat", "dog", "猫 $x$"), "a title"
    ),
    "epochs": lambda: tiles.plot_epochs(X, [(1, X), (20, X)], "a title"),
    "model": lambda: diagram.plot_model(network(), 32, "cross entropy", "a title"),
}


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
    path = ["z₂: woman\nα = 0", "\n0.2", "\n0.4", "\n0.6", "\n0.8", "z₁: man\nα = 1"]
    assert [head.get_text() for head in heads] == ["woman\noriginal", "man\noriginal", *path]
    # z = alpha z1 + (1 - alpha) z2: what is named z2 is the original of alpha = 0, on the left
    assert tiles.path_caption(("woman", "man")).endswith("z₂ (woman, α = 0) and z₁ (man, α = 1).")


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
    figure = plot_history(history(5))
    assert len(figure.axes) == 5
    figure.draw_without_rendering()
    for axes in figure.axes:
        labels = {text.get_text(): text for text in axes.texts}
        assert {"train", "validation"} <= set(labels)
        assert not overlaps([labels["train"], labels["validation"]])
        assert [len(line.get_xdata()) for line in axes.lines if line.get_clip_on()] == [5, 5]
    assert "Kl of mean" not in words(figure)


def test_no_curve_is_shown_twice_and_the_loss_is_said():
    figure = plot_history(history(5, loss=2.5))  # the negative ELBO
    assert "Loss" not in words(figure)
    assert words(figure).count("Negative ELBO") == 1
    assert "nats per image: the loss" in words(figure)


def test_a_likelihood_shows_its_own_distortion_in_place_of_that_of_another():
    figure = plot_history(history(3), loss="gaussian")
    assert {"Distortion", "Squared error", "KL"} <= set(words(figure))
    assert "Cross entropy" not in words(figure)
    panel = next(axes for axes in figure.axes if axes.get_title(loc="left") == "Distortion")
    assert panel.lines[0].get_ydata() == pytest.approx([2.3] * 3)  # negative ELBO - KL
    assert "Distortion" not in words(plot_history(history(3), loss="ce"))


def test_curves_of_one_epoch_have_markers_and_one_tick():
    figure = plot_history(history(1, validation=False))
    for axes in figure.axes:
        assert "validation" not in [text.get_text() for text in axes.texts]
        assert axes.lines[0].get_marker() == "o"
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_curves_survive_nan_and_refuse_an_empty_history():
    rows = history(3)
    rows[2]["train"] = dict.fromkeys(rows[2]["train"], float("nan"))
    plot_history(rows).draw_without_rendering()
    with pytest.raises(UserError, match="no epochs"):
        plot_history([])


def test_latent_has_six_lettered_panels_and_names_its_categories():
    names = ("cat", "dog", "an extremely long name of a category")
    figure = scatter.plot_latent_spaces(views(), views(seed=1), np.arange(60) % 3, names)
    texts = words(figure)
    assert [text[:3] for text in texts if text.startswith("(")] == [f"({letter})" for letter in "abcdef"]
    assert sum("50.0 + 25.0 + 12.5 = 87.5 %" in text for text in texts) == 2
    assert texts.count("cat") == texts.count("dog") == 3  # in both t-SNE panels and in the legend
    assert sum(text.startswith("an ext") and text.endswith("…") for text in texts) == 3
    figure.draw_without_rendering()
    assert not any(overlaps(axes.texts) for axes in figure.axes)


@pytest.mark.parametrize("count", [2, 10, 40])
def test_the_legend_has_the_colours_of_the_points_and_no_cluster_has_one_of_them(count):
    names = [f"category {i}" for i in range(count)]
    figure = scatter.plot_latent_spaces(views(120), views(120), np.arange(120) % count, names)
    legend, pca, kmeans = figure.axes[:3]
    dots = [to_hex(line.get_color()) for line in legend.lines]
    assert "category 0" in [text.get_text() for text in legend.texts]
    assert set(dots) <= {to_hex(color) for color in pca.collections[0].get_facecolor()}
    assert not set(dots) & {to_hex(color) for color in kmeans.collections[0].get_facecolor()}
    assert not cut_off(figure)
    assert len(legend.texts) <= 1 + 6 * 8


def test_names_at_one_place_are_moved_apart():
    crowd = views(100)._replace(tsne=np.random.default_rng(0).normal(size=(100, 2)) * 1e-3)
    names = [f"category {i}" for i in range(10)]
    figure = scatter.plot_latent_spaces(crowd, crowd, np.arange(100) % 10, names)
    figure.draw_without_rendering()
    assert not cut_off(figure)
    for axes in (figure.axes[3], figure.axes[6]):
        assert len(axes.texts) == 10
        assert not overlaps(axes.texts)


def test_latent_without_labels_shows_clusters():
    figure = scatter.plot_latent_spaces(views(), views(), None, ())
    assert words(figure).count("D") == 5  # in (b), (c), (e) and (f), and in the legend


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
    heads = [word for word in words(figure) if word.endswith("original")]
    assert len(set(heads)) == 2


def test_no_box_stands_for_a_character_that_no_font_has(monkeypatch):
    monkeypatch.setattr(text, "_fallback_families", lambda: ())
    text._family_of.cache_clear()
    try:
        assert text.drawable_text("猫 여성 ねこ Ａ\ud800\x1b") == "\\u732b yeoseong neko A\\ud800\\x1b"
        assert text.distinct_labels(["猫", "dog"]) == ["0 \\u732b", "dog"]
        assert text.text_width("猫", 8) > 0
    finally:
        text._family_of.cache_clear()


def test_a_font_that_has_a_character_is_found_among_the_installed_ones(monkeypatch):
    known = {"DejaVu Sans": frozenset(map(ord, "abc ")), "Other": frozenset(map(ord, "猫"))}
    monkeypatch.setattr(text, "_fallback_families", lambda: ("Other",))
    monkeypatch.setattr(text, "_characters_of", known.__getitem__)
    text._family_of.cache_clear()
    try:
        assert text.font_families("a猫") == ["DejaVu Sans", "Other"]
        assert text.drawable_text("a猫") == "a猫"
    finally:
        text._family_of.cache_clear()


@pytest.mark.parametrize("count", [2, 7, 11, 13, 30])
def test_captions_and_titles_fit_at_every_resolution(count):
    words_of_caption = "In each row one latent dimension varies by so many standard deviations around its mean. " * 4
    images = np.zeros((1, count, 1, 28, 28), np.uint8)
    figure = tiles.plot_traversals(images, ["z27"], np.arange(count), words_of_caption, caption=words_of_caption)
    assert not cut_off(figure)


def test_lines_of_a_title_are_of_about_equal_width():
    title = "mnist (2,000 training images): VAE, Gaussian likelihood, conv network, 32 latent dimensions, 3 epochs"
    lines = text.wrap_text(title, 6.8, 9, "bold")
    assert len(lines) == 2
    assert len(lines[1]) > 0.6 * len(lines[0])


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
        animation.save_animation([], None)


def test_animation_runs_forth_and_back(tmp_path):
    frames = [np.full((1, 8, 8), i / 4) for i in range(5)]
    frames[2] = np.random.default_rng(0).random((1, 8, 8))
    path = animation.save_animation(frames, tmp_path / "new" / "path.gif", milliseconds=50)
    seen = []
    with Image.open(path) as gif:
        factor = gif.width // 8
        assert gif.size == (8 * factor, 8 * factor)
        assert gif.width >= 128
        for i in range(gif.n_frames):
            gif.seek(i)
            assert gif.info["duration"] == 50
            seen.append(np.asarray(gif.convert("RGB"))[::factor, ::factor, 0])
    expected = [np.rint(frames[i][0] * 255) for i in (0, 1, 2, 3, 4, 3, 2, 1)]
    assert np.array_equal(seen, expected)


def test_animations_are_labelled_and_several_images_stand_in_a_square(tmp_path):
    frames = [np.zeros((4, 1, 8, 8)) for _ in range(3)]
    labels = animation.path_labels((0, 0.5, 1), ("猫", "dog"))
    assert labels[1] == "α = 0.50"
    assert labels[2] == "α = 1.00  z₁: dog"
    path = animation.save_animation(frames, tmp_path / "path.gif", labels=labels)
    strips = []
    with Image.open(path) as gif:
        assert gif.width == 2 * 128 + 4
        assert gif.height > gif.width
        for i in range(3):
            gif.seek(i)
            strips.append(np.asarray(gif.convert("L"))[: gif.height - gif.width])
    assert all(strip.min() < 100 for strip in strips)
    assert not np.array_equal(strips[0], strips[1])


def test_columns_follow_the_number_of_images():
    counts = range(1, 200)
    for count in counts:
        columns = tiles.grid_columns(count)
        rows = -(-count // columns)
        assert rows <= columns <= max(3 * rows, 5)
        assert columns * rows - count < columns
    assert [len(tiles.plot_grid(patches(n)).axes) for n in (1, 5)] == [1, 1]


# Contrast of the Web Content Accessibility Guidelines: 3 for graphics, 4.5 for text.


@pytest.mark.parametrize("count", [1, 3, 10, 11, 37, 200])
def test_palettes_contrast_with_every_background_and_keep_apart(count):
    categories, clusters = colors.category_palette(count), colors.cluster_palette(count)
    assert len(set(categories)) == len(set(clusters)) == count
    assert not set(categories) & set(clusters)
    ramp = list(colors.assign_colors([str(2**i) for i in range(count)]).values())
    for background in (colors.BACKGROUND, colors.PANEL):
        for color in (*categories, *clusters, *ramp, *colors.SPLIT_COLORS.values(), colors.GRID_COLOR):
            assert colors.contrast_ratio(color, background) >= 3
        for color in (colors.TEXT_COLOR, colors.MUTED_COLOR):
            assert colors.contrast_ratio(color, background) >= 4.5
    darkest_category = max(map(colors.contrast_ratio, categories))
    assert darkest_category < min(map(colors.contrast_ratio, clusters))


def test_text_in_boxes_of_the_diagram_contrasts():
    for fill in (diagram.ENCODER_FILL, diagram.DECODER_FILL, diagram.POSTERIOR_FILL):
        assert colors.contrast_ratio(colors.MUTED_COLOR, fill) >= 4.5


def test_lines_and_texts_of_figures_contrast():
    lines = {"a": MeanCurve(np.arange(1.0, 9), 3 / np.arange(1.0, 9), np.full(8, 0.01))}
    figures = [
        plot_history(history(5)),
        diagram.plot_model(network(), 32, "cross entropy"),
        curves.plot_curves({("KL", "nats"): lines}, colors.assign_colors(["a"])),
        scatter.plot_latent_spaces(views(), views(), np.arange(60) % 3, ("a", "b", "c")),
    ]
    for figure in figures:
        for drawn_object in (*figure.findobj(Text), *figure.findobj(Line2D)):
            if drawn_object.get_visible() and drawn_object.get_alpha() is None:
                assert colors.contrast_ratio(to_hex(drawn_object.get_color())) >= 3
