"""The mutation tester: which changes it makes, and that those listed as equivalent can still be made."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]

SOURCE = '''
"""A docstring."""
from math import floor

__all__ = ["f"]
LEVEL: float = 0.05


def f(x: int, limit: int = 3) -> str:
    """Another one."""
    if x < limit and not x == 7:
        raise ValueError(f"at least {limit - 1} of them, a long sentence")
    return min(x, key=floor) + "label"
'''

CHANGES = {
    "LEVEL: float = 1.05",
    "LEVEL: float = 0.1",
    "LEVEL: float = -0.05",
    "def f(x: int, limit: int=4) -> str:",
    "def f(x: int, limit: int=6) -> str:",
    "def f(x: int, limit: int=-3) -> str:",
    "if not (x < limit and (not x == 7)):",
    "if x < limit or not x == 7:",
    "if x < limit:",
    "if not x == 7:",
    "if x <= limit and (not x == 7):",
    "if x >= limit and (not x == 7):",
    "if x < limit and x == 7:",
    "if x < limit and (not x != 7):",
    "if x < limit and (not x == 8):",
    "if x < limit and (not x == 14):",
    "if x < limit and (not x == -7):",
    "pass",
    "raise ValueError(f'at least {limit + 1} of them, a long sentence')",
    "raise ValueError(f'at least {limit - 2} of them, a long sentence')",
    "raise ValueError(f'at least {limit - -1} of them, a long sentence')",
    "return None",
    "return min(x, key=floor) - 'label'",
    "return max(x, key=floor) + 'label'",
    "return min(x) + 'label'",
    "return min(x, key=floor) + 'labelX'",
}


@pytest.fixture(scope="module")
def mutants() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "benchmarks/mutants.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    return module


def test_every_kind_of_change_is_made(mutants: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "m.py").write_text(SOURCE)
    module = mutants.Module(tmp_path / "m.py")
    made = [module.mutant(site) for site in module.sites]
    assert {mutant.change.splitlines()[-1].removeprefix("+ ") for mutant in made} == CHANGES
    assert len(made) == len(CHANGES), "each once"
    assert all(mutant.is_changed for mutant in made)
    assert ast.unparse(module.tree) == module.source, "one at a time: the tree is as it was"
    first = [mutant.change for mutant in mutants.sample_mutants([module], 5, seed=1)]
    assert first == [mutant.change for mutant in mutants.sample_mutants([module], 5, seed=1)]
    assert first != [mutant.change for mutant in mutants.sample_mutants([module], 5, seed=2)]


def test_parts_have_modules_and_tests(mutants: ModuleType) -> None:
    for name, part in mutants.PARTS.items():
        assert mutants.find_modules(part), name
        assert all((ROOT / test).exists() for test in part.tests), name


def test_what_is_listed_as_equivalent_is_still_in_the_source(mutants: ModuleType) -> None:
    for (name, change), reason in mutants.read_equivalent().items():
        lines = {line.strip() for line in mutants.Module(ROOT / name).source.splitlines()}
        before = [line.removeprefix("- ") for line in change.splitlines() if line.startswith("- ")]
        assert before, change
        assert set(before) <= lines, f"{name} has changed, and no mutant is {change}"
        assert reason
