"""A family has the named classes of its package, wherever they stand in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

import vaelab
from vaelab.core.registry import is_family, members
from vaelab.models.likelihoods import Distortion, Likelihood, LogitOutput
from vaelab.models.networks import Mlp, Network
from vaelab.models.priors import Prior
from vaelab.objectives.objective import Objective

FAMILIES = [Network, Distortion, Likelihood, Prior, Objective]

PLAIN_NETWORK = """

from vaelab.models.networks import Mlp as _Mlp


@dataclass(frozen=True)
class Plain(Network):
    name: ClassVar[str] = "plain"
    encoder = _Mlp(()).encoder
    decoder = _Mlp(()).decoder
"""

HEADER = "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom vaelab.models.networks import Network\n"

USE = """
from vaelab.core.registry import members
from vaelab.models.networks import Network
from vaelab.runs.spec import Spec, updated
print(updated(Spec(), {"network": "plain"}).network.name, len(members(Network)))
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_different_and_members_have_a_default(family: type) -> None:
    assert is_family(family)
    names = [name for member in members(family) for name in (member.name, *getattr(member, "short", ()))]  # type: ignore[attr-defined]
    assert len(set(names)) == len(names)
    assert all(isinstance(member(), family) for member in members(family))


def test_what_stands_between_a_family_and_its_members_is_no_member() -> None:
    assert LogitOutput not in members(Distortion)
    assert not is_family(Mlp)


@pytest.mark.parametrize("file", ["models/networks.py", "models/plain.py"])
def test_a_class_at_the_end_of_a_file_or_in_a_new_one_is_found(file: str, tmp_path: Path) -> None:
    package = Path(copytree(Path(vaelab.__file__).parent, tmp_path / "vaelab"))
    with (package / file).open("a") as module:
        module.write(PLAIN_NETWORK if (package / file).stat().st_size else HEADER + PLAIN_NETWORK)
    command = [sys.executable, "-c", USE]
    result = subprocess.run(
        command, env={"PYTHONPATH": str(tmp_path), "PATH": ""}, capture_output=True, text=True, check=True
    )
    assert result.stdout == f"plain {len(members(Network)) + 1}\n"
