"""Embedding: images -> a table of their posteriors, for use outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vaelab.core.console import progress
from vaelab.datasets.images import Dataset, Images
from vaelab.evaluation.metrics import batches
from vaelab.models.vae import VAE

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["embedding_table"]


def embedding_table(model: VAE, dataset: Dataset) -> pa.Table:
    """One row an image, split after split: path or index, split, label, mean_0..., logvar_0..., error.

    `error` is the mean squared error of the mean reconstruction, per pixel value: large for images unlike the known.
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
    where = [images.name(i) for i in range(len(images))] if images.names is not None else images.rows
    columns = {"path" if images.names is not None else "index": where, "split": [images.split] * len(images)}
    if images.labels is not None:
        columns["label"] = pa.array([images.categories[i] if i >= 0 else None for i in images.label()])
    for name, parts in (("mean", means), ("logvar", logvars)):
        values = np.concatenate([p.numpy() for p in parts])
        columns |= {f"{name}_{d}": values[:, d] for d in range(values.shape[1])}
    return pa.table(columns | {"error": np.concatenate([e.numpy() for e in errors])})
