"""Provenance: the data, plan, versions and machine of a run, stored before its first step."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import torch

from vaelab.core.console import command_line, notice
from vaelab.core.devices import choose_device
from vaelab.core.errors import UserError
from vaelab.runs.run import store_beginning, update_origin
from vaelab.runs.spec import spec_to_dict
from vaelab.training.job import TrainingJob
from vaelab.training.plan import Plan, plan_from_dict, plan_to_dict

__all__ = ["describe_end", "record_schedule", "recorded_plan", "write_origin"]


def recorded_plan(job: TrainingJob) -> Plan | None:
    """The plan that an unfinished run began with: it is kept, whatever is asked for now.

    Returns:
        The stored plan; None for a run that has not begun.

    Raises:
        UserError: This machine does not have the device of the plan.
    """
    if not (job.run.path / "origin.json").exists():
        return None
    origin = job.run.origin
    plan = plan_from_dict(origin["plan"])
    try:
        choose_device(plan.device)
    except UserError as error:
        raise UserError(
            f"run {job.key} began there and cannot go on elsewhere: {error}; begin a new one with another --out"
        ) from None
    world_size = job.distributed.world_size
    if plan.ranks != world_size:
        notice(f"the run began with {plan.ranks} processes and goes on with {world_size}: the same to rounding")
        plan = replace(plan, ranks=world_size, compiled=False)
    if replace(plan, steps=None, schedule=None, record_every=1) != job.plan:
        compiled = "compiled" if plan.compiled else "not compiled"
        notice(f"going on as the run began: {plan.device}, {plan.precision}, {plan.threads} threads, {compiled}")
    if origin["versions"] != library_versions():
        notice(f"the run began with other versions ({origin['versions']}): it will not repeat bit for bit")
    return plan


def write_origin(job: TrainingJob) -> None:
    """Store what a run comes from, before its first step."""
    dataset = job.dataset
    data = {
        "source": dataset.source,
        "location": dataset.location,
        "fingerprint": dataset.fingerprint,
        "shape": list(job.train_images.shape),
        "categories": list(job.train_images.categories),
        "images": {split: len(images) for split, images in dataset.splits.items()},
        "value_ranges": {kind: list(its_range) for kind, its_range in dataset.facts.value_ranges.items()},
    }
    origin = {
        "key": job.key,
        "data": data,
        "plan": plan_to_dict(job.plan),
        "parent": str(job.parent.path) if job.parent else None,
        "versions": library_versions(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, {platform.node()}",
        "command": command_line(),
        "started": utc_now(),
    }
    store_beginning(job.run, spec_to_dict(job.spec), origin)


def record_schedule(job: TrainingJob) -> None:
    """Store a new estimate of the number of steps, before the first step that depends on it."""
    update_origin(job.run, {"plan": plan_to_dict(job.plan)})


def describe_end(seconds: float, images_per_second: float) -> dict[str, Any]:
    """When a run was finished, and how long it took."""
    return {"finished": utc_now(), "seconds": round(seconds, 3), "images_per_second": round(images_per_second, 1)}


def library_versions() -> dict[str, Any]:
    """The versions on which the bytes of a run depend."""
    from vaelab.core.version import __version__

    return {"vaelab": __version__, "torch": torch.__version__, "python": platform.python_version()}


def utc_now() -> str:
    """The date and time, as in 2026-01-31T12:00:00+00:00."""
    return datetime.now(UTC).isoformat(timespec="seconds")
