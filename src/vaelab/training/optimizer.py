r"""Adam, with moments that are plain tensors.

    m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g^2,    p <- p - lr m^ / (sqrt(v^) + eps)

m^ and v^ are m / (1 - b1^t) and v / (1 - b2^t) after t steps. The arithmetic is torch's own fused kernel, the one of
`torch.optim.Adam(..., fused=True)`. That class itself is not used: making one imports torch's compiler, which takes as
long as importing torch. Source: Adam: A Method for Stochastic Optimization, arXiv 1412.6980.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from vaelab.runs.spec import Spec

__all__ = ["Adam", "ParamState", "adam_step", "bias_corrections", "lr_multiplier"]

BETA1, BETA2 = 0.9, 0.999

EPSILON = 1e-8


class ParamState(NamedTuple):
    """A parameter and all that Adam remembers of it.

    In a stack of S runs every tensor has a first axis of length S.

    Attributes:
        compute_param: The parameter of which the gradient is taken: `param` itself, or its copy in lower precision.
        param: The parameter.
        exp_avg: The moving average m of the gradient, of the parameter's shape.
        exp_avg_sq: The moving average v of the squared gradient, of the parameter's shape.
        step: How many steps were taken, a float tensor of shape ().
    """

    compute_param: Tensor
    param: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor


class Adam:
    """The moments of a model's parameters, and the steps taken with them. The state tensors are all that it remembers.

    Args:
        model: The model whose parameters are trained.
        compute_model: The model whose gradients are used: the same one, or its copy in lower precision, which follows
            each step.
    """

    def __init__(self, model: nn.Module, compute_model: nn.Module) -> None:
        self.param_names = [name for name, _ in model.named_parameters()]
        self.param_states = []
        for compute_param, param in zip(compute_model.parameters(), model.parameters(), strict=True):
            step = torch.zeros((), device=param.device)
            state = ParamState(compute_param, param, torch.zeros_like(param), torch.zeros_like(param), step)
            self.param_states.append(state)

    @property
    def state_tensors(self) -> dict[str, Tensor]:
        """Moments and steps under names, as they are stored and restored."""
        tensors = {}
        for name, state in zip(self.param_names, self.param_states, strict=True):
            tensors[f"exp_avg/{name}"] = state.exp_avg
            tensors[f"exp_avg_sq/{name}"] = state.exp_avg_sq
            tensors[f"step/{name}"] = state.step
        return tensors

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients of the parameters that have one."""
        return [state.compute_param.grad for state in self.param_states if state.compute_param.grad is not None]

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for state in self.param_states:
            state.compute_param.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Change the parameters that have a gradient."""
        states = [state for state in self.param_states if state.compute_param.grad is not None]
        dtype = states[0].param.dtype
        adam(
            [state.param for state in states],
            [gradient.to(dtype) for gradient in self.gradients],
            [state.exp_avg for state in states],
            [state.exp_avg_sq for state in states],
            [],
            [state.step for state in states],
            fused=True,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=lr,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
        self.sync_compute_copy()

    @torch.no_grad()
    def sync_compute_copy(self) -> None:
        """Copy the parameters to the compute model, where it is another model."""
        for state in self.param_states:
            if state.compute_param is not state.param:
                state.compute_param.copy_(state.param)


def bias_corrections(lr: Any, step: Any) -> tuple[Any, Any]:
    """The numbers that `adam_step` needs after `step` steps: lr / (1 - b1^t) and sqrt(1 - b2^t) with t = step + 1.

    Floats give floats, and tensors give tensors of their shape.

    Example:
        >>> [round(number, 4) for number in bias_corrections(0.001, 0.0)]
        [0.01, 0.0316]
    """
    return lr / (1 - BETA1 ** (step + 1)), (1 - BETA2 ** (step + 1)) ** 0.5


def adam_step(
    param_states: Sequence[ParamState],
    gradients: Sequence[Tensor],
    corrected_lr: Tensor,
    sqrt_bias2: Tensor,
    clip: Tensor | None,
) -> None:
    """The same step in plain operations, in place, for one run or for a stack of S runs.

    Args:
        param_states: Parameters and moments.
        gradients: Of each parameter, in the same order.
        corrected_lr: The learning rate from `bias_corrections`, with shape () or (S,).
        sqrt_bias2: The other number from `bias_corrections`, with shape () or (S,).
        clip: The largest norm of a run's gradient, with shape () or (S,); longer ones are shortened to it.
    """
    gradients = [gradient.to(state.param.dtype) for state, gradient in zip(param_states, gradients, strict=True)]
    if clip is not None:
        gradients = _clipped(gradients, clip)
    for state, gradient in zip(param_states, gradients, strict=True):
        state.step.add_(1)
        state.exp_avg.lerp_(gradient, 1 - BETA1)
        state.exp_avg_sq.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        denominator = state.exp_avg_sq.sqrt() / _expand_like(sqrt_bias2, gradient) + EPSILON
        state.param.sub_(_expand_like(corrected_lr, gradient) * state.exp_avg / denominator)
        if state.compute_param is not state.param:
            state.compute_param.copy_(state.param)


def _clipped(gradients: Sequence[Tensor], clip: Tensor) -> list[Tensor]:
    """Gradients whose norm over all parameters is at most `clip`, for each run by itself."""
    run_axes = clip.dim()
    squares = []
    for gradient in gradients:
        flat = gradient.reshape(*gradient.shape[:run_axes], -1)
        squares.append(flat.square().sum(-1))
    norm = torch.stack(squares).sum(0).sqrt()
    factor = (clip / (norm + 1e-6)).clamp(max=1)
    return [gradient * _expand_like(factor, gradient) for gradient in gradients]


def _expand_like(values: Tensor, tensor: Tensor) -> Tensor:
    """Numbers of runs, () or (S,), with further axes of length 1, so that they multiply a tensor of these runs."""
    return values.view(*values.shape, *[1] * (tensor.dim() - values.dim()))


def lr_multiplier(spec: Spec, progress: float, progress_per_step: float) -> float:
    """The learning rate of the next step as a part of `spec.lr`, from 0 to 1.

    Args:
        spec: Its `schedule` and `lr_warmup` count.
        progress: The part of the training that is done, from 0 to 1.
        progress_per_step: How much the next step adds to it.
    """
    if progress < spec.lr_warmup:
        return min(1.0, (progress + progress_per_step) / spec.lr_warmup)
    remaining = 1 - (progress - spec.lr_warmup) / max(1 - spec.lr_warmup, progress_per_step)
    if spec.schedule == "linear":
        return remaining
    if spec.schedule == "cosine":
        return 0.5 - 0.5 * math.cos(math.pi * remaining)
    return 1.0
