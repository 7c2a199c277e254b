"""The layers of a model as a table: names, output shapes and numbers of parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaelab.models.networks import WithLinearPath
from vaelab.models.vae import VAE

__all__ = ["Layer", "layers"]


class Layer(NamedTuple):
    """One row of the table.

    Attributes:
        part: "encoder" or "decoder".
        name: What the layer is, in words.
        shape: The shape of its output for one image.
        parameters: How many weights it has.
    """

    part: str
    name: str
    shape: tuple[int, ...]
    parameters: int


@torch.no_grad()
def layers(model: VAE) -> list[Layer]:
    """The layers of encoder and decoder in order, with the shapes of their outputs for one image.

    Example:
        >>> from vaelab.models.likelihoods import Gaussian
        >>> from vaelab.models.networks import Mlp
        >>> layers(VAE(Mlp(hidden=()), Gaussian(), shape=(1, 8, 8), latent_dim=2))[1]
        Layer(part='encoder', name='fully connected', shape=(4,), parameters=260)
    """
    image = model.shared.new_zeros(1, *model.shape)
    code = model.shared.new_zeros(1, model.latent_dim)
    return _layers_of_part("encoder", model.encoder, image) + _layers_of_part("decoder", model.decoder, code)


def _layers_of_part(part: str, modules: nn.Module, x: Tensor) -> list[Layer]:
    """The layers of a sequence of modules, from its input x on."""
    rows: list[Layer] = []
    for child in modules.children():
        has_linear_path = isinstance(child, WithLinearPath)
        if has_linear_path:
            rows += _layers_of_part(part, child.layers, x)
        module = child.linear if has_linear_path else child
        x = module(x)
        parameters = sum(p.numel() for p in module.parameters())
        rows.append(Layer(part, layer_label(module), tuple(x.shape[1:]), parameters))
    return rows


LABELS: dict[type[nn.Module], str] = {
    nn.Linear: "fully connected",
    nn.Unflatten: "reshape",
    nn.ReLU: "ReLU",
    nn.Sequential: "plus linear path",
}


def layer_label(module: nn.Module) -> str:
    """The name of a layer in words."""
    match module:
        case nn.Conv2d():
            return f"convolution {kernel_text(module)}"
        case nn.ConvTranspose2d():
            return f"transposed convolution {kernel_text(module)}"
        case _:
            return LABELS.get(type(module), type(module).__name__.lower())


def kernel_text(module: nn.Conv2d | nn.ConvTranspose2d) -> str:
    """The size of a kernel, and its stride where it is not 1."""
    height, width = module.kernel_size
    stride = f", stride {module.stride[0]}" if module.stride[0] > 1 else ""
    return f"{height}x{width}{stride}"
