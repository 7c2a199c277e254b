"""Provenance: the plan, data, versions and machine that a run began with."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, replace
from datetime import UTC, datetime

import torch

from vaelab.core.console import command, notice
from vaelab.core.devices import choose_device
from vaelab.core.errors import UserError
from vaelab.core.files import write_json
from vaelab.runs.spec import encode
from vaelab.training.job import Work
from vaelab.training.plan import Plan

__all__ = ["began", "begin", "now"]


# What a run comes from.


def began(work: Work) -> Plan | None:
    """The plan that an unfinished run began with, if it did: it is kept, whatever is asked for now."""
    file = work.run.path / "origin.json"
    if not file.exists():
        return None
    origin = work.run.origin
    plan = Plan(**origin["plan"])
    try:
        choose_device(plan.device)
    except UserError as error:
        raise UserError(
            f"run {work.run.key} began there and cannot go on elsewhere: {error}; begin a new one with another --out"
        ) from None
    if plan.ranks != work.ranks.size:
        notice(f"the run began with {plan.ranks} processes and goes on with {work.ranks.size}: the same to rounding")
        plan = replace(plan, ranks=work.ranks.size, compiled=False)
    if replace(plan, steps=None) != work.plan:
        notice(
            f"going on as the run began: {plan.device}, {plan.precision}, {plan.threads} threads, "
            f"{'' if plan.compiled else 'not '}compiled"
        )
    if origin["versions"] != versions():
        notice(f"the run began with other versions ({origin['versions']}): it will not repeat bit for bit")
    return plan


def begin(work: Work, resumed: bool) -> None:
    """Write what the run will be, before the first step."""
    run, dataset = work.run, work.dataset
    write_json(run.path / "spec.json", encode(work.spec))
    if resumed:
        return
    data = {
        "source": dataset.source,
        "location": dataset.location,
        "fingerprint": dataset.fingerprint,
        "shape": list(work.images.shape),
        "categories": list(work.images.categories),
        "images": {split: len(images) for split, images in dataset.splits.items()},
    }
    write_json(
        run.path / "origin.json",
        {
            "key": run.key,
            "data": data,
            "plan": asdict(work.plan),
            "parent": str(work.parent.path) if work.parent else None,
            "versions": versions(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, {platform.node()}",
            "command": command(),
            "started": now(),
        },
    )


def versions() -> dict[str, str]:
    from vaelab.core.version import __version__

    return {"vaelab": __version__, "torch": torch.__version__, "python": platform.python_version()}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
