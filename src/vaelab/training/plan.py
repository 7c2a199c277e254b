"""The plan: how a run is carried out on this machine, apart from what it computes.

Fixed rules choose it from the spec and the machine, never a timing, so that the same command on the same machine gives
the same plan, and with it the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal, cast, get_args

import torch

from vaelab.core.devices import choose_device, has_bfloat16, num_processors
from vaelab.core.distributed import distributed_context
from vaelab.core.errors import UserError
from vaelab.datasets.images import Images
from vaelab.models.networks import Mlp, Shape
from vaelab.models.summary import layers
from vaelab.models.vae import VAE
from vaelab.objectives.importance import ImportanceWeighted
from vaelab.objectives.objective import Objective
from vaelab.runs.spec import Spec

__all__ = ["Plan", "choose_plan", "count_multiply_adds", "program_key", "tunable_floats"]

Precision = Literal["float32", "bfloat16"]

# Multiply-adds of a batch's forward pass that keep one thread busy: with less, threads wait for each other more than
# they work, and suffer badly where something else runs on the machine. The textbook network at batch 128 has 8e7.
MULTIPLY_ADDS_PER_THREAD = 4e7

# Steps of a run that are worth compiling: the first run of a shape pays about ten seconds, all others a hundredth of
# one, and each step of the textbook network is a millisecond shorter.
MIN_COMPILED_STEPS = 1000


@dataclass(frozen=True)
class Plan:
    """How a run is carried out on this machine: chosen by fixed rules, written before the first step, kept on resuming.

    `steps` is set where a time budget was turned into steps.
    """

    device: str
    precision: Precision
    threads: int
    channels_last: bool
    steps: int | None = None
    ranks: int = 1  # processes that train together
    stacked: bool = False  # whether runs that agree are trained as one
    compiled: bool = False  # whether the step is one program

    @property
    def memory_format(self) -> torch.memory_format:
        """How pixels lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def choose_plan(
    spec: Spec, train: Images, device: str | None = None, precision: str | None = None, threads: int | None = None
) -> Plan:
    """The plan for a spec and its training images on this machine, with what the user insists on."""
    device = choose_device(device)
    chosen = precision or ("bfloat16" if has_bfloat16(device) else "float32")
    if chosen not in get_args(Precision):
        raise UserError(f'precision must be {" or ".join(get_args(Precision))}, got "{chosen}"')
    if threads is None:
        each = num_processors() // distributed_context().local_world_size
        threads = max(
            1, min(each, int(spec.batch_size * count_multiply_adds(spec, train.shape) / MULTIPLY_ADDS_PER_THREAD))
        )
    if not 1 <= threads <= num_processors():
        raise UserError(f"threads must be from 1 to {num_processors()}, the processors of this machine, got {threads}")
    channels_last = not isinstance(spec.network, Mlp) and device != "mps"
    # One run at a time leaves most of a GPU idle; several at a time on a CPU are so many more processes.
    stacked = device.startswith("cuda") and distributed_context().world_size == 1
    plan = Plan(
        device, cast(Precision, chosen), threads, channels_last, ranks=distributed_context().world_size, stacked=stacked
    )
    alone = device == "cpu" and plan.ranks == 1 and program_key(spec) is not None and len(train) >= spec.batch_size
    return replace(plan, compiled=alone and spec.epochs * (len(train) // spec.batch_size) >= MIN_COMPILED_STEPS)


def count_multiply_adds(spec: Spec, shape: Shape) -> int:
    """About how many multiply-adds one image costs on its way through encoder and decoder."""
    with torch.device("meta"):
        model = VAE(spec.network, spec.loss, shape, spec.latent_dim)
    rows = layers(model.to_empty(device="cpu"))  # to compute on "meta" would import torch's compiler
    return sum(row.parameters * math.prod(row.shape[1:]) for row in rows)


def program_key(spec: Spec) -> Spec | None:
    """What of a spec shapes its program: specs that agree in it can be stacked, or share a compiled step.

    None for one that goes alone.
    """
    objective = spec.objective
    if spec.minutes is not None or (isinstance(objective, ImportanceWeighted) and objective.gradient == "dreg"):
        return None  # it is probed by itself; it hooks into the gradient
    alike = replace(objective, **{name: getattr(type(objective)(), name) for name in tunable_floats(objective)})
    return replace(
        spec,
        objective=alike,
        lr=1.0,
        lr_warmup=0.0,
        schedule="constant",
        clip=spec.clip and 1.0,
        ema=spec.ema and 0.5,
        keep="last",
        seed=0,
        parent=None,
    )


def tunable_floats(objective: Objective) -> list[str]:
    """The settings of an objective that may be tensors."""
    return [f.name for f in fields(objective) if isinstance(getattr(objective, f.name), float)]
