r"""The stack: runs whose programs agree, trained as one; the first axis of every tensor counts the runs.

    g_s = gradient of loss_s at (weights_s, batch_s, noise_s),   for all s at once, by torch.func.vmap

Floats may differ within a stack: learning rates with their schedules and clipping, KL weights and what else an
objective has of them; and seeds. What shapes the program may not. The tensors of each run's state become views into the
stack, so that measuring, saving and finishing a run know nothing of it. A stacked run equals the run alone to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from vaelab.adam import BETAS, EPSILON
from vaelab.models import VAE
from vaelab.objectives import ImportanceWeighted, Objective
from vaelab.spec import Spec
from vaelab.state import State

__all__ = ["Stack", "likeness"]


def likeness(spec: Spec) -> Spec | None:
    """What of a spec shapes its program: specs that agree in it can be stacked. None for one that goes alone."""
    objective = spec.objective
    if spec.minutes is not None or (isinstance(objective, ImportanceWeighted) and objective.gradient == "dreg"):
        return None  # it is probed by itself; it hooks into the gradient
    alike = replace(objective, **{name: getattr(type(objective)(), name) for name in floats(objective)})
    return replace(spec, objective=alike, lr=1.0, lr_warmup=0.0, schedule="constant", clip=spec.clip and 1.0,
                   ema=spec.ema and 0.5, keep="last", seed=0, parent=None)  # fmt: skip


def floats(objective: Objective) -> list[str]:
    return [f.name for f in fields(objective) if isinstance(getattr(objective, f.name), float)]


class Weighed(nn.Module):
    """A model and an objective as one module: whatever the objective asks of the model has the weights given."""

    def __init__(self, model: VAE, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, settings: dict[str, Tensor], x: Tensor, noise: Tensor, progress: Tensor) -> tuple[Tensor, Any]:
        terms = replace(self.objective, **settings)(self.model, x, noise, progress)
        return terms.loss, (terms.distortion, terms.rate, terms.parts)


class Stack:
    """Some runs in step with each other, and the step that they take together."""

    def __init__(self, specs: Sequence[Spec], states: Sequence[State]) -> None:
        device = states[0].model.shared.device
        rows = zip(*(state.optimizer.rows for state in states), strict=True)
        self.rows = [joined(row) for row in rows]
        self.names = [f"model.{name}" for name in states[0].optimizer.names]
        self.clip = None if specs[0].clip is None else torch.tensor([s.clip for s in specs], device=device)
        self.settings = {name: torch.tensor([getattr(s.objective, name) for s in specs], device=device)
                         for name in floats(specs[0].objective)}  # fmt: skip
        weighed = Weighed(copy.deepcopy(states[0].working).train(), specs[0].objective)

        def loss(weights: dict[str, Tensor], *given: Any) -> Any:
            return functional_call(weighed, weights, given)

        self.gradients: Callable[..., Any] = vmap(grad_and_value(loss, has_aux=True), in_dims=(0, 0, 0, 0, None))

    def step(self, x: Tensor, noise: Tensor, progress: float, rates: Sequence[float]) -> dict[str, Tensor]:
        """One step of Adam for each run, on x (S, B, C, H, W) with noise (S, B, D); gives the terms, (S,) each."""
        weights = {name: row[0] for name, row in zip(self.names, self.rows, strict=True)}
        found, (loss, (distortion, rate, parts)) = self.gradients(
            weights, self.settings, x, noise, torch.tensor(progress, device=x.device)
        )
        with torch.no_grad():
            slopes = [found[name].to(row[1].dtype) for name, row in zip(self.names, self.rows, strict=True)]
            self._descend(self._clipped(slopes), torch.tensor(rates, device=x.device))
        return {"loss": loss, "distortion": distortion, "rate": rate, **parts}

    def _clipped(self, slopes: list[Tensor]) -> list[Tensor]:
        if self.clip is None:
            return slopes
        norms = torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0).sqrt()
        factor = (self.clip / (norms + 1e-6)).clamp(max=1)
        return [slope * along(factor, slope) for slope in slopes]

    def _descend(self, slopes: list[Tensor], rates: Tensor) -> None:
        """Adam as in `adam`, with a learning rate for each run."""
        for (working, p, m, v, steps), slope in zip(self.rows, slopes, strict=True):
            steps.add_(1)
            m.lerp_(slope, 1 - BETAS[0])
            v.mul_(BETAS[1]).addcmul_(slope, slope, value=1 - BETAS[1])
            size = v.sqrt().div_(along((1 - BETAS[1] ** steps).sqrt(), v)).add_(EPSILON)
            p.sub_(along(rates / (1 - BETAS[0] ** steps), m) * m / size)
            if working is not p:
                working.copy_(p)


def joined(rows: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Tensors of several states, stacked each with its like; those of the states become views into the stacks."""
    stacks: list[Tensor] = []
    for i, some in enumerate(zip(*rows, strict=True)):
        if i == 1 and rows[0][0] is rows[0][1]:  # the working copy is the model itself
            stacks.append(stacks[0])
            continue
        stacks.append(torch.stack([tensor.detach() for tensor in some]))
        for tensor, part in zip(some, stacks[-1], strict=True):
            tensor.data = part
    return tuple(stacks)


def along(values: Tensor, like: Tensor) -> Tensor:
    """Numbers of the runs (S,) against a tensor (S, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))
