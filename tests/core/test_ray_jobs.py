"""A study on a real Ray cluster of two nodes on this machine, one of which dies while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vaelab.cli import main
from vaelab.runs.run import find_runs

ray = pytest.importorskip("ray")

STUDY = """
title = "Codes"
about = "On a cluster."
data = "digits"
seeds = 2

[base]
network = "mlp:hidden=32"
loss = "ce"
epochs = 30

[[experiments]]
id = "codes"
title = "Codes"
question = "How many?"
vary = { latent_dim = [2, 4, 8] }
figures = ["bars"]
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def num_alive_nodes() -> int:
    return sum(node["Alive"] for node in ray.nodes())


@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_node_that_dies_changes_nothing(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "codes.toml").write_text(STUDY)
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    begun = threading.Event()

    def strike() -> None:
        while len([run for run in find_runs(tmp_path / "ray" / "runs") if run.history]) < 2:
            time.sleep(0.05)
        cluster.remove_node(other, allow_graceful=False)
        begun.set()

    threading.Thread(target=strike, daemon=True).start()
    words = ["study", str(tmp_path / "codes.toml"), "--out"]
    assert main.run_cli([*words, str(tmp_path / "ray"), "--backend", "ray"]) == 0, capsys.readouterr().err
    assert begun.is_set()
    for _ in range(600):  # Ray's table of nodes may be behind what has happened
        if num_alive_nodes() == 1:
            break
        time.sleep(0.1)
    assert num_alive_nodes() == 1
    assert main.run_cli([*words, str(tmp_path / "local"), "--workers", "2"]) == 0
    for name in ("table.csv", "claims.json"):
        tables = [tmp_path / out / "studies" / "codes" / name for out in ("ray", "local")]
        assert tables[0].read_bytes() == tables[1].read_bytes()
