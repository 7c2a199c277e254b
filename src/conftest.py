"""What the examples in docstrings use: a cache and a folder of their own, a small trained run and a picture."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vaelab.runs.run import Run

if "vaelab-tests-" not in os.environ.get("VAELAB_CACHE", ""):  # before anything reads it
    os.environ["VAELAB_CACHE"] = tempfile.mkdtemp(prefix="vaelab-tests-")


@pytest.fixture(scope="session")
def example_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the bundled digits, trained for one epoch."""
    import vaelab

    out = tmp_path_factory.mktemp("example")
    settings = {"network": "mlp:hidden=16", "latent_dim": 2, "epochs": 1}
    return vaelab.train("digits", threads=1, figures=False, out=out, **settings)


@pytest.fixture(scope="session")
def example_picture(tmp_path_factory: pytest.TempPathFactory, example_run: Run) -> Path:
    """One of the digits as a PNG file."""
    from PIL import Image

    file = tmp_path_factory.mktemp("pictures") / "digit.png"
    Image.fromarray(example_run.images("test").uint8(0)[0, 0]).save(file)
    return file


@pytest.fixture(autouse=True)
def _verbs_have_a_run(
    request: pytest.FixtureRequest, doctest_namespace: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give the examples of the verbs `vaelab`, `run` and `picture`, and a folder to write to."""
    if not request.node.name.startswith("vaelab.api"):
        return
    import vaelab

    monkeypatch.chdir(tmp_path)
    doctest_namespace["vaelab"] = vaelab
    doctest_namespace["run"] = request.getfixturevalue("example_run")
    doctest_namespace["picture"] = request.getfixturevalue("example_picture")
