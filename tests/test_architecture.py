"""The floors of the house: imports go downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import vaelab

FLOORS = [
    ["adam", "errors", "pace", "ranks", "laws", "files", "console", "streams", "densities", "images", "separation"],
    ["aggregate", "pictures", "workers", "likelihoods", "networks", "claims", "measures", "classifier"],
    ["sources", "models"],
    ["building"],
    ["loading", "objectives"],
    ["metrics", "spec"],
    ["diagnosis", "evidence", "plan", "store"],
    ["state"],
    ["stack"],
    ["compiled"],
    ["steps"],
    ["cluster"],
    ["training", "interpolation", "projections", "embedding"],
    ["examinations"],
    ["evaluation"],
    ["protocol"],
    ["results"],
    ["studying", "page"],
    ["diagram"],
    ["figures"],
    ["gallery", "comparisons"],
    ["interactive"],
    ["exhibits"],
    ["document"],
    ["publishing"],
    ["verbs"],
    ["cli"],
]
HOUSE = Path(vaelab.__file__).parent
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}


def imported(file: Path) -> set[str]:
    """The modules of vaelab that a file imports anywhere, except for annotations."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "vaelab":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaelab."):
            found.add((node.module or "").split(".")[1])
    return found - {"__version__"}


def test_imports_go_downwards() -> None:
    files = {file.stem: file for file in HOUSE.glob("*.py") if not file.stem.startswith("__")}
    assert set(files) == set(FLOOR), "every module has its floor"
    upwards = [f"{name} -> {other}" for name, file in files.items() for other in imported(file)
               if FLOOR[other] >= FLOOR[name] and not (FLOOR[other] == FLOOR[name] == 0)]  # fmt: skip
    assert not upwards


def test_nothing_is_pickled() -> None:
    text = "".join(file.read_text() for file in HOUSE.glob("*.py"))
    assert "torch.load" not in text
    assert "import pickle" not in text
