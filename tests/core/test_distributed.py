"""Several processes that train one model together, started by `torchrun` for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vaelab.core.distributed import DistributedContext
from vaelab.core.tensors import read_tensors
from vaelab.runs.run import find_runs

SETTINGS = ["train", "digits", "--network", "mlp:hidden=32", "--latent-dim", "4", "--batch-size", "97", "--seed", "3",
            "--clip", "50", "--flips", "--precision", "float32", "--threads", "1", "--no-figures"]  # fmt: skip


def start(processes: int, *words: object) -> subprocess.Popen[str]:
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [sys.executable, "-m", *(torchrun if processes > 1 else []), "vaelab", *SETTINGS, *map(str, words)]
    environment = os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def train(processes: int, *words: object) -> tuple[str, str]:
    process = start(processes, *words)
    printed, said = process.communicate()
    assert process.returncode == 0, said
    return printed, said


def kill(process: subprocess.Popen[str]) -> None:
    """At once, with its children, which have sessions of their own."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], stdout=subprocess.PIPE, text=True, check=True)
    for one in (process.pid, *map(int, children.stdout.split())):
        os.kill(one, signal.SIGKILL)
    process.communicate()


def weights(out: Path) -> dict[str, torch.Tensor]:
    [run] = find_runs(out)
    return read_tensors(run.path / "weights.safetensors")[0]


def test_shares_make_up_the_batch() -> None:
    for size in (1, 2, 3, 7):
        shares = [DistributedContext(rank, size).share(5) for rank in range(size)]
        assert [i for share in shares for i in range(5)[share]] == list(range(5))


def test_two_processes_are_one_and_resume_after_a_kill(tmp_path: Path) -> None:
    epochs = ["--epochs", "30"]
    train(1, *epochs, "--out", tmp_path / "one")
    printed, said = train(2, *epochs, "--out", tmp_path / "two")
    assert (printed.count("run "), said.count("latent dimensions")) == (1, 1), "one of them speaks"
    for name, tensor in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, rtol=1e-3, atol=1e-4)

    for again, out in ((2, tmp_path / "killed"), (1, tmp_path / "alone")):
        process = start(2, *epochs, "--out", out)
        while process.poll() is None and not any(len(run.history) >= 3 for run in find_runs(out)):
            time.sleep(0.05)
        kill(process)
        assert not find_runs(out)[0].finished, "it was killed too late"
        assert "resumed" in train(again, *epochs, "--out", out)[0]
    for name, tensor in weights(tmp_path / "two").items():
        assert torch.equal(weights(tmp_path / "killed")[name], tensor), "the same bytes"
        torch.testing.assert_close(weights(tmp_path / "alone")[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("setting", [["--objective", "beta-tc"], ["--loss", "gaussian:sigma=optimal"]])
def test_losses_of_whole_batches_are_refused(setting: list[str], tmp_path: Path) -> None:
    process = start(2, *setting, "--out", tmp_path)
    _, said = process.communicate()
    assert process.returncode != 0
    assert "looks at a batch as a whole" in said
    assert not find_runs(tmp_path)
