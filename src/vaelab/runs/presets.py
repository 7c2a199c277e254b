"""Presets: named settings for the textbook VAE and for the two reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath

from vaelab.core.errors import unknown_name_error
from vaelab.models.likelihoods import CrossEntropy, SquaredError
from vaelab.models.networks import Conv, Mlp, ValidConv
from vaelab.objectives.elbo import BetaVAE
from vaelab.runs.spec import Spec

__all__ = ["PRESETS", "get_preset"]

PRESETS: dict[str, Spec] = {
    # The VAE of the PyTorch examples.
    "textbook": Spec(network=Mlp(), latent_dim=20, loss=CrossEntropy(), epochs=10, validation=0.0),
    # The same network and loss at the textbook's figure in a quarter of its steps: larger batches, a learning rate that
    # rises to 20 times the textbook's and falls to 0. Chosen on 10,000 training images that were held out.
    "fast": Spec(
        network=Mlp(),
        latent_dim=20,
        loss=CrossEntropy(),
        epochs=4,
        validation=0.0,
        batch_size=192,
        lr=0.02,
        schedule="linear",
        lr_warmup=0.2,
    ),
    # Report A, row A5 read as the sum over pixels; learning rate and batch size are open there.
    "report-a": Spec(
        size=32, network=ValidConv(), latent_dim=64, loss=SquaredError(), objective=BetaVAE(kl_weight=0.5), epochs=80
    ),
    # Report B: architecture, epochs and batch size are open there; initial weights as PyTorch draws them.
    "report-b": Spec(
        network=Conv(widths=(32, 64, 128), init="torch"), latent_dim=128, loss=CrossEntropy(), epochs=10, lr=5e-4
    ),
}

PRESETS["report-b on cifar10"] = replace(PRESETS["report-b"], epochs=20)


def get_preset(name: str | None, data: str) -> Spec:
    """The preset called `name` for `data`, or the default spec."""
    if name is None:
        return Spec(data=data)
    named = f"{name} on {PurePath(data).name}"
    if named not in PRESETS and name not in PRESETS:
        raise unknown_name_error("preset", name, (n for n in PRESETS if " on " not in n))
    return replace(PRESETS.get(named) or PRESETS[name], data=data)
