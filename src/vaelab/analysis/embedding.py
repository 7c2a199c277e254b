"""Embedding: images -> a table of their posteriors, for use elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vaelab.core.console import progress
from vaelab.datasets.images import Dataset, Images
from vaelab.evaluation.metrics import batches, require_finite
from vaelab.models.vae import VAE

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["embedding_table"]


def embedding_table(model: VAE, dataset: Dataset) -> pa.Table:
    """The posteriors of all images of a data set.

    Args:
        model: The model.
        dataset: The images, as the model takes them.

    Returns:
        A row for each image, split after split, with the columns path or index, split, label, mean_0, ..., logvar_0,
        ... and error. `error` is the mean squared error of the mean reconstruction per pixel value; it is large for
        images that are unlike those of the training.

    Raises:
        UserError: A posterior or a reconstruction is not finite.
    """
    import pyarrow as pa

    return pa.concat_tables(_embed_split(model, images) for images in dataset.splits.values())


@torch.no_grad()
def _embed_split(model: VAE, images: Images) -> pa.Table:
    import pyarrow as pa

    means, logvars, errors = [], [], []
    with progress(f"embedding {images.split}", len(images)) as advance:
        for batch in batches(model, images):
            q = model.encode(batch.x)
            errors.append((model.decode_mean(q.mean) - batch.x).square().flatten(1).mean(1))
            means.append(q.mean)
            logvars.append(q.logvar)
            advance(batch.start + len(batch.x))
    mean, logvar, error = (torch.cat(parts).cpu() for parts in (means, logvars, errors))
    require_finite(mean, logvar, error)
    columns = _image_columns(images)
    for name, parameter in (("mean", mean), ("logvar", logvar)):
        for dimension in range(parameter.shape[1]):
            columns[f"{name}_{dimension}"] = parameter[:, dimension].numpy()
    columns["error"] = error.numpy()
    return pa.table(columns)


def _image_columns(images: Images) -> dict[str, object]:
    """The columns that say which images these are."""
    import pyarrow as pa

    columns: dict[str, object] = {}
    if images.names is None:
        columns["index"] = images.rows
    else:
        columns["path"] = [images.name(i) for i in range(len(images))]
    columns["split"] = [images.split] * len(images)
    if images.labels is not None:
        columns["label"] = pa.array([images.categories[label] if label >= 0 else None for label in images.label()])
    return columns
