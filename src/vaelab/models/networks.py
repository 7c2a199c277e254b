r"""Networks: encoders and decoders, built from the shape of the images.

A network is a frozen dataclass, its own configuration. `encoder(shape, latent_dim)` gives a module that maps images
(B, C, H, W) to (B, 2 D): the mean and the log-variance of q(z|x). `decoder(shape, latent_dim)` gives a module that maps
codes (B, D) to (B, C, H, W), where C counts the numbers that the likelihood asks for. The decoder has the layers of the
encoder in reverse. Every shape from 8 to 256 pixels a side works, not only squares and powers of two.

A new network is one class in any module of this package, derived from `Network`, with a `name` of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vaelab.core.constraints import Count, Natural
from vaelab.core.errors import UserError

__all__ = [
    "Conv",
    "Init",
    "Mlp",
    "Network",
    "Shape",
    "ValidConv",
    "WithLinearPath",
    "initialise",
    "linear_layers",
    "set_output_bias",
]

Shape = tuple[int, int, int]  # channels, height, width

Init = Literal["torch", "he", "glorot"]

WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


@dataclass(frozen=True)
class Network:
    """The base class of all networks, each a frozen dataclass with a `name`.

    Args:
        init: How weights are drawn, see `initialise`.
        output_bias: Where the decoder's output starts: "mean" at the mean training image, so that the first steps are
            not spent on it; "init" at 0, or where PyTorch draws the bias.
        inputs: What the encoder sees: "unit" the pixels in [0, 1]; "centred" 4 x - 2, which for photographs has a mean
            near 0 and a standard deviation near 1. Adam then learns what distinguishes images several times faster.
    """

    name: ClassVar[str]
    init: Init = field(default="torch", kw_only=True, metadata={"legacy": "torch"})
    output_bias: Literal["init", "mean"] = field(default="init", kw_only=True, metadata={"legacy": "init"})
    inputs: Literal["unit", "centred"] = field(default="unit", kw_only=True, metadata={"legacy": "unit"})

    def encoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        """The encoder.

        Args:
            shape: Channels, height and width of an image.
            latent_dim: The number of latent dimensions D.

        Returns:
            A module that maps images (B, C, H, W) to means and log-variances, (B, 2 D).

        Raises:
            UserError: If the network cannot be built for this shape.
        """
        raise NotImplementedError

    def decoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        """The decoder.

        Args:
            shape: Channels, height and width of the output; the likelihood may ask for several numbers a pixel value.
            latent_dim: The number of latent dimensions D.

        Returns:
            A module that maps codes (B, D) to (B, C, H, W).

        Raises:
            UserError: If the network cannot be built for this shape.
        """
        raise NotImplementedError

    def assemble(self, *layers: nn.Module) -> nn.Sequential:
        """The layers as one module, with weights as `init` says: how a network ends its `encoder` and `decoder`."""
        initialise(layers, self.init)
        return nn.Sequential(*layers)


class WithLinearPath(nn.Module):
    """Layers and, beside them, one linear layer from the same input to the same output; the two are added.

    Args:
        layers: The layers.
        linear: The linear layer, with what it needs to take the input and give the output.
    """

    def __init__(self, layers: nn.Sequential, linear: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.linear(x)


def linear_layers(widths: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    """Linear layers through the widths, with activations between them but not after the last.

    Args:
        widths: The number of inputs, of hidden units in each layer, and of outputs.
        activation: The class of the activations.

    Returns:
        The layers in order.

    Example:
        >>> linear_layers([3, 5, 2])
        [Linear(in_features=3, out_features=5, bias=True), ReLU(), Linear(in_features=5, out_features=2, bias=True)]
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return layers[:-1]


@torch.no_grad()
def initialise(layers: Sequence[nn.Module], init: Init) -> None:
    """Draw the weights of an encoder or a decoder anew; biases become 0, except with "torch".

    - "torch" leaves what PyTorch drew: uniform within 1 / sqrt(n) for units of n inputs. The signal fades from layer to
      layer, and a model of a few thousand images often ends in posterior collapse.
    - "he" draws from N(0, 2 / n), which keeps the size of the signal through ReLU, and from N(0, 1 / n) in the last
      layer, which no ReLU follows.
    - "glorot" draws uniformly within sqrt(6 / (n + m)), where m counts the outputs that an input reaches: between the
      sizes that keep the signal and the gradient.

    Args:
        layers: The layers in order; only those with weights count.
        init: How weights are drawn.

    Sources: Delving Deep into Rectifiers, arXiv 1502.01852; Understanding the difficulty of training deep feedforward
    neural networks, Glorot and Bengio 2010.
    """
    if init == "torch":
        return
    weighted = [layer for layer in layers if isinstance(layer, WEIGHTED)]
    if any(layer.weight.is_meta for layer in weighted):
        return  # there are no values to draw, and to pretend to draw them imports torch's compiler, a second
    for layer in weighted:
        if init == "he":
            gain = 1 if layer is weighted[-1] else 2
            nn.init.normal_(layer.weight, std=math.sqrt(gain / _inputs_per_unit(layer)))
        else:
            nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


@torch.no_grad()
def set_output_bias(decoder: nn.Module, output: Tensor) -> None:
    """Set the bias of a decoder's last layer.

    Args:
        decoder: A decoder that ends with a layer that has a bias.
        output: What the decoder shall give where all else is 0, (C, H, W). A convolution has one bias for all pixels of
            a channel, and gets their mean.
    """
    bias = [module for module in decoder.modules() if isinstance(module, WEIGHTED)][-1].bias
    if bias is None:
        return
    per_pixel = bias.numel() == output.numel()
    bias.copy_(output.flatten() if per_pixel else output.mean((1, 2)))


def _inputs_per_unit(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> float:
    """How many inputs a unit of a layer sums over; a mean over positions for a transposed convolution."""
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.weight[:, 0].numel() / math.prod(layer.stride)
    return layer.weight[0].numel()


@dataclass(frozen=True)
class Mlp(Network):
    """A multilayer perceptron on the flattened image; without hidden layers, a linear model.

    Args:
        hidden: The widths of the encoder's hidden layers; the decoder has them in reverse.
        activation: Between the layers.

    Example:
        >>> Mlp(hidden=(5,)).encoder((1, 2, 2), latent_dim=3)
        Sequential(
          (0): Flatten(start_dim=1, end_dim=-1)
          (1): Linear(in_features=4, out_features=5, bias=True)
          (2): ReLU()
          (3): Linear(in_features=5, out_features=6, bias=True)
        )
    """

    name: ClassVar[str] = "mlp"
    hidden: tuple[Count, ...] = (400,)
    activation: Literal["relu", "tanh"] = field(default="relu", metadata={"legacy": "relu"})

    def encoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        widths = [math.prod(shape), *self.hidden, 2 * latent_dim]
        return self.assemble(nn.Flatten(), *linear_layers(widths, ACTIVATIONS[self.activation]))

    def decoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        widths = [latent_dim, *reversed(self.hidden), math.prod(shape)]
        return self.assemble(*linear_layers(widths, ACTIVATIONS[self.activation]), nn.Unflatten(1, shape))


@dataclass(frozen=True)
class Conv(Network):
    """Strided convolutions: each 4x4 layer halves the sides, and the decoder doubles them back to the exact shape.

    Args:
        widths: The channels after each layer. Without any, they follow from the image: 32, 64, 128, 256, 256, ...
            until the smaller side is about 4 pixels.
        linear_path: Whether a linear layer from pixels to codes is added to the encoder, and one from codes to pixels
            to the decoder. The model then contains the linear ones, and with them PCA.

    Example:
        >>> Conv().feature_shapes((3, 32, 32))
        [(3, 32, 32), (32, 16, 16), (64, 8, 8), (128, 4, 4)]
    """

    name: ClassVar[str] = "conv"
    widths: tuple[Count, ...] = ()
    init: Init = field(default="he", kw_only=True, metadata={"legacy": "torch"})
    linear_path: bool = field(default=False, metadata={"legacy": False})

    def feature_shapes(self, shape: Shape) -> list[Shape]:
        """The shape of the image, then the shape after each layer.

        Raises:
            UserError: If there are more layers than the sides can be halved.
        """
        channels, height, width = shape
        side = min(height, width)
        widths = self.widths or default_widths(side)
        if side < 2 ** len(widths):
            raise UserError(
                f"network conv with {len(widths)} layers halves the sides {len(widths)} times, but the images are "
                f"{height} x {width}; give at most {int(math.log2(side))} widths"
            )
        shapes = [(channels, height, width)]
        for layer, channels_after in enumerate(widths, start=1):
            shapes.append((channels_after, height >> layer, width >> layer))
        return shapes

    def encoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        shapes = self.feature_shapes(shape)
        layers: list[nn.Module] = []
        for before, after in pairwise(shapes):
            layers += [nn.Conv2d(before[0], after[0], 4, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(math.prod(shapes[-1]), 2 * latent_dim)]
        convolutions = self.assemble(*layers)
        if not self.linear_path:
            return convolutions
        linear = self.assemble(nn.Flatten(), nn.Linear(math.prod(shape), 2 * latent_dim))
        return nn.Sequential(WithLinearPath(convolutions, linear))

    def decoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        shapes = self.feature_shapes(shape)[::-1]
        layers: list[nn.Module] = [nn.Linear(latent_dim, math.prod(shapes[0])), nn.Unflatten(1, shapes[0])]
        for before, after in pairwise(shapes):
            dropped = (after[1] - 2 * before[1], after[2] - 2 * before[2])  # the row or column that halving dropped
            upsample = nn.ConvTranspose2d(before[0], after[0], 4, stride=2, padding=1, output_padding=dropped)
            layers += [nn.ReLU(), upsample]
        convolutions = self.assemble(*layers)
        if not self.linear_path:
            return convolutions
        linear = self.assemble(nn.Linear(latent_dim, math.prod(shape)), nn.Unflatten(1, shape))
        return nn.Sequential(WithLinearPath(convolutions, linear))


def default_widths(side: int) -> tuple[int, ...]:
    """Channels after each layer for images whose smaller side is `side` pixels."""
    depth = max(2, math.ceil(math.log2(side / 4)))
    return tuple(min(32 * 2**layer, 256) for layer in range(depth))


@dataclass(frozen=True)
class ValidConv(Network):
    """The face network of report A (rows A1, A2): two 3x3 convolutions without padding, then fully connected layers.

    At 32x32 RGB: 3 -> `channels` (30x30) -> 32 (28x28), flattened 25,088 -> `hidden` -> mean and log-variance. The
    decoder reverses each step. The report leaves `channels` and the decoder's own hidden layer open.

    Args:
        channels: The channels after the first convolution.
        hidden: The width of the hidden layer. 0 is the ablation: mean and log-variance from the 25,088 features.
    """

    name: ClassVar[str] = "report-a"
    short: ClassVar[tuple[str, ...]] = ("valid-conv",)
    channels: Count = 16
    hidden: Natural = 512

    def feature_shapes(self, shape: Shape) -> list[Shape]:
        """The shape of the image, then the shape after each convolution."""
        channels, height, width = shape
        return [
            (channels, height, width),
            (self.channels, height - 2, width - 2),
            (32, height - 4, width - 4),
        ]

    def encoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        shapes = self.feature_shapes(shape)
        layers: list[nn.Module] = []
        for before, after in pairwise(shapes):
            layers += [nn.Conv2d(before[0], after[0], 3), nn.ReLU()]
        widths = self._widths(math.prod(shapes[-1]), 2 * latent_dim)
        return self.assemble(*layers, nn.Flatten(), *linear_layers(widths))

    def decoder(self, shape: Shape, latent_dim: int) -> nn.Sequential:
        shapes = self.feature_shapes(shape)[::-1]
        widths = self._widths(latent_dim, math.prod(shapes[0]))
        layers: list[nn.Module] = [*linear_layers(widths), nn.Unflatten(1, shapes[0])]
        for before, after in pairwise(shapes):
            layers += [nn.ReLU(), nn.ConvTranspose2d(before[0], after[0], 3)]
        return self.assemble(*layers)

    def _widths(self, inputs: int, outputs: int) -> list[int]:
        """The widths of the fully connected layers."""
        return [inputs, self.hidden, outputs] if self.hidden else [inputs, outputs]
