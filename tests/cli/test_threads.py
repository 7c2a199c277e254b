"""Threads of the verbs that compute."""

from __future__ import annotations

import pytest
import torch

import vaelab
from vaelab.cli.main import run_cli
from vaelab.core.errors import UserError
from vaelab.runs.run import Run


def test_every_verb_that_computes_takes_threads(
    trained: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, if nothing is said: convolutions in more are many times slower on a busy machine."""
    used: list[int] = []
    set_num_threads = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: used.append(threads) or set_num_threads(threads))
    vaelab.sample(trained, n=2)
    assert used[0] == 1
    for function in (vaelab.evaluate, vaelab.doctor, vaelab.sample, vaelab.interpolate):
        with pytest.raises(UserError, match="threads must be from 1 to"):
            function(trained, threads=5000)
    assert run_cli(["sample", str(trained.path), "--n", "2", "--threads", "0"]) == 2
    assert "threads must be from 1 to" in capsys.readouterr().err
