"""The plan: how a run is computed on this machine, apart from what it computes.

Fixed rules choose the plan from the spec and the machine, never a timing: the same command on the same machine gives
the same plan, and with it the same bytes. The plan is stored in origin.json before the first step, and a run that is
resumed keeps it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, cast, get_args

import torch

from vaelab.core.devices import check_threads, choose_device, has_bfloat16, num_processors
from vaelab.core.distributed import distributed_context
from vaelab.core.errors import UserError
from vaelab.datasets.images import Images
from vaelab.models.networks import Mlp, Shape
from vaelab.models.summary import layers
from vaelab.models.vae import VAE
from vaelab.objectives.importance import ImportanceWeighted
from vaelab.objectives.objective import Objective
from vaelab.runs.spec import Spec
from vaelab.training.schedule import StepSchedule

__all__ = [
    "Plan",
    "choose_plan",
    "count_multiply_adds",
    "explain_plan",
    "plan_from_dict",
    "plan_to_dict",
    "program_key",
    "tunable_floats",
]

Precision = Literal["float32", "bfloat16"]

# Multiply-adds of a batch's forward pass that keep one thread busy, in a network without convolutions. With fewer,
# threads wait for each other more than they compute. The textbook network at batch size 128 has 8e7. Convolutions get
# one thread: their kernels wait actively for each other, so that two threads on two processors were up to 1.5 times as
# fast as one on an idle machine, and 4 to 30 times slower beside other programs.
MULTIPLY_ADDS_PER_THREAD = 4e7

# Steps of a run that are worth compiling. The first run of a shape pays about ten seconds, all others a hundredth of
# one, and each step of the textbook network is a millisecond shorter.
MIN_COMPILED_STEPS = 1000


@dataclass(frozen=True)
class Plan:
    """How a run is computed on this machine.

    Attributes:
        device: cpu, cuda, cuda:1, mps, ...
        precision: In which the networks compute; densities and weights are in float32.
        threads: Threads on a CPU.
        channels_last: Whether the channels of a pixel lie together in memory.
        steps: The number of steps, where a time budget was turned into steps.
        ranks: How many processes train the run together.
        stacked: Whether runs that agree in their programs are trained as one.
        compiled: Whether a step is one compiled program.
        schedule: How the number of steps was estimated under a time budget.
        record_every: Epochs from one row of history to the next.
    """

    device: str
    precision: Precision
    threads: int
    channels_last: bool
    steps: int | None = None
    ranks: int = 1
    stacked: bool = False
    compiled: bool = False
    schedule: StepSchedule | None = None
    record_every: int = 1

    @property
    def memory_format(self) -> torch.memory_format:
        """How pixels lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def with_schedule(self, schedule: StepSchedule) -> Plan:
        """The plan with the number of steps that a time budget gives."""
        return replace(self, steps=schedule.total_steps, schedule=schedule)


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as it is stored in origin.json."""
    table = asdict(plan)
    del table["schedule"]
    if plan.schedule is not None:
        table["segments"] = [list(segment) for segment in plan.schedule.segments]
    return table


def plan_from_dict(table: Mapping[str, Any]) -> Plan:
    """The plan that was stored in origin.json, by this version or an earlier one."""
    settings = dict(table)
    segments = settings.pop("segments", None)
    if segments is not None:
        settings["schedule"] = StepSchedule.from_lists(segments)
    return Plan(**settings)


def choose_plan(
    spec: Spec, train: Images, device: str | None = None, precision: str | None = None, threads: int | None = None
) -> Plan:
    """The plan of a run on this machine.

    Args:
        spec: What is trained.
        train: The training images.
        device: The device that the user wants; by default the fastest of this machine.
        precision: The precision that the user wants; by default bfloat16 where the processor multiplies in it.
        threads: The number of threads that the user wants.

    Raises:
        UserError: This machine does not have what the user wants.
    """
    device = choose_device(device)
    distributed = distributed_context()
    # A single run leaves most of a GPU idle. On a CPU, several runs at a time are so many processes.
    stacked = device.startswith("cuda") and distributed.world_size == 1
    return Plan(
        device=device,
        precision=_choose_precision(device, precision),
        threads=_choose_threads(spec, train, device, threads),
        channels_last=not isinstance(spec.network, Mlp) and device != "mps",
        ranks=distributed.world_size,
        stacked=stacked,
        compiled=device == "cpu" and distributed.world_size == 1 and _is_worth_compiling(spec, train),
    )


def _choose_precision(device: str, precision: str | None) -> Precision:
    """The precision that the user wants, or the faster one of this processor."""
    if precision is None:
        return "bfloat16" if has_bfloat16(device) else "float32"
    if precision not in get_args(Precision):
        raise UserError(f'precision must be {" or ".join(get_args(Precision))}, got "{precision}"')
    return cast(Precision, precision)


def _choose_threads(spec: Spec, train: Images, device: str, threads: int | None) -> int:
    """The number of threads that the user wants, or the one that is never much slower than another.

    The load of the machine does not count: it changes, and with it the bytes of a run would.
    """
    if threads is None:
        if device == "cpu" and not isinstance(spec.network, Mlp):
            return 1
        available = num_processors() // distributed_context().local_world_size
        multiply_adds = spec.batch_size * count_multiply_adds(spec, train.shape)
        return max(1, min(available, int(multiply_adds / MULTIPLY_ADDS_PER_THREAD)))
    return check_threads(threads)


def explain_plan(spec: Spec, plan: Plan) -> str:
    """The plan in one or two lines, with the reason for the number of threads."""
    step = "compiled steps" if plan.compiled else "steps not compiled"
    if plan.device != "cpu":
        return f"plan: {plan.device}, {plan.precision}"
    processors = num_processors()
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    line = f"plan: cpu, {plan.precision}, {threads} on {processors} processors, {step}"
    if plan.threads == 1 and processors > 1 and not isinstance(spec.network, Mlp):
        line += (
            "\n  (convolutions: more threads are at most 1.5 times as fast on an idle machine, and many times slower "
            f"on a busy one{_load_note(processors)}; --threads {processors} uses all)"
        )
    return line


def _load_note(processors: int) -> str:
    """What the machine has to do now, where that is more than it can."""
    if not hasattr(os, "getloadavg"):
        return ""
    load = os.getloadavg()[0]
    return f", as this one is now (load {load:.1f})" if load > processors else ""


def _is_worth_compiling(spec: Spec, train: Images) -> bool:
    """Whether a run has so many whole batches that compiling its step saves time."""
    whole_batches = len(train) // spec.batch_size
    steps = spec.steps or spec.epochs * whole_batches
    return program_key(spec) is not None and whole_batches > 0 and steps >= MIN_COMPILED_STEPS


def count_multiply_adds(spec: Spec, shape: Shape) -> int:
    """About how many multiply-adds one image costs on its way through encoder and decoder."""
    with torch.device("meta"):
        model = VAE(spec.network, spec.distortion, shape, spec.latent_dim, spec.prior)
    rows = layers(model.to_empty(device="cpu"))  # computing on "meta" would import torch's compiler
    return sum(row.parameters * math.prod(row.shape[1:]) for row in rows)


def program_key(spec: Spec) -> Spec | None:
    """What of a spec shapes the program of a step: specs with equal keys can be stacked, or share a compiled step.

    Returns:
        The spec with neutral values in place of those that a program takes as arguments; None for a spec whose step is
        neither stacked nor compiled: under a time budget, and where one is repeated, a run has its own length, and
        "dreg" hooks into the gradient.
    """
    objective = spec.objective
    has_own_length = spec.minutes is not None or spec.estimates is not None
    if has_own_length or (isinstance(objective, ImportanceWeighted) and objective.gradient == "dreg"):
        return None
    defaults = type(objective)()
    neutral_floats = {name: getattr(defaults, name) for name in tunable_floats(objective)}
    return replace(
        spec,
        network=replace(spec.network, init="torch", output_bias="init"),
        objective=replace(objective, **neutral_floats),
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
    """The settings of an objective that a program takes as tensors."""
    return [f.name for f in fields(objective) if isinstance(getattr(objective, f.name), float)]
