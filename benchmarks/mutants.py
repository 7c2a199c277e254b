"""Change the source a little, at random, and count how often the tests notice.

    python benchmarks/mutants.py                                 # 40 mutants of each part, with seed 0
    python benchmarks/mutants.py spec verdicts --count 100 --seed 1
    python benchmarks/mutants.py --record mutants.jsonl --write docs/statistics.md

With `--record` an interrupted call goes on where it stopped: mutants that were caught are not tried again, and living
ones once the tests have changed.

A mutant is a module with one change: a comparison, a sign, an operator, a number, a condition, a label, a default, a
returned value, a minimum for a maximum, two arguments exchanged, an argument left out, or a statement deleted. The
tests of its part run on a copy of the tree in which the mutant takes the module's place, until the first failure. A
mutant whose tests do not end in time counts as caught. Sentences, docstrings and types are left alone.

`equivalent_mutants.toml` lists by hand, with a reason each, living mutants that behave like the original. They do not
count. The exit status is 0 if the tests of each part catch at least 95 % of the others.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
LEAST_CAUGHT = 0.95
LONGEST_LABEL = 24  # characters; longer strings are sentences
IMPORTED_ONCE = ("torch", "numpy", "scipy.stats", "scipy.special", "scipy.optimize", "sklearn.datasets", "pytest")


@dataclass(frozen=True)
class Part:
    """Modules below src/vaelab, and the tests that are to catch their mutants."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


PARTS = {
    "spec": Part(
        ("runs/spec.py",), ("tests/runs/test_spec.py", "tests/runs/test_spec_laws.py", "src/vaelab/runs/spec.py")
    ),
    "objectives": Part(("objectives/*.py",), ("tests/objectives", "src/vaelab/objectives")),
    "quantities": Part(
        ("studies/quantities.py",),
        ("tests/studies/test_quantities.py", "tests/studies/test_quantity_laws.py", "src/vaelab/studies/quantities.py"),
    ),
    "metrics": Part(
        ("evaluation/metrics.py", "evaluation/image_*.py", "evaluation/ratios.py", "evaluation/results.py"),
        (
            "tests/evaluation/test_results.py",
            "tests/evaluation/test_metric_laws.py",
            "tests/evaluation/test_ratios.py",
            "tests/evaluation/test_image_quality.py",
            "tests/evaluation/test_catalogue.py",
            "tests/evaluation/test_metrics.py",
        ),
    ),
    "statistics": Part(
        ("evaluation/statistics.py",), ("tests/evaluation/test_results.py", "tests/evaluation/test_statistics.py")
    ),
    "codes": Part(
        ("evaluation/aggregate_posterior.py", "evaluation/total_correlation.py"),
        (
            "tests/evaluation/test_metric_laws.py",
            "tests/evaluation/test_aggregate_posterior.py",
            "tests/evaluation/test_total_correlation.py",
        ),
    ),
    "evidence": Part(("evaluation/evidence.py",), ("tests/evaluation/test_evidence.py",)),
    "expectations": Part(
        ("studies/expectations.py",), ("tests/studies/test_expectations.py", "tests/studies/test_difference_labels.py")
    ),
    "verdicts": Part(
        ("studies/verdicts.py", "studies/anchors.py", "studies/multiplicity.py"),
        ("tests/studies/test_anchors.py", "tests/studies/test_multiplicity.py", "tests/studies/test_verdicts.py"),
    ),
    "looks": Part(("studies/sequential.py",), ("tests/studies/test_sequential.py",)),
    "claims": Part(
        ("studies/judging.py", "studies/looks.py", "studies/health.py"),
        (
            "tests/studies/test_verdict_boundaries.py",
            "tests/studies/test_judging.py",
            "tests/studies/test_looks.py",
            "tests/studies/test_health.py",
        ),
    ),
}


# What is changed.

COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
PAIRS = (("min", "max"), ("any", "all"), ("ceil", "floor"), ("mean", "sum"), ("log", "exp"), ("square", "abs"))
EXCHANGED = {one: other for pair in PAIRS for one, other in (pair, pair[::-1])}


def changed(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of a node with other fields."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What may take the place of a node."""
    match node:
        case ast.Constant():
            yield from (ast.Constant(value) for value in other_values(node.value))
        case ast.Compare():
            yield from other_comparisons(node)
        case ast.BoolOp():
            yield changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            yield from node.values
        case ast.BinOp() | ast.AugAssign() if type(node.op) in ARITHMETIC:
            yield changed(node, op=ARITHMETIC[type(node.op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.If() | ast.While() | ast.IfExp():
            yield changed(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Name() | ast.Attribute():
            yield from exchanged_names(node)
        case ast.Call():
            yield from other_calls(node)
        case ast.Return(value=value) if value is not None:
            yield ast.Return(ast.Constant(None))
    if is_deletable(node):
        yield ast.Pass()


def other_values(value: object) -> list[str | float]:
    """Values that may stand in place of a constant."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [other for other in {value + 1, value * 2, -value} if other != value]
    if isinstance(value, str) and 0 < len(value) <= LONGEST_LABEL and not (" " in value and value.endswith(".")):
        return [value + "X"]
    return []


def other_comparisons(node: ast.Compare) -> Iterator[ast.AST]:
    for index, op in enumerate(node.ops):
        for other in COMPARISONS[type(op)]:
            yield changed(node, ops=[*node.ops[:index], other(), *node.ops[index + 1 :]])


def exchanged_names(node: ast.Name | ast.Attribute) -> Iterator[ast.AST]:
    """`max` for `min`, and so on; a name that is no function of Python itself is left alone."""
    if isinstance(node, ast.Attribute) and node.attr in EXCHANGED:
        yield changed(node, attr=EXCHANGED[node.attr])
    if isinstance(node, ast.Name) and node.id in ("min", "max", "any", "all"):
        yield changed(node, id=EXCHANGED[node.id])


def other_calls(node: ast.Call) -> Iterator[ast.AST]:
    """The call with its first two arguments exchanged, where their order matters, and without each named one."""
    if len(node.args) > 1 and ast.unparse(node.func) not in ("min", "max", "math.hypot"):
        yield changed(node, args=[node.args[1], node.args[0], *node.args[2:]])
    for index, keyword in enumerate(node.keywords):
        rest = [*node.keywords[:index], *node.keywords[index + 1 :]]
        yield changed(node, keywords=rest)
        if keyword.arg in ("min", "max"):
            other = changed(keyword, arg=EXCHANGED[keyword.arg])
            yield changed(node, keywords=[*rest, other])


def is_deletable(node: ast.AST) -> bool:
    """Whether a statement can be deleted without a name being missing; not one that is only there to be overridden."""
    if isinstance(node, ast.Raise):
        return "NotImplementedError" not in ast.unparse(node)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    return isinstance(node, ast.AugAssign | ast.Continue | ast.Break)


def is_left_alone(parent: ast.AST, name: str, node: ast.AST) -> bool:
    """Whether a node is a docstring, an import, a type, part of a text, or only for type checkers."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(parent, ast.JoinedStr):
        return not isinstance(node, ast.FormattedValue)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return True
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        return True
    is_type = name == "returns" or (name == "annotation" and isinstance(parent, ast.arg))
    return is_type or name in ("format_spec", "bases") or isinstance(node, ast.Import | ast.ImportFrom)


@dataclass(frozen=True)
class Site:
    """A place in a module's tree and what may stand there."""

    parent: ast.AST
    field: str
    index: int | None
    replacement: ast.AST
    scope: str

    def put(self, node: ast.AST) -> ast.AST:
        """Put a node into the place; returns the one that was there."""
        before = getattr(self.parent, self.field)
        if self.index is None:
            setattr(self.parent, self.field, node)
            return before
        replaced = before[self.index]
        before[self.index] = node
        return replaced


def find_sites(parent: ast.AST, scope: str = "") -> Iterator[Site]:
    """All single changes of a tree, in the order of the source."""
    for name, value in ast.iter_fields(parent):
        listed = isinstance(value, list)
        for index, node in enumerate(value if listed else [value]):
            if not isinstance(node, ast.AST) or is_left_alone(parent, name, node):
                continue
            for replacement in replacements(node):
                yield Site(parent, name, index if listed else None, replacement, scope)
            is_scope = isinstance(node, ast.FunctionDef | ast.ClassDef)
            yield from find_sites(node, f"{scope}.{node.name}".lstrip(".") if is_scope else scope)


@dataclass(frozen=True)
class Mutant:
    """A module with one change. `change` holds the lines before and after it, and the function they are in."""

    module: str
    change: str
    source: str

    @property
    def is_changed(self) -> bool:
        """Whether there is a change: `return None` in place of itself is none."""
        return "\n" in self.change


class Module:
    """A module's tree, of which one mutant at a time is written."""

    def __init__(self, path: Path) -> None:
        self.name = str(path.relative_to(ROOT))
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.source = ast.unparse(self.tree)
        self.sites = list(find_sites(self.tree))

    def mutant(self, site: Site) -> Mutant:
        original = site.put(site.replacement)
        source = ast.unparse(ast.fix_missing_locations(self.tree))
        site.put(original)
        lines = difflib.unified_diff(self.source.splitlines(), source.splitlines(), n=0, lineterm="")
        change = [
            f"{line[0]} {line[1:].strip()}" for line in lines if line[:3] not in ("---", "+++") and line[0] in "+-"
        ]
        return Mutant(self.name, "\n".join([f"in {site.scope or 'the module'}:", *change]), source)


def find_modules(part: Part) -> list[Module]:
    paths = [path for pattern in part.modules for path in sorted((ROOT / "src/vaelab").glob(pattern))]
    return [Module(path) for path in paths]


def sample_mutants(modules: list[Module], count: int, seed: int) -> Iterator[Mutant]:
    """So many mutants of some modules, each possible change being as likely as the others."""
    places = [(module, site) for module in modules for site in module.sites]
    random.Random(seed).shuffle(places)
    mutants = (module.mutant(site) for module, site in places)
    yield from islice((mutant for mutant in mutants if mutant.is_changed), count)


# Running the tests.


class Workplace:
    """A copy of the tree in which the tests run, each time in a new process that starts with the imports made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("src", "tests", "benchmarks", "docs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile"]:
            shutil.copy(file, folder)
        for name in IMPORTED_ONCE:
            importlib.import_module(name)
        gc.freeze()  # so that the memory stays shared with the children

    def run_tests(self, tests: tuple[str, ...], seconds: float, compiles: bool = False) -> str:
        """Run tests until the first failure: "passed", "failed" or "too slow"."""
        child = os.fork()
        if child == 0:
            self._run_in_child(tests, compiles)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            finished, status = os.waitpid(child, os.WNOHANG)
            if finished:
                return "passed" if status == 0 else "failed"
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "too slow"

    def _run_in_child(self, tests: tuple[str, ...], compiles: bool) -> None:
        import pytest

        code = 1
        try:
            os.setsid()
            os.chdir(self.folder)
            sys.dont_write_bytecode = not compiles
            sys.path.insert(0, str(self.folder / "src"))
            os.environ |= {"PYTHONPATH": str(self.folder / "src"), "TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1"}
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # importing plugins takes longer than most tests
            tempfile.tempdir = None
            output = os.open(self.folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--basetemp=tmp", *tests]))
        finally:
            sys.stdout.flush()
            os._exit(code)

    def try_mutant(self, mutant: Mutant, tests: tuple[str, ...], seconds: float) -> str:
        """What the tests say with the mutant in the place of its module."""
        file = self.folder / mutant.module
        original = file.read_bytes()
        times = file.stat().st_atime, file.stat().st_mtime
        file.write_text(mutant.source, encoding="utf-8")
        os.utime(file, (0, 0))  # so that no compiled file fits it
        try:
            return self.run_tests(tests, seconds)
        finally:
            file.write_bytes(original)
            os.utime(file, times)
            for folder in self.folder.glob("vaelab-tests-*"):
                shutil.rmtree(folder, ignore_errors=True)


# The record and the table.


@dataclass(frozen=True)
class Result:
    """The outcome for one mutant. `key` is a digest of the mutated module, `tests` one of the tests of its part."""

    part: str
    module: str
    change: str
    outcome: str
    key: str
    tests: str

    def holds(self, tests: str) -> bool:
        """Whether it need not be tried again with other tests."""
        return self.outcome != "passed" or self.tests == tests


def read_record(file: Path | None) -> dict[str, Result]:
    if file is None or not file.exists():
        return {}
    results = [Result(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    return {result.key: result for result in results}


def digest_tests(part: Part) -> str:
    """A digest of the files with a part's tests."""
    digest = hashlib.blake2b(digest_size=16)
    for name in part.tests:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def read_equivalent() -> dict[tuple[str, str], str]:
    """The reason for which each listed mutant, by module and change, behaves like the original."""
    if not EQUIVALENT.exists():
        return {}
    entries = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["mutant"]
    return {(entry["module"], entry["change"].strip()): entry["reason"] for entry in entries}


@dataclass(frozen=True)
class Tally:
    """The results of a part."""

    name: str
    possible: int
    results: list[Result]

    def count(self, *outcomes: str) -> int:
        return sum(result.outcome in outcomes for result in self.results)

    @property
    def share(self) -> float:
        """Of the mutants that change the behaviour, those that were caught."""
        caught, alive = self.count("failed", "too slow"), self.count("passed")
        return caught / (caught + alive) if caught + alive else 1.0


def judge_part(name: str, workplace: Workplace, args: argparse.Namespace) -> Tally | None:
    """Try a sample of a part's mutants and add each result to the record; None if its tests fail without a mutant."""
    part, modules, equivalent = PARTS[name], find_modules(PARTS[name]), read_equivalent()
    record, tests = read_record(args.record), digest_tests(part)
    start = time.monotonic()
    if workplace.run_tests(part.tests, 3600, compiles=True) != "passed":
        print((workplace.folder / "output.txt").read_text(encoding="utf-8"), f"the tests of {name} fail as they are")
        return None
    seconds = time.monotonic() - start
    results = []
    for mutant in sample_mutants(modules, args.count, args.seed):
        key = hashlib.blake2b(mutant.source.encode(), digest_size=16).hexdigest()
        result = record.get(key)
        if (mutant.module, mutant.change) in equivalent:
            result = Result(name, mutant.module, mutant.change, "equivalent", key, tests)
        elif result is None or not result.holds(tests):
            outcome = workplace.try_mutant(mutant, part.tests, 30 + 5 * seconds)
            result = Result(name, mutant.module, mutant.change, outcome, key, tests)
            append(args.record, result)
        results.append(result)
    return Tally(name, sum(len(module.sites) for module in modules), results)


def append(file: Path | None, result: Result) -> None:
    if file is not None:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(result)) + "\n")


def print_tally(tally: Tally) -> None:
    """The living mutants of a part."""
    for result in tally.results:
        if result.outcome == "passed":
            print(f"alive: {result.module}\n{result.change}\n")


def table_lines(tallies: list[Tally]) -> list[str]:
    """The table of all parts."""
    lines = [
        "| part | possible mutants | tried | equivalent | caught | alive | caught of those that change behaviour |",
        "|---|---|---|---|---|---|---|",
    ]
    for tally in tallies:
        counts = len(tally.results), tally.count("equivalent"), tally.count("failed", "too slow"), tally.count("passed")
        lines.append(f"| {tally.name} | {tally.possible:,} | {' | '.join(map(str, counts))} | {tally.share:.0%} |")
    return lines


def write_table(file: Path, lines: list[str]) -> None:
    """Replace the table in a document, between its markers."""
    before, start, rest = file.read_text(encoding="utf-8").partition("<!-- mutants -->")
    _, end, after = rest.partition("<!-- end of mutants -->")
    file.write_text(before + start + "\n\n" + "\n".join(lines) + "\n\n" + end + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--count", type=int, default=40, help="mutants of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="a file of results; those that still hold are not computed again")
    parser.add_argument("--write", type=Path, help="the document whose table is replaced")
    args = parser.parse_args()
    names, tallies = args.parts or list(PARTS), []
    with tempfile.TemporaryDirectory(prefix="vaelab-mutants-") as folder:
        workplace = Workplace(Path(folder))
        for name in names:
            tally = judge_part(name, workplace, args)
            if tally is not None:
                print_tally(tally)
                tallies.append(tally)
    lines = table_lines(tallies)
    print("\n".join(lines))
    if args.write:
        write_table(args.write, lines)
    is_enough = len(tallies) == len(names) and all(tally.share >= LEAST_CAUGHT for tally in tallies)
    sys.exit(0 if is_enough else 1)


if __name__ == "__main__":
    main()
