"""The architecture: packages by subject, imports downwards only, no rings, nothing pickled."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vaelab

ROOT = Path(vaelab.__file__).parent

# From the ground up: a package imports from those before it, and from itself without a ring.
PACKAGES = (
    "core",
    "datasets",
    "models",
    "objectives",
    "runs",
    "evaluation",
    "training",
    "analysis",
    "studies",
    "figures",
    "reporting",
    "api",
    "cli",
)
LEVEL = {package: level for level, package in enumerate(PACKAGES)}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


MODULES = {module_of(file): file for file in ROOT.rglob("*.py") if file.parent != ROOT or file.stem == "api"}


def imports_of(file: Path) -> set[str]:
    """The modules of vaelab that a file imports anywhere, except for annotations."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    modules = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("vaelab"):
            continue
        package = (node.module or "").removeprefix("vaelab").removeprefix(".")
        for alias in node.names:
            inner = f"{package}.{alias.name}".removeprefix(".")
            modules.add(inner if inner in MODULES else package)
    return modules


def package_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_package_has_its_level() -> None:
    assert {package_of(module) for module in MODULES} == set(PACKAGES)


def test_packages_import_downwards() -> None:
    upwards = []
    for module, file in MODULES.items():
        for other in imports_of(file):
            if LEVEL[package_of(other)] > LEVEL[package_of(module)]:
                upwards.append(f"{module} -> {other}")
    assert not upwards


def test_modules_import_without_rings() -> None:
    TopologicalSorter({module: imports_of(file) for module, file in MODULES.items()}).prepare()


def test_no_verb_shares_its_name_with_a_package() -> None:
    packages = {folder.name for folder in ROOT.iterdir() if folder.is_dir()}
    assert not packages & set(vaelab.__all__)


def test_nothing_is_pickled() -> None:
    for file in MODULES.values():
        text = file.read_text()
        assert "torch.load" not in text, file
        assert "import pickle" not in text, file


@pytest.mark.parametrize("module", ["api", "cli.main", "runs.run", "core.codec", "core.jobs"])
def test_what_every_command_imports_is_light(module: str) -> None:
    check = (
        f"import sys, vaelab.{module}; print(*sorted({{'torch', 'numpy', 'matplotlib', 'pyarrow'}} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_models_that_are_only_counted_do_not_import_the_compiler() -> None:
    count = (
        "import sys, torch; from vaelab.core.registry import members; from vaelab.models.networks import Network\n"
        "from vaelab.runs.spec import Spec, build_model\n"
        "with torch.device('meta'):\n"
        "    for network in members(Network):\n"
        "        build_model(Spec(network=network()), (3, 32, 32))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False", "it takes a second of every training"


PUBLIC_PACKAGES = ("models", "objectives", "datasets", "evaluation", "analysis", "studies", "figures")


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_public_names_of_a_package_are_there_and_are_imported_late(package: str) -> None:
    module = importlib.import_module(f"vaelab.{package}")
    assert module.__all__ == sorted(set(module.__all__))
    submodules = {file.stem for file in (ROOT / package).glob("*.py")}
    assert not submodules & set(module.__all__), "a name and a module would be one"
    for name in module.__all__:
        assert getattr(module, name) is not None
    check = f"import sys, vaelab.{package}; print(*sorted({{'torch', 'numpy', 'matplotlib'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_the_names_of_vaelab_are_the_verbs_and_four_more() -> None:
    from vaelab.cli.main import COMMANDS

    assert set(vaelab.__all__) == COMMANDS.keys() - {"list"} | {"Run", "Spec", "UserError", "load"}
    assert callable(vaelab.list)
    assert isinstance(vaelab.__version__, str)
