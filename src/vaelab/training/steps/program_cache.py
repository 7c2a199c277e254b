"""The cache of compiled programs: made once for all runs of a shape, checked, and loaded in milliseconds.

A program lies under the hash of all that it was made from: the settings that shape it, our source, torch, and the
processor. It is machine code, so it is loaded only from a folder that nobody else can write to, and only if its digest
is the one that was stored when it was made. Anything else is made anew. torch's compiler is imported only for that.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaelab.core.cache import mark_used
from vaelab.core.console import notice
from vaelab.core.files import atomic_write, cache_folder, remove_stale_temp_files, write_json, write_text
from vaelab.core.version import source_digest
from vaelab.runs.spec import Spec, spec_to_dict
from vaelab.training.plan import Plan, program_key

__all__ = ["NO_COMPILER", "Program", "cache_key", "compile_step", "find_compiler", "load_or_compile"]

NO_COMPILER = "training uncompiled, which takes longer: no C++ compiler is found (g++, clang++ on macOS, or $CXX)"

SHAPING_SETTINGS = ("network", "loss", "objective", "prior", "latent_dim", "clip")

COMPILE_OPTIONS = {
    "aot_inductor.package": False,
    "aot_inductor.compile_wrapper_opt_level": "O0",  # of the code that calls the kernels: 2 s sooner, and as fast
}

# The source that shapes a step, as it was when this process imported it: an edit elsewhere compiles nothing anew.
SOURCE_HASH = source_digest("models/*.py", "objectives/*.py", "training/steps/*.py", "training/optimizer.py")

OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Program:
    """A compiled program, loaded from a library whose digest is the one that was stored with it.

    Raises:
        Exception: Of any kind, if a file is missing or is not the one that was made.
    """

    def __init__(self, file: Path) -> None:
        record = json.loads(_record_file(file).read_text(encoding="utf-8"))
        if record["digest"] != _digest(file):
            raise ValueError(f"{file} has changed since it was made")
        library: Any = torch._C._aoti  # pyright: ignore[reportAttributeAccessIssue]
        self.runner = library.AOTIModelContainerRunnerCpu(str(file), 1)
        self.term_names: list[str] = record["terms"]

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Run the program; gives the terms of the loss."""
        return dict(zip(self.term_names, self.runner.run(list(inputs)), strict=True))


def load_or_compile(key: str, compile_to: Callable[[Path], None]) -> Program | None:
    """The program with this key: from the cache, or compiled now.

    Args:
        key: The hash of all that the program is made from.
        compile_to: Compiles the program into a file.

    Returns:
        The program; None, with a notice, where it cannot be made.
    """
    from filelock import FileLock

    programs = _private_folder(cache_folder() / "programs")
    if programs is None:
        return None
    folder = programs / key
    file = folder / "step.so"
    mark_used(folder)
    with suppress(Exception):  # a program that is missing or damaged is made anew
        return Program(file)
    if not find_compiler():
        notice(NO_COMPILER)
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            with suppress(Exception):  # another process may have made it in the meantime
                return Program(file)
            return _compile(file, compile_to)
    except OSError as error:
        notice(f"training uncompiled: {folder} cannot be used ({error.strerror})")
        return None


def _compile(file: Path, compile_to: Callable[[Path], None]) -> Program | None:
    """Compile a program; None, with a notice, where this fails now or failed before with the same compiler."""
    failure_file = file.parent / f"failed-{compiler_fingerprint()}.txt"
    if failure_file.exists():
        notice(failure_file.read_text(encoding="utf-8"))
        return None
    try:
        remove_stale_temp_files(file.parent, exclusive=True)
        notice("compiling the training step, once for all runs of this shape")
        compile_to(file)
        return Program(file)
    except Exception as error:  # of whatever kind compilers raise
        _report_failure(error, failure_file)
        return None


def _report_failure(error: Exception, failure_file: Path) -> None:
    """Say that a step cannot be compiled, and remember it, so that the next run does not try this compiler again."""
    first_line = (str(error).splitlines() or [""])[0]
    text = f"training uncompiled: the training step cannot be compiled ({type(error).__name__}: {first_line})"
    notice(text)
    with suppress(Exception):
        write_text(failure_file, f"{text}; to try again, remove {failure_file}")


def _private_folder(folder: Path) -> Path | None:
    """A folder that belongs to this user and that nobody else can use; None, with a notice, where it cannot be had.

    What lies in a folder that others could write to is deleted: it may not be ours.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not hasattr(os, "getuid"):  # on Windows the user's own cache folder is private
            return folder
        status = folder.stat()
        if {status.st_uid, folder.lstat().st_uid} != {os.getuid()}:
            notice(f"training uncompiled: {folder} belongs to another user; set VAELAB_CACHE to a folder of your own")
            return None
        if stat.S_IMODE(status.st_mode) != 0o700:
            folder.chmod(0o700)
        if status.st_mode & OTHERS_CAN_WRITE:
            _remove_entries(folder)
    except OSError as error:
        notice(f"training uncompiled: {folder} cannot be used ({error.strerror})")
        return None
    return folder


def _remove_entries(folder: Path) -> None:
    """Delete all that lies in a folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _record_file(file: Path) -> Path:
    """The file beside a program that holds its digest and the names of its terms."""
    return file.with_name("program.json")


def _digest(file: Path) -> str:
    """The hash of a file's content."""
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()


def cache_key(spec: Spec, plan: Plan, shape: Sequence[int]) -> str:
    """The hash of all that a program is made from, for batches of `shape` (B, C, H, W)."""
    table = spec_to_dict(program_key(spec) or spec)
    settings = [table[name] for name in SHAPING_SETTINGS]
    choices = plan.precision, plan.threads, plan.channels_last
    parts = [settings, list(shape), choices, torch.__version__, processor_features(), SOURCE_HASH]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


@cache
def processor_features() -> str:
    """What the processor can do: a program for another processor might not run."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    features = {line for line in lines if line.startswith(("flags", "model name", "Features"))}
    return "".join(sorted(features))


def find_compiler() -> str | None:
    """The path of the C++ compiler that torch calls, if there is one."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"))


def compiler_fingerprint() -> str:
    """A hash of the compiler's path and date."""
    path = find_compiler()
    text = f"{path} {Path(path).stat().st_mtime_ns}" if path else ""
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def compile_step(file: Path, step: Callable[..., dict[str, Tensor]], inputs: Sequence[Tensor]) -> None:
    """Trace a step and compile it into a library at `file`, with its digest and the names of its terms beside it."""
    examples = tuple(tensor.clone() for tensor in inputs)
    with quiet_compiler(), torch.no_grad():
        from torch._inductor import aot_compile
        from torch.fx.experimental.proxy_tensor import make_fx

        term_names = list(step(*examples))
        traced = make_fx(lambda *tensors: list(step(*tensors).values()))(*examples)
        for node in traced.graph.nodes:
            node.meta.clear()  # the compiler makes its own
        library = aot_compile(traced, examples, options=COMPILE_OPTIONS)
    with atomic_write(file) as temporary:
        shutil.copyfile(str(library), temporary)
    write_json(_record_file(file), {"terms": term_names, "digest": _digest(file)})


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """Show nothing of what the compiler prints, and start no processes that outlive it."""
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
