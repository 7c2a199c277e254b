r"""Interactive figures of a study: runs become plain data for the script of its document, and pictures that it holds.

    curves      the mean and standard deviation over seeds of every term, for each setting
    features    the same images as points in several spaces, with a thumbnail of each
    paths       strips of pictures from one image to another, for a slider

Only the data are made here; templates/report.js draws them in the colours of the page. Pictures go into a mapping from
name to file, each once however often it is shown, and `fitted` makes them small enough for one document.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from vaelab.analysis.baseline import display_split
from vaelab.analysis.registry import read_analysis_arrays
from vaelab.core.errors import UserError
from vaelab.figures import layout
from vaelab.figures.layout import color_palette
from vaelab.figures.tiles import as_rgb
from vaelab.runs.run import Run
from vaelab.studies.quantities import Curve
from vaelab.studies.results import SettingResult

__all__ = ["ReportAssets", "curves_payload", "features_payload", "interpolations_payload", "shrink_to_budget"]

PAYLOAD_SPACES = {"raw": "raw pixels", "codes": "encoder means", "classifier": "classifier"}

PAYLOAD_TERMS = {
    "cross_entropy": ("Cross entropy", "nats per image"),
    "squared_error": ("Squared error", "sum over an image"),
    "kl": ("KL", "nats per image"),
    "negative_elbo": ("Negative ELBO", "nats per image"),
    "loss": ("Loss", "as trained, per image"),
}

CLOUD_POINTS = 2000  # of a cloud, in the document

THUMBNAIL_SIDE, TILE_SIDE = 32, 96  # pixels: the side of a thumbnail and of a picture on a path at most

QUALITY_STEPS = ((85, 1.0), (60, 0.5), (40, 0.25))  # quality and scale of pictures for which there is no room


class ReportAssets(NamedTuple):
    """What several figures show and the page holds once, by name: files of pictures, and clouds of points."""

    images: dict[str, bytes]
    point_clouds: dict[str, dict[str, Any]]


# Curves


def curves_payload(outcomes: Sequence[SettingResult]) -> dict[str, Any] | None:
    """The curves of the settings of an experiment under a reading; None where there are none."""
    settings = [o for o in outcomes if o.records]
    if not settings:
        return None
    terms = {term: found for term in PAYLOAD_TERMS if (found := _term_curves(settings, term))}
    if not _have_same_loss(settings) or len(terms) == 1:
        terms.pop("loss", None)
    if not terms:
        return None
    rows = [row for o in settings for r in o.records.values() for row in r.history]
    colours = layout.assign_colors([o.name for o in outcomes])  # of all settings: as they are in other figures
    return {
        "seeds": max(len(o.records) for o in settings),
        "split": "validation" if any(row["validation"] for row in rows) else "training",
        "names": [o.name or "base" for o in settings],
        "colours": [colours.get(o.name, "#000000") for o in settings],
        "terms": {
            t: {"name": PAYLOAD_TERMS[t][0], "unit": PAYLOAD_TERMS[t][1], "lines": lines} for t, lines in terms.items()
        },
    }


def _have_same_loss(outcomes: Sequence[SettingResult]) -> bool:
    """Whether all settings are trained on the same quantity, so that their losses can be compared."""
    specs = [next(iter(o.runs.values())).spec for o in outcomes]
    return len({(spec.loss, spec.objective) for spec in specs}) == 1


def _term_curves(outcomes: Sequence[SettingResult], term: str) -> list[list[list[float | None]] | None] | None:
    """For each setting [epochs, means, deviations, seeds] of a term, None for those without; None if all are."""
    lines = []
    for o in outcomes:
        try:
            lines.append(_mean_and_deviation_curve([record.curve(term) for record in o.records.values()]))
        except UserError:  # an objective of which there is no bound, say
            lines.append(None)
    return lines if any(lines) else None


def _mean_and_deviation_curve(seeds: Sequence[Curve]) -> list[list[float | None]]:
    by_epoch: dict[float, list[float]] = {}
    for curve in seeds:
        for epoch, value in curve:
            by_epoch.setdefault(epoch, []).append(value)
    epochs = sorted(by_epoch)
    means = [_round_finite(float(np.mean(by_epoch[e]))) for e in epochs]
    deviations = [_round_finite(float(np.std(by_epoch[e], ddof=1))) if len(by_epoch[e]) > 1 else None for e in epochs]
    return [[_round_finite(e) for e in epochs], means, deviations, [len(by_epoch[e]) for e in epochs]]


def _round_finite(value: float) -> float | None:
    """Five digits, or none where a run diverged: JSON has no NaN."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


# Features


def features_payload(outcome: SettingResult, assets: ReportAssets) -> dict[str, Any] | None:
    """Clouds of the images of the first run that was examined, at most `POINTS` of them; None where none was."""
    run, found = _first_analysed(outcome, "features")
    spaces = [space for space in PAYLOAD_SPACES if f"{space}_pca" in found and f"{space}_tsne" in found]
    if run is None or not spaces:
        return None
    total = len(found[f"{spaces[0]}_pca"])
    kept = np.linspace(0, total - 1, min(total, CLOUD_POINTS)).astype(np.int64)
    labels = found.get("labels", np.full(total, -1))[kept].astype(int)
    names = [str(name) for name in run.origin["data"].get("categories", ())]
    colours = _hex_palette(len(names))
    if (labels < 0).any():
        labels, names, colours = np.where(labels < 0, len(names), labels), [*names, "unlabelled"], [*colours, "#8c8c8c"]
    return {
        "total": total,
        "points": len(kept),
        "seed": next(s for s, r in outcome.runs.items() if r is run),
        "labels": labels.tolist(),
        "names": names if names != ["unlabelled"] else [],
        "colours": colours,
        "spaces": {
            space: {"name": PAYLOAD_SPACES[space], "cloud": _point_cloud(found, space, kept, assets)}
            for space in spaces
        },
        "thumbs": _thumbnails(run, found["rows"][kept], assets.images) if "rows" in found else None,
    }


def _first_analysed(outcome: SettingResult, analysis: str) -> tuple[Run | None, dict[str, np.ndarray]]:
    """The first run of an outcome that went through an examination, and what it left."""
    for run in outcome.runs.values():
        found = read_analysis_arrays(run, analysis)
        if found:
            return run, found
    return None, {}


def _point_cloud(arrays: Mapping[str, np.ndarray], space: str, kept: np.ndarray, assets: ReportAssets) -> str:
    """The name of a cloud, which is the same for all settings of raw pixels and of a classifier."""
    clusters = arrays.get(f"{space}_clusters", np.zeros(0, np.int64))
    count = int(clusters.max()) + 1 if len(clusters) else 0
    letters = [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(count)]
    cloud = {
        "variance": [round(100 * float(v), 1) for v in arrays.get(f"{space}_variance", ())],
        "pca": _scaled_coordinates(arrays[f"{space}_pca"], kept),
        "tsne": _scaled_coordinates(arrays[f"{space}_tsne"], kept),
        "clusters": clusters[kept].tolist() if count else [],
        "letters": letters,
        "colours": _hex_palette(count),
    }
    name = hashlib.blake2b(json.dumps(cloud).encode(), digest_size=6).hexdigest()
    assets.point_clouds[name] = cloud
    return name


def _hex_palette(count: int) -> list[str]:
    return [to_hex(colour) for colour in color_palette(count)[:count]]  # type: ignore[arg-type]


def _scaled_coordinates(points: np.ndarray, kept: np.ndarray) -> list[list[int]]:
    """Columns of whole numbers within 1,000 of 0, equally scaled: the axes bear no numbers, and digits cost room."""
    centred = np.nan_to_num(points.astype(np.float64))
    centred -= (centred.max(0) + centred.min(0)) / 2
    scale = 1000 / max(float(np.abs(centred).max()), 1e-12)
    return np.rint(centred[kept] * scale).astype(int).T.tolist()


def _thumbnails(run: Run, rows: np.ndarray, pictures: dict[str, bytes]) -> dict[str, Any] | None:
    """One sheet of all pictures at `rows`, shared by all figures of the same; None if they are gone.

    The sheet is almost a square: no side of a picture may be very long.
    """
    rows = np.ascontiguousarray(rows, np.int64)
    key = hashlib.blake2b(run.origin["data"]["fingerprint"].encode() + rows.tobytes(), digest_size=6).hexdigest()
    name = f"thumbs-{key}"
    columns = math.ceil(math.sqrt(len(rows)))
    if name not in pictures:
        try:
            images = display_split(run.dataset).uint8(rows)
        except (UserError, IndexError):
            return None
        tiles = [_shrink_image(image, THUMBNAIL_SIDE) for image in as_rgb(images)]
        lines = [np.concatenate(_pad_tiles(tiles[i : i + columns], columns), 1) for i in range(0, len(tiles), columns)]
        pictures[name] = _encode_image(np.concatenate(lines))
    return {"name": name, "columns": columns, "rows": math.ceil(len(rows) / columns)}


def _pad_tiles(tiles: list[np.ndarray], count: int) -> list[np.ndarray]:
    return tiles + [np.full_like(tiles[0], 255)] * (count - len(tiles))


# Paths between pictures


def interpolations_payload(outcome: SettingResult, name: str, assets: ReportAssets) -> dict[str, Any] | None:
    """A strip for each pair, the original of alpha 0 first and that of alpha 1 last; None where none was made."""
    run, found = _first_analysed(outcome, "interpolations")
    if run is None or "images" not in found or "originals" not in found:
        return None
    strips = np.concatenate([found["originals"][:, :1], found["images"], found["originals"][:, 1:]], 1)
    for i, strip in enumerate(as_rgb(strips)):
        assets.images[f"{name}-{i}"] = _encode_image(
            np.concatenate([_shrink_image(tile, TILE_SIDE) for tile in strip], 1)
        )
    categories = run.origin["data"].get("categories", ())
    ends = [str(categories[e]) if 0 <= e < len(categories) else "" for e in found.get("ends", np.full(2, -1)).tolist()]
    chances = found.get("probability", np.zeros((len(strips), 0))).astype(float)
    return {
        "seed": next(s for s, r in outcome.runs.items() if r is run),
        "ends": ends,
        "shape": strips.shape[-2:],
        "alphas": [round(a, 4) for a in found["alphas"].astype(float).tolist()],
        "pairs": [
            {"strip": f"{name}-{i}", "chances": [round(p, 3) for p in row]} for i, row in enumerate(chances.tolist())
        ],
    }


# Pictures: encoded, and small enough


def _shrink_image(image: np.ndarray, side: int) -> np.ndarray:
    """An image (H, W, 3), reduced where it is larger than `side`."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS))


def _encode_image(image: np.ndarray) -> bytes:
    """PNG, which shows pixels as they are, or WebP where that would be large; grey where all channels are the same."""
    grey = bool((image == image[..., :1]).all())
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image))
    written = io.BytesIO()
    picture.save(written, "PNG", optimize=True)
    return written.getvalue() if written.tell() < 2**18 else _encode_webp(picture, 85)


def _encode_webp(picture: Image.Image, quality: int, scale: float = 1.0) -> bytes:
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255):  # type: ignore[comparison-overlap]
        picture = picture.convert("RGB")
    written = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(written, "WEBP", quality=quality, method=4)
    return written.getvalue()


def shrink_to_budget(pictures: Mapping[str, bytes], budget: int) -> dict[str, str]:
    """data: URIs of pictures, `room` characters together: the largest are encoded anew until that holds."""
    kept = dict(pictures)
    for quality, scale in QUALITY_STEPS:
        for name in sorted(kept, key=lambda n: (-len(kept[n]), n)):
            if _data_uri_length(kept.values()) <= budget:
                break
            with Image.open(io.BytesIO(pictures[name])) as picture:
                kept[name] = min(kept[name], _encode_webp(picture, quality, scale), key=len)
    return {name: _data_uri(file) for name, file in kept.items()}


def _data_uri_length(files: Iterable[bytes]) -> int:
    return sum(len(file) * 4 // 3 + 40 for file in files)


def _data_uri(file: bytes) -> str:
    kind = "png" if file.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
