r"""Compiled steps: gradient and Adam of a run as one machine program, made once for all runs of a shape and kept.

    (batch, noise, progress, rate, floats of the objective; weights, moments) -> terms,    weights and moments in place

A step in PyTorch is some two hundred calls, each of which reads and writes memory; a program takes what lies between
two matrix products in one pass. Learning rates, KL weights and seeds are arguments, so a study of them needs one. It is
kept in the cache under the hash of all that it was made from, our source and the processor among it, and loads in
milliseconds; torch's compiler is imported only where a program has to be made.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaelab.core.console import notice
from vaelab.core.files import atomic_write, cache_folder, remove_stale_temp_files, write_json, write_text
from vaelab.core.version import source_digest
from vaelab.runs.spec import Spec, spec_to_dict
from vaelab.training.optimizer import adam_step, bias_corrections
from vaelab.training.plan import Plan, program_key, tunable_floats
from vaelab.training.state import TrainingState
from vaelab.training.steps.gradient import make_gradient_function

__all__ = ["NO_COMPILER", "CompiledStep", "find_compiler", "load_or_compile"]

NO_COMPILER = "training uncompiled, which takes longer: no C++ compiler is found (g++, clang++ on macOS, or $CXX)"

COMPILE_OPTIONS = {
    "aot_inductor.package": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",  # what calls the kernels: two seconds sooner, and as fast
}


class CompiledStep:
    """The compiled step of a run, for batches of one size."""

    def __init__(self, file: Path, spec: Spec, state: TrainingState) -> None:
        library: Any = torch._C._aoti  # pyright: ignore[reportAttributeAccessIssue]
        self.runner = library.AOTIModelContainerRunnerCpu(str(file), 1)
        self.term_names = json.loads((file.parent / "terms.json").read_text())
        self.static_inputs = static_inputs(spec, state)

    def step(self, pixels: Tensor, noise: Tensor, progress: float, lr: float) -> dict[str, Tensor]:
        """One step of Adam, on uint8 pixels (B, C, H, W) with noise (B, D); gives the terms."""
        numbers = progress, *bias_corrections(lr, self.static_inputs[-1].item())
        found = self.runner.run([pixels, noise, *map(torch.tensor, map(float, numbers)), *self.static_inputs])
        return dict(zip(self.term_names, found, strict=True))


def load_or_compile(spec: Spec, plan: Plan, state: TrainingState, pixels: Tensor, noise: Tensor) -> CompiledStep | None:
    """The compiled step of a run for batches like `pixels` and `noise`: from the cache, or made now.

    None, with a notice, where it cannot be made.
    """
    from filelock import FileLock

    folder = cache_folder() / "programs" / cache_key(spec, plan, pixels)
    file, failed = folder / "step.so", folder / f"failed-{compiler_fingerprint()}.txt"
    try:
        with suppress(Exception):  # one that is missing or damaged is made
            return CompiledStep(file, spec, state)
        if not find_compiler():
            notice(NO_COMPILER)
            return None
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            with suppress(Exception):  # by another process, meanwhile
                return CompiledStep(file, spec, state)
            if failed.exists():
                notice(failed.read_text(encoding="utf-8"))
                return None
            remove_stale_temp_files(folder)
            notice("compiling the training step, once for all runs of this shape")
            given = [pixels, noise, *torch.tensor([0.5, 1e-3, 0.5]), *static_inputs(spec, state)]
            compile_step(file, make_step_function(spec, plan, state), given)
            return CompiledStep(file, spec, state)
    except Exception as error:  # whatever compilers die of
        why = (str(error).splitlines() or [""])[0]
        text = f"training uncompiled: the training step cannot be compiled ({type(error).__name__}: {why})"
        notice(text)
        with suppress(Exception):  # the next run need not try again with that compiler
            write_text(failed, f"{text}; to try again, remove {failed}")
        return None


def compiler_fingerprint() -> str:
    """Which compiler is called."""
    path = find_compiler()
    told = f"{path} {Path(path).stat().st_mtime_ns}" if path else ""
    return hashlib.blake2b(told.encode(), digest_size=4).hexdigest()


def find_compiler() -> str | None:
    """Where the C++ compiler is that torch would call."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"))


def cache_key(spec: Spec, plan: Plan, pixels: Tensor) -> str:
    """The hash of what a program is made from: all that shapes the step, our source, torch, and the processor."""
    told = spec_to_dict(program_key(spec) or spec)
    shaping = [told[part] for part in ("network", "loss", "objective", "latent_dim", "clip")]
    chosen = plan.precision, plan.threads, plan.channels_last
    parts = [shaping, pixels.shape, chosen, torch.__version__, processor_features(), SOURCE_HASH]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


# Of what shapes a step, as it is when it is imported: an edit elsewhere compiles nothing anew.
SOURCE_HASH = source_digest("models/*.py", "objectives/*.py", "training/steps/*.py", "training/optimizer.py")


@cache
def processor_features() -> str:
    """What the processor can do: a program for another might not run."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))


def static_inputs(spec: Spec, state: TrainingState) -> list[Tensor]:
    """The arguments that stay where they are: floats of the objective, clipping, and the tensors that a step moves."""
    numbers = [getattr(spec.objective, name) for name in tunable_floats(spec.objective)]
    numbers += [] if spec.clip is None else [spec.clip]
    moved = [tensor.detach() for row in state.optimizer.param_states for tensor in row[shares_weights(state) :]]
    return [*map(torch.tensor, map(float, numbers)), *moved]


def shares_weights(state: TrainingState) -> bool:
    """Whether the gradient is that of the model itself, and not of a copy, which comes first in a row of tensors."""
    return state.compute_model is state.model


def make_step_function(spec: Spec, plan: Plan, state: TrainingState) -> Callable[..., dict[str, Tensor]]:
    """The step as a function of tensors alone, those of `fixed` last."""
    names, settings, alone, clipped = (
        state.optimizer.param_names,
        tunable_floats(spec.objective),
        shares_weights(state),
        spec.clip is not None,
    )
    slopes_of = make_gradient_function(spec.objective, state.compute_model)

    def step(pixels: Tensor, noise: Tensor, *rest: Tensor) -> dict[str, Tensor]:
        progress, rate, root, *others = rest
        values = {name: others.pop(0) for name in settings}
        clip = others.pop(0) if clipped else None
        width = 5 - alone
        rows = [tuple(others[i : i + width]) for i in range(0, len(others), width)]
        rows = [(row[0], *row) if alone else row for row in rows]
        weights = {name: row[0] for name, row in zip(names, rows, strict=True)}
        x = pixels.to(torch.float32, memory_format=plan.memory_format).div_(255)
        with torch.enable_grad():
            slopes, (loss, (distortion, kl, parts)) = slopes_of(weights, values, x, noise, progress)
        adam_step(rows, [slopes[name] for name in names], rate, root, clip)
        return {"loss": loss, "distortion": distortion, "rate": kl, **parts}

    return step


def compile_step(file: Path, step: Callable[..., dict[str, Tensor]], inputs: Sequence[Tensor]) -> None:
    """Trace a step, and compile it into a library at `file`; beside it stand the names of what it gives."""
    copies = tuple(tensor.clone() for tensor in inputs)
    with quiet_compiler(), torch.no_grad():
        from torch._inductor import aot_compile
        from torch.fx.experimental.proxy_tensor import make_fx

        names = list(step(*copies))
        traced = make_fx(lambda *given: list(step(*given).values()))(*copies)
        for node in traced.graph.nodes:
            node.meta.clear()  # the compiler makes its own
        made = aot_compile(traced, copies, options=COMPILE_OPTIONS)
    write_json(file.parent / "terms.json", names)
    with atomic_write(file) as temporary:
        shutil.copyfile(str(made), temporary)


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """Say nothing of what the compiler says, and start no processes that outlive it."""
    from torch._inductor import config

    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings(), config.patch(compile_threads=1):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)
