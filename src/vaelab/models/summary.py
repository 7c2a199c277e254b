"""The layers of a model as a table: names, output shapes and parameter counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaelab.models.vae import VAE

__all__ = ["Layer", "layers"]


class Layer(NamedTuple):
    """One row of the model's table: its part, what it is, the shape that leaves it and its number of parameters."""

    part: str
    name: str
    shape: tuple[int, ...]
    parameters: int


@torch.no_grad()
def layers(model: VAE) -> list[Layer]:
    """The layers of encoder and decoder in order, with the shapes that one image takes on its way through them."""

    def walk(part: str, modules: nn.Module, x: Tensor) -> Iterator[Layer]:
        for module in modules.children():
            x = module(x)
            yield Layer(part, layer_label(module), tuple(x.shape[1:]), sum(p.numel() for p in module.parameters()))

    x = model.shared.new_zeros(1, *model.shape)
    z = model.shared.new_zeros(1, model.latent_dim)
    return [*walk("encoder", model.encoder, x), *walk("decoder", model.decoder, z)]


def layer_label(module: nn.Module) -> str:
    """A layer in the words of the field."""
    match module:
        case nn.Conv2d() | nn.ConvTranspose2d():
            kind = "transposed convolution" if isinstance(module, nn.ConvTranspose2d) else "convolution"
            stride = f", stride {module.stride[0]}" if module.stride[0] > 1 else ""
            return f"{kind} {module.kernel_size[0]}x{module.kernel_size[1]}{stride}"
        case nn.Linear():
            return "fully connected"
        case nn.Unflatten():
            return "reshape"
        case _:
            return type(module).__name__ if isinstance(module, nn.ReLU) else type(module).__name__.lower()
