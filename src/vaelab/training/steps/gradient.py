"""The gradient of an objective as a pure function of tensors, for stacked and compiled steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from vaelab.models.vae import VAE
from vaelab.objectives.objective import Objective

__all__ = ["make_gradient_function"]


class ObjectiveModule(nn.Module):
    """A model and an objective as one module: whatever the objective asks of the model has the weights given."""

    def __init__(self, model: VAE, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, settings: dict[str, Tensor], x: Tensor, noise: Tensor, progress: Tensor) -> tuple[Tensor, Any]:
        terms = replace(self.objective, **settings)(self.model, x, noise, progress)
        return terms.loss, (terms.distortion, terms.rate, terms.extra_terms)


def make_gradient_function(objective: Objective, compute_model: VAE) -> Callable[..., Any]:
    """The gradient of a loss as a function of tensors alone.

        (weights, floats of the objective, x, noise, progress) -> (gradients, (loss, (distortion, rate, parts)))

    Weights and gradients stand under the names of `working`, whose own weights do not matter.
    """
    weighed = ObjectiveModule(copy.deepcopy(compute_model).train(), objective)

    def loss(weights: dict[str, Tensor], *given: Any) -> Any:
        return functional_call(weighed, {f"model.{name}": tensor for name, tensor in weights.items()}, given)

    return grad_and_value(loss, has_aux=True)
