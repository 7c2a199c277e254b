"""Read back what a figure shows: its pixels, its texts, and whether these overlap or are cut off."""

import numpy as np
from matplotlib.text import Text
from PIL import Image

from vaelab.figures import layout


def patches(*shape):
    """Images (*shape, 3, 8, 8), each of one colour of its own."""
    count = int(np.prod(shape))
    colours = np.stack([np.arange(count) * 7 % 199 + 20, np.arange(count) * 5 + 10, np.full(count, 60)], 1)
    return np.broadcast_to(colours[:, :, None, None].astype(np.uint8), (count, 3, 8, 8)).reshape(*shape, 3, 8, 8)


def read(figure, folder):
    with Image.open(layout.save_figure(figure, folder / "figure.png")[0]) as picture:
        return np.asarray(picture.convert("RGB"))


def boxes(picture, images):
    """Where each one-coloured image lies: rows (top, left, height, width)."""
    found = []
    for colour in images.reshape(-1, 3, 8, 8)[:, :, 0, 0]:
        ys, xs = np.nonzero((picture == colour).all(-1))
        height, width = ys.max() - ys.min() + 1, xs.max() - xs.min() + 1
        assert len(ys) == height * width, "an image is not a whole rectangle"
        found.append((ys.min(), xs.min(), height, width))
    return np.array(found)


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def drawn(figure):
    """The texts on the page: matplotlib keeps labels of ticks outside of the axes, but draws none of them."""
    figure.draw_without_rendering()
    ticks = [
        (axis.get_view_interval(), tick)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
    ]
    hidden = {tick.label1 for (low, high), tick in ticks if not low <= tick.get_loc() <= high}
    return [text for text in figure.findobj(Text) if text.get_text() and text not in hidden]


def cut_off(figure):
    """The texts that reach beyond the figure."""
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in drawn(figure)]
    page = figure.bbox.padded(1)
    return [text for text, box in boxes if not all(page.contains(x, y) for x, y in box.corners())]


def overlaps(texts):
    """Pairs of texts that lie on each other; an annotation counts without its line."""
    boxes = [(text.get_text(), Text.get_window_extent(text).padded(-1)) for text in texts]
    return [(a, b) for i, (a, one) in enumerate(boxes) for b, other in boxes[:i] if one.overlaps(other)]
