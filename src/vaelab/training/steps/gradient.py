"""The gradient of an objective as a pure function of tensors, for stacked and compiled steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from vaelab.models.vae import VAE, VAEOutput
from vaelab.objectives.objective import Objective
from vaelab.objectives.terms import LossTerms

__all__ = ["make_gradient_function", "to_loss_terms"]


class ObjectiveModule(nn.Module):
    """A model and an objective as one module, so that `functional_call` replaces the weights wherever they are used."""

    def __init__(self, model: VAE, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, floats: dict[str, Tensor], x: Tensor, noise: Tensor, progress: Tensor) -> tuple[Tensor, Any]:
        """The loss, and its terms under names."""
        objective = replace(self.objective, **floats)
        terms = objective(self.model, x, noise, progress)
        return terms.loss, {"loss": terms.loss, "distortion": terms.distortion, "rate": terms.rate, **terms.extra_terms}


def make_gradient_function(objective: Objective, compute_model: VAE) -> Callable[..., Any]:
    """The gradient of a loss as a function of tensors alone.

    Args:
        objective: The objective; its floats are arguments of the function.
        compute_model: The model; its weights are arguments of the function, under their names.

    Returns:
        The function (weights, floats, x, noise, progress) -> (gradients, (loss, terms)), with gradients and terms under
        names.
    """
    module = ObjectiveModule(copy.deepcopy(compute_model).train(), objective)

    def loss(weights: dict[str, Tensor], *inputs: Any) -> Any:
        named_weights = {f"model.{name}": tensor for name, tensor in weights.items()}
        return functional_call(module, named_weights, inputs)

    return grad_and_value(loss, has_aux=True)


def to_loss_terms(values: Mapping[str, Tensor]) -> LossTerms:
    """The terms of a step from their values under names. The pass through the model is not kept."""
    extra_terms = {name: value for name, value in values.items() if name not in ("loss", "distortion", "rate")}
    return LossTerms(values["loss"], values["distortion"], values["rate"], extra_terms, cast(VAEOutput, None))
