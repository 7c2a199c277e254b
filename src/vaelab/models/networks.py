r"""Networks: encoders and decoders, plain `nn.Module`s built from the image shape.

A network is a frozen dataclass, its own configuration: `encoder(shape, latent_dim)` maps images (B, C, H, W) to
(B, 2 D), the mean and the log-variance of q(z|x); `decoder(shape, latent_dim)` maps codes (B, D) to (B, C, H, W), where
C counts the numbers that the likelihood asks for. The decoder is the encoder read backwards. Any shape goes, from 8 to
256 pixels a side, not only squares and powers of two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import nn

from vaelab.core.constraints import Count, Natural
from vaelab.core.errors import UserError

__all__ = ["Conv", "Mlp", "Network", "Shape", "ValidConv", "linear_layers"]

Shape = tuple[int, int, int]  # channels, height, width


def linear_layers(widths: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    """Linear layers through `widths`, with activations between them but not after the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return layers[:-1]


@torch.no_grad()
def kaiming_init(layers: Sequence[nn.Module]) -> Sequence[nn.Module]:
    """Weights from N(0, 2 / n) for n inputs of a unit, 1 / n in the last layer, after which no ReLU follows; biases 0.

    Source: Delving Deep into Rectifiers, arXiv 1502.01852.
    """
    weighted = [m for m in layers if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    for layer in weighted:
        upwards = isinstance(layer, nn.ConvTranspose2d)
        inputs = layer.weight[:, 0].numel() / math.prod(layer.stride) if upwards else layer.weight[0].numel()
        nn.init.normal_(layer.weight, std=math.sqrt((1 if layer is weighted[-1] else 2) / inputs))
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    return layers


@dataclass(frozen=True)
class Mlp:
    """Fully connected: the flattened image through the `hidden` widths; without any, a linear model."""

    name: ClassVar[str] = "mlp"
    hidden: tuple[Count, ...] = (400,)
    activation: Literal["relu", "tanh"] = field(default="relu", metadata={"legacy": "relu"})

    def encoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), *self._dense([math.prod(shape), *self.hidden, 2 * latent_dim]))

    def decoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        widths = [latent_dim, *reversed(self.hidden), math.prod(shape)]
        return nn.Sequential(*self._dense(widths), nn.Unflatten(1, shape))

    def _dense(self, widths: Sequence[int]) -> list[nn.Module]:
        return linear_layers(widths, {"relu": nn.ReLU, "tanh": nn.Tanh}[self.activation])


@dataclass(frozen=True)
class Conv:
    """Strided convolutions: each 4x4 layer halves the sides; the decoder doubles them back to the exact shape.

    `widths` are the channels after each layer. Without any, they follow from the image: 32, 64, 128, 256, 256, ...
    until the smaller side is about 4 pixels. `init` "he" draws weights that keep the size of the signal from layer to
    layer; with PyTorch's own ("torch") it fades, and a few thousand images often end in posterior collapse.
    """

    name: ClassVar[str] = "conv"
    widths: tuple[Count, ...] = ()
    init: Literal["he", "torch"] = field(default="he", metadata={"legacy": "torch"})

    def feature_shapes(self, shape: Shape) -> list[Shape]:
        """The image's shape, then the shape after each layer."""
        side = min(shape[1:])
        depth = max(2, math.ceil(math.log2(side / 4)))
        widths = self.widths or tuple(min(32 * 2**i, 256) for i in range(depth))
        if side < 2 ** len(widths):
            raise UserError(
                f"network conv with {len(widths)} layers halves the sides {len(widths)} times, but the images are "
                f"{shape[1]} x {shape[2]}; give at most {int(math.log2(side))} widths"
            )
        return [shape, *((w, shape[1] >> i, shape[2] >> i) for i, w in enumerate(widths, start=1))]

    def encoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        stages = self.feature_shapes(shape)
        layers: list[nn.Module] = []
        for before, after in pairwise(stages):
            layers += [nn.Conv2d(before[0], after[0], 4, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(math.prod(stages[-1]), 2 * latent_dim)]
        return nn.Sequential(*(kaiming_init(layers) if self.init == "he" else layers))

    def decoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        stages = self.feature_shapes(shape)[::-1]
        layers: list[nn.Module] = [nn.Linear(latent_dim, math.prod(stages[0])), nn.Unflatten(1, stages[0])]
        for before, after in pairwise(stages):
            odd = (after[1] - 2 * before[1], after[2] - 2 * before[2])  # the row or column that halving dropped
            layers += [nn.ReLU(), nn.ConvTranspose2d(before[0], after[0], 4, stride=2, padding=1, output_padding=odd)]
        return nn.Sequential(*(kaiming_init(layers) if self.init == "he" else layers))


@dataclass(frozen=True)
class ValidConv:
    """The face network of report A (rows A1, A2): two 3x3 convolutions without padding, then fully connected.

    At 32x32 RGB: 3 -> `channels` (30x30) -> 32 (28x28), flattened 25,088 -> `hidden` -> mean and log-variance. The
    decoder reverses each step. The report leaves `channels` and the decoder's own hidden layer open. `hidden` 0 is
    the ablation: heads straight from the 25,088 features.
    """

    name: ClassVar[str] = "report-a"
    channels: Count = 16
    hidden: Natural = 512

    def feature_shapes(self, shape: Shape) -> list[Shape]:
        return [shape, (self.channels, shape[1] - 2, shape[2] - 2), (32, shape[1] - 4, shape[2] - 4)]

    def encoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        stages = self.feature_shapes(shape)
        layers: list[nn.Module] = []
        for before, after in pairwise(stages):
            layers += [nn.Conv2d(before[0], after[0], 3), nn.ReLU()]
        widths = [math.prod(stages[-1]), self.hidden, 2 * latent_dim]
        return nn.Sequential(*layers, nn.Flatten(), *linear_layers([w for w in widths if w]))

    def decoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        stages = self.feature_shapes(shape)[::-1]
        widths = [latent_dim, self.hidden, math.prod(stages[0])]
        layers: list[nn.Module] = [*linear_layers([w for w in widths if w]), nn.Unflatten(1, stages[0])]
        for before, after in pairwise(stages):
            layers += [nn.ReLU(), nn.ConvTranspose2d(before[0], after[0], 3)]
        return nn.Sequential(*layers)


Network = Mlp | Conv | ValidConv
