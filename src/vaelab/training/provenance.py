"""Provenance: the plan, data, versions and machine that a run began with."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, replace
from datetime import UTC, datetime

import torch

from vaelab.core.console import command_line, notice
from vaelab.core.devices import choose_device
from vaelab.core.errors import UserError
from vaelab.core.files import write_json
from vaelab.runs.spec import spec_to_dict
from vaelab.training.job import TrainingJob
from vaelab.training.plan import Plan

__all__ = ["recorded_plan", "utc_now", "write_origin"]


# What a run comes from.


def recorded_plan(job: TrainingJob) -> Plan | None:
    """The plan that an unfinished run began with, if it did: it is kept, whatever is asked for now."""
    file = job.run.path / "origin.json"
    if not file.exists():
        return None
    origin = job.run.origin
    plan = Plan(**origin["plan"])
    try:
        choose_device(plan.device)
    except UserError as error:
        raise UserError(
            f"run {job.run.key} began there and cannot go on elsewhere: {error}; begin a new one with another --out"
        ) from None
    if plan.ranks != job.distributed.world_size:
        processes = job.distributed.world_size
        notice(f"the run began with {plan.ranks} processes and goes on with {processes}: the same to rounding")
        plan = replace(plan, ranks=job.distributed.world_size, compiled=False)
    if replace(plan, steps=None) != job.plan:
        notice(
            f"going on as the run began: {plan.device}, {plan.precision}, {plan.threads} threads, "
            f"{'' if plan.compiled else 'not '}compiled"
        )
    if origin["versions"] != library_versions():
        notice(f"the run began with other versions ({origin['versions']}): it will not repeat bit for bit")
    return plan


def write_origin(job: TrainingJob, resumed: bool) -> None:
    """Write what the run will be, before the first step."""
    run, dataset = job.run, job.dataset
    write_json(run.path / "spec.json", spec_to_dict(job.spec))
    if resumed:
        return
    data = {
        "source": dataset.source,
        "location": dataset.location,
        "fingerprint": dataset.fingerprint,
        "shape": list(job.train_images.shape),
        "categories": list(job.train_images.categories),
        "images": {split: len(images) for split, images in dataset.splits.items()},
    }
    write_json(
        run.path / "origin.json",
        {
            "key": run.key,
            "data": data,
            "plan": asdict(job.plan),
            "parent": str(job.parent.path) if job.parent else None,
            "versions": library_versions(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, {platform.node()}",
            "command": command_line(),
            "started": utc_now(),
        },
    )


def library_versions() -> dict[str, str]:
    from vaelab.core.version import __version__

    return {"vaelab": __version__, "torch": torch.__version__, "python": platform.python_version()}


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
