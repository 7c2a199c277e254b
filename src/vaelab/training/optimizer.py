r"""Adam, with moments that are plain tensors.

    m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g^2,    p <- p - rate m^ / (sqrt(v^) + eps)

m^ and v^ are m and v over 1 - b^t after t steps. The arithmetic is torch's own fused kernel, the one of
`torch.optim.Adam(..., fused=True)`: whose class, when it is made, imports torch's compiler, which takes as long as
torch itself. Source: Adam: A Method for Stochastic Optimization, arXiv 1412.6980.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from vaelab.runs.spec import Spec

__all__ = ["Adam", "adam_step", "bias_corrections", "lr_multiplier"]

BETAS = 0.9, 0.999

EPSILON = 1e-8


class Adam:
    """The moments of a model's parameters, and the step that they make; `tensors` is all that it remembers.

    Gradients are those of `working`, which is the model, or a copy of it in lower precision that follows each step.
    """

    def __init__(self, model: nn.Module, compute_model: nn.Module) -> None:
        self.param_names = [name for name, _ in model.named_parameters()]
        self.param_states = [
            (w, p, torch.zeros_like(p), torch.zeros_like(p), torch.zeros((), device=p.device))
            for w, p in zip(compute_model.parameters(), model.parameters(), strict=True)
        ]

    @property
    def state_tensors(self) -> dict[str, Tensor]:
        """Moments and steps under names, to be written and poured in again."""
        kinds = "exp_avg", "exp_avg_sq", "step"
        return {
            f"{kind}/{name}": tensor
            for name, (_, _, *moments) in zip(self.param_names, self.param_states, strict=True)
            for kind, tensor in zip(kinds, moments, strict=True)
        }

    @property
    def gradients(self) -> list[Tensor]:
        """Of those parameters that have one."""
        return [w.grad for w, *_ in self.param_states if w.grad is not None]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for w, *_ in self.param_states:
            w.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Descend along the gradients of those parameters that have one."""
        _, p, m, v, t = map(list, zip(*(row for row in self.param_states if row[0].grad is not None), strict=True))
        gradients = [gradient.to(p[0].dtype) for gradient in self.gradients]
        adam(
            p,
            gradients,
            m,
            v,
            [],
            t,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
        self.sync_compute_copy()

    @torch.no_grad()
    def sync_compute_copy(self) -> None:
        """Let the working copy follow the model."""
        for w, p, *_ in self.param_states:
            if w is not p:
                w.copy_(p)


def bias_corrections(lrs: Any, steps: Any) -> tuple[Any, Any]:
    """What `descend` needs for step t after so many: the rate over 1 - b1^t, and the root of 1 - b2^t."""
    return lrs / (1 - BETAS[0] ** (steps + 1)), (1 - BETAS[1] ** (steps + 1)) ** 0.5


def adam_step(
    param_states: Sequence[tuple[Tensor, ...]],
    grads: Sequence[Tensor],
    lrs: Tensor,
    sqrt_bias2: Tensor,
    clip: Tensor | None,
) -> None:
    """The same step in plain operations, in place: of one run, whose rate is (), or of a stack of runs with rates (S,).

    Rates and roots are `corrected`; gradients `slopes` are first cut to the norm `clip`, each run's to its own.
    """
    axes = lrs.dim()
    grads = [slope.to(row[1].dtype) for row, slope in zip(param_states, grads, strict=True)]
    if clip is not None:
        squares = [slope.reshape(*slope.shape[:axes], -1).square().sum(-1) for slope in grads]
        factor = (clip / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1)
        grads = [slope * expand_like(factor, slope) for slope in grads]
    for (working, p, m, v, steps), slope in zip(param_states, grads, strict=True):
        steps.add_(1)
        m.lerp_(slope, 1 - BETAS[0])
        v.mul_(BETAS[1]).addcmul_(slope, slope, value=1 - BETAS[1])
        p.sub_(expand_like(lrs, m) * m / (v.sqrt() / expand_like(sqrt_bias2, v) + EPSILON))
        if working is not p:
            working.copy_(p)


def expand_like(values: Tensor, like: Tensor) -> Tensor:
    """Numbers of the runs, () or (S,), against a tensor of theirs."""
    return values.view(*values.shape, *[1] * (like.dim() - values.dim()))


def lr_multiplier(spec: Spec, fraction_done: float, step_fraction: float) -> float:
    """The learning rate as a part of `lr`, when a part `done` of the training is behind and a `step` comes."""
    if fraction_done < spec.lr_warmup:
        return min(1.0, (fraction_done + step_fraction) / spec.lr_warmup)
    left = 1 - (fraction_done - spec.lr_warmup) / max(1 - spec.lr_warmup, step_fraction)
    return {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[spec.schedule]
