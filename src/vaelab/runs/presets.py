"""Presets: named settings for well-known VAEs and data sets."""

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
    "textbook": Spec(network=Mlp(), latent_dim=20, distortion=CrossEntropy(), epochs=10, validation=0.0),
    # The same network and loss at the textbook's figure in a quarter of its steps: larger batches, a learning rate that
    # rises to 20 times the textbook's and falls to 0. Chosen on 10,000 training images that were held out.
    "fast": Spec(
        network=Mlp(),
        latent_dim=20,
        distortion=CrossEntropy(),
        epochs=4,
        validation=0.0,
        batch_size=192,
        lr=0.02,
        schedule="linear",
        lr_warmup=0.2,
    ),
    # Report A on faces, row A5 read as the sum over pixels; it leaves learning rate and batch size open.
    "faces": Spec(
        size=32,
        network=ValidConv(),
        latent_dim=64,
        distortion=SquaredError(),
        objective=BetaVAE(kl_weight=0.5),
        epochs=80,
    ),
    # Report B on MNIST; it leaves architecture, epochs and batch size open. Initial weights as PyTorch draws them.
    "mnist": Spec(
        network=Conv(widths=(32, 64, 128), init="torch"), latent_dim=128, distortion=CrossEntropy(), epochs=10, lr=5e-4
    ),
}

PRESETS["cifar10"] = replace(PRESETS["mnist"], epochs=20)  # report B on CIFAR-10

ALIASES = {"report-a": "faces", "report-b": "mnist"}


def get_preset(name: str | None, data: str) -> Spec:
    """The preset called `name` for `data`, or the default spec.

    Args:
        name: A preset or an alias; None for the default. `report-b` is the preset of MNIST or CIFAR-10, as the data
            are.
        data: What the spec shall be trained on.

    Raises:
        UserError: There is no preset of that name.

    Example:
        >>> get_preset("textbook", "mnist").latent_dim
        20
    """
    if name is None:
        return Spec(data=data)
    preset = ALIASES.get(name, name)
    if name == "report-b" and PurePath(data).name == "cifar10":
        preset = "cifar10"
    if preset not in PRESETS:
        raise unknown_name_error("preset", name, [*PRESETS, *ALIASES])
    return replace(PRESETS[preset], data=data)
