r"""The variational autoencoder: encoder, decoder, distortion and prior, put together.

    q(z|x) = N(mean(x), exp(logvar(x))),    z = mean + sigma * noise,    p(z) = N(0, 1),    params = decoder(z)

`VAE` is the only model class. It holds no randomness: noise comes in as an argument. Source: Auto-Encoding Variational
Bayes, arXiv 1312.6114.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaelab.densities import Normal
from vaelab.likelihoods import Distortion, Params
from vaelab.networks import Network, Shape

__all__ = ["LOGVAR", "VAE", "Draw", "Layer", "has_bfloat16", "layers"]

LOGVAR = (-20.0, 10.0)  # with KL weight 0 the posterior may shrink to a point: e^-10 is as small as sigma may become


class Draw(NamedTuple):
    """One pass through the model: the posterior q, the code z drawn from it and the decoder's output for z."""

    q: Normal
    z: Tensor
    params: Params


class VAE(nn.Module):
    """A variational autoencoder for images of `shape` (C, H, W) in [0, 1], with `latent_dim` latent dimensions D.

    `critic` is a network that some losses train beside it; it is put in after the model's own weights are drawn.
    """

    critic: nn.Module | None
    precision: torch.dtype | None = None  # in which the networks compute, where it is not that of their input

    def __init__(self, network: Network, distortion: Distortion, shape: Shape, latent_dim: int) -> None:
        super().__init__()
        self.critic = None
        self.distortion, self.shape, self.latent_dim = distortion, shape, latent_dim
        self.encoder = network.encoder(shape, latent_dim)
        self.decoder = network.decoder((distortion.channels * shape[0], *shape[1:]), latent_dim)
        shared = torch.tensor(distortion.shared)
        if len(shared) and distortion.learned:
            self.shared = nn.Parameter(shared)
        else:
            self.register_buffer("shared", shared, persistent=len(shared) > 0)

    def encode(self, x: Tensor) -> Normal:
        """The posterior q(z|x) of images (B, C, H, W), with parameters (B, D) in float32."""
        mean, logvar = self.encoder(x.to(self.precision)).float().chunk(2, dim=-1)
        return Normal(mean, logvar.clamp(*LOGVAR))

    def decode(self, z: Tensor) -> Params:
        """The parameters of p(x|z) for codes (*, D), in float32."""
        pixels = self.decoder(z.flatten(0, -2).to(self.precision)).float()
        return Params(pixels.unflatten(0, z.shape[:-1]), self.shared)

    def lowered(self) -> VAE:
        """A copy whose networks compute in bfloat16; densities stay in float32."""
        lowered = copy.deepcopy(self)
        lowered.encoder.bfloat16()
        lowered.decoder.bfloat16()
        lowered.precision = torch.bfloat16
        return lowered

    def forward(self, x: Tensor, noise: Tensor) -> Draw:
        """Encode images (B, C, H, W), draw codes with standard normal `noise`, decode them.

        Noise of (K, B, D) in place of (B, D) draws K codes of each image.
        """
        q = self.encode(x)
        z = q.sample(noise)
        return Draw(q, z, self.decode(z))

    def distort(self, params: Params, x: Tensor) -> Tensor:
        """The distortion of each image, (*, C, H, W) -> (*).

        Shared numbers that are found rather than learned are, in training, those that suit this batch best; they depend
        on the decoder's output, but at the best value the loss does not change with them, so no gradient is lost.
        """
        if self.training and not self.distortion.learned:
            fitted = self.distortion.fit(Params(params.pixels.detach(), params.shared), x)
            params = params if fitted is None else params._replace(shared=fitted)
        return self.distortion(params, x)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean image of the posterior mean, (B, C, H, W) -> (B, C, H, W): the same input, the same output."""
        return self.images(self.encode(x).mean)

    def images(self, z: Tensor) -> Tensor:
        """The mean images of codes (*, D), in [0, 1]."""
        return self.distortion.mean(self.decode(z)).clamp(0, 1)


def has_bfloat16(device: str) -> bool:
    """Whether the processor multiplies in bfloat16 itself: emulation would be slower than float32."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    told = getattr(torch.cpu, "get_capabilities", dict)  # not in every release that we admit
    capabilities = told() if device == "cpu" else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


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
            yield Layer(part, label(module), tuple(x.shape[1:]), sum(p.numel() for p in module.parameters()))

    x = model.shared.new_zeros(1, *model.shape)
    z = model.shared.new_zeros(1, model.latent_dim)
    return [*walk("encoder", model.encoder, x), *walk("decoder", model.decoder, z)]


def label(module: nn.Module) -> str:
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
