"""Measures of how easy the source is to read: print the table of ARCHITECTURE.md.

    python benchmarks/structure.py                 # the table of vaelab; other packages that are installed beside it
    python benchmarks/structure.py zuko azula      # name the other packages
    python benchmarks/structure.py --path          # each function on the way from the command line to the gradient

How it is counted:

- A line of code is a line that is neither blank nor a comment nor part of a docstring.
- AST nodes per line: all nodes of all functions without their docstrings, divided by their lines of code.
- Comprehensions per 100 lines that are not blank.
- Names in several modules: of the names of top-level functions and classes, the share that several modules define.
- A function's length is the number of its lines in the file, with signature and docstring.
- A repeated line is in a run of at least six lines of code that occurs a second time, spaces apart.
- Functions with an example: public functions, methods and classes whose docstring has a `>>>` line.
- The way to the gradient is traced while `vaelab train digits --epochs 1` runs; see `trace_path`.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import inspect
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from types import FrameType

RUN_LENGTH = 6  # lines that repeat, at least
LEVELS = (
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
    "integrations",
    "explorer",
    "api",
    "cli",
)
Function = ast.FunctionDef | ast.AsyncFunctionDef
SHARES = {"names_in_several_modules", "repeated_lines"}
Place = tuple[str, int]  # a file and the line where a function begins
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


# Modules, or functions of modules, that are called before the first gradient for another purpose than the gradient, or
# whose inside one need not read to follow the way to it. Functions that only these call are left out with them.
SIDE_PURPOSES = {
    "cli.arguments._build_app": "the flags of the parser",
    "core.codec": "reading and checking settings",
    "core.registry": "reading and checking settings",
    "core.constraints": "reading and checking settings",
    "core.errors": "reading and checking settings",
    "runs.spec.accepted_names": "reading and checking settings",
    "runs.spec.spec_settings": "reading and checking settings",
    "runs.spec.check_spec": "reading and checking settings",
    "runs.spec._resolve_attribute": "reading and checking settings",
    "api._check_setting_names": "reading and checking settings",
    "api._check_snapshots": "reading and checking settings",
    "training.fit._check_inputs": "reading and checking settings",
    "datasets.loading._check_settings": "reading and checking settings",
    "core.version": "the key of the run",
    "runs.spec.run_key": "the key of the run",
    "runs.spec.spec_to_dict": "the key of the run",
    "runs.spec.spec_from_dict": "the key of the run",
    "datasets.sources.source": "finding the data",
    "datasets.cache": "reading and checking the cache",
    "datasets.loading._dataset_facts": "what is said before training",
    "runs.summary": "what is said before training",
    "api._announce_length": "what is said before training",
    "training.plan.explain_plan": "what is said before training",
    "core.console": "messages and progress",
    "training.progress": "messages and progress",
    "core.files": "writing files",
    "core.interrupts": "saving and Ctrl-C",
    "training.recorder": "saving and Ctrl-C",
    "training.checkpoints": "saving and Ctrl-C",
    "training.provenance": "the record of the run",
    "training.fit._needs_training": "finding and resuming a run",
    "training.fit._prepare_files": "finding and resuming a run",
    "training.state.restore_state": "finding and resuming a run",
    "training.budget": "the expected time",
    "core.distributed": "several processes",
    "core.devices": "memory and threads",
    "training.plan.program_key": "runs that are trained as one",
    "training.plan.tunable_floats": "runs that are trained as one",
    "training.fit._stackable_groups": "runs that are trained as one",
    "training.fit._groups_in_step": "runs that are trained as one",
    "training.steps.stacked": "runs that are trained as one",
    "training.steps.distributed": "several processes",
    "training.steps.compiled": "compiled steps",
    "training.steps.choose.possible_plan": "compiled steps",
    "training.plan._is_worth_compiling": "compiled steps",
    "training.loop._prefetch": "reading ahead",
}


@dataclass(frozen=True)
class Module:
    """One parsed source file."""

    name: str
    text: str
    tree: ast.Module
    code_lines: frozenset[int]


@dataclass(frozen=True)
class Structure:
    """The measures of one package."""

    files: int
    code_lines: int
    nodes_per_line: float
    comprehensions_per_100_lines: float
    formatter_off: int
    names_in_several_modules: float
    function_median: float
    function_p90: float
    repeated_lines: float
    examples: int


@dataclass(frozen=True)
class Imports:
    """How the modules of our package import each other."""

    upwards: list[str]
    rings: int


@dataclass(eq=False)
class Step:
    """A function that is called on the way to the first gradient."""

    file: str
    name: str
    lines: int
    purpose: str | None
    """Why it is called, where the gradient does not need it."""
    on_stack: bool = False
    """Whether it is still running when the gradient is computed."""
    calls: list[Step] = field(default_factory=list)


def read_modules(root: Path) -> list[Module]:
    """Parse every Python file below a folder."""
    modules = []
    for file in sorted(root.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text)
        name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        modules.append(Module(name, text, tree, find_code_lines(file, tree)))
    return modules


def find_code_lines(file: Path, tree: ast.Module) -> frozenset[int]:
    """The numbers of the lines that hold code: no blank line, no comment, no docstring."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    layout |= {tokenize.ENCODING, tokenize.ENDMARKER}
    lines: set[int] = set()
    with file.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type not in layout:
                lines.update(range(token.start[0], token.end[0] + 1))
    for docstring in find_docstrings(tree):
        lines.difference_update(range(docstring.lineno, last_line(docstring) + 1))
    return frozenset(lines)


def last_line(node: ast.stmt) -> int:
    """The last line of a statement."""
    return node.end_lineno or node.lineno


def docstring_of(node: ast.AST) -> ast.Expr | None:
    """The statement that is the docstring of a module, class or function, if it has one."""
    if not isinstance(node, ast.Module | ast.ClassDef | Function) or not node.body:
        return None
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first
    return None


def find_docstrings(tree: ast.AST) -> list[ast.Expr]:
    """The docstrings of a tree and of everything within it."""
    docstrings = [docstring_of(node) for node in ast.walk(tree)]
    return [docstring for docstring in docstrings if docstring is not None]


def find_functions(tree: ast.AST) -> list[Function]:
    """All functions and methods, nested ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def outer_functions(tree: ast.AST) -> Iterator[Function]:
    """Functions and methods, without those that are nested in another function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield node
        else:
            yield from outer_functions(node)


def count_body_lines(function: Function, code_lines: frozenset[int]) -> int:
    """The number of code lines of a function's body, without signature and docstring."""
    return len(code_lines & set(range(function.body[0].lineno, last_line(function) + 1)))


def nodes_per_line(modules: list[Module]) -> float:
    """AST nodes of functions without their docstrings, for each line of code of functions."""
    nodes = 0
    lines = 0
    for module in modules:
        for function in outer_functions(module.tree):
            nodes += sum(1 for _ in ast.walk(function)) - 2 * len(find_docstrings(function))
            lines += len(module.code_lines & set(range(function.lineno, last_line(function) + 1)))
    return nodes / max(lines, 1)


def share_of_shared_names(modules: list[Module]) -> float:
    """Of the names of top-level functions and classes, the share that several modules define."""
    counts: Counter[str] = Counter()
    for module in modules:
        definitions = [node for node in module.tree.body if isinstance(node, Function | ast.ClassDef)]
        counts.update({definition.name for definition in definitions})
    shared = [name for name, count in counts.items() if count > 1]
    return len(shared) / max(len(counts), 1)


def share_of_repeated_lines(modules: list[Module]) -> float:
    """The share of code lines in a run of lines that occurs a second time."""
    runs: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    total = 0
    for index, module in enumerate(modules):
        lines = module.text.splitlines()
        normalised = [" ".join(lines[number - 1].split()) for number in sorted(module.code_lines)]
        total += len(normalised)
        for start in range(len(normalised) - RUN_LENGTH + 1):
            run = tuple(normalised[start : start + RUN_LENGTH])
            runs.setdefault(run, []).append((index, start))
    repeated: set[tuple[int, int]] = set()
    for places in runs.values():
        if len(places) == 1:
            continue
        for index, start in places:
            repeated.update((index, start + offset) for offset in range(RUN_LENGTH))
    return len(repeated) / max(total, 1)


def count_examples(modules: list[Module]) -> int:
    """The number of docstrings with a `>>>` line."""
    count = 0
    for module in modules:
        for docstring in find_docstrings(module.tree):
            count += ">>> " in ast.literal_eval(docstring.value)
    return count


def measure_structure(root: Path) -> Structure:
    """All measures of the package in a folder."""
    modules = read_modules(root)
    lengths = []
    comprehensions = 0
    filled_lines = 0
    formatter_off = 0
    for module in modules:
        for function in find_functions(module.tree):
            lengths.append(last_line(function) - function.lineno + 1)
        comprehensions += sum(isinstance(node, COMPREHENSIONS) for node in ast.walk(module.tree))
        filled_lines += sum(bool(line.strip()) for line in module.text.splitlines())
        formatter_off += len(re.findall(r"#\s*fmt:\s*(?:skip|off)", module.text))
    return Structure(
        files=len(modules),
        code_lines=sum(len(module.code_lines) for module in modules),
        nodes_per_line=nodes_per_line(modules),
        comprehensions_per_100_lines=100 * comprehensions / filled_lines,
        formatter_off=formatter_off,
        names_in_several_modules=share_of_shared_names(modules),
        function_median=statistics.median(lengths),
        function_p90=statistics.quantiles(lengths, n=10)[-1],
        repeated_lines=share_of_repeated_lines(modules),
        examples=count_examples(modules),
    )


def check_imports(root: Path) -> Imports:
    """Imports of our package that go upwards between its packages, and rings between its modules."""
    modules = {module.name: module for module in read_modules(root)}
    graph = {name: find_imports(module, modules.keys()) for name, module in modules.items()}
    upwards = []
    for name, imported in graph.items():
        for other in sorted(imported):
            if level_of(other) > level_of(name):
                upwards.append(f"{name} -> {other}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return Imports(upwards, rings=1)
    return Imports(upwards, rings=0)


def level_of(module: str) -> int:
    """The place of a module's package in the order of imports; the package's own root is above all."""
    package = module.partition(".")[0]
    return LEVELS.index(package) if package in LEVELS else len(LEVELS)


def find_imports(module: Module, names: Collection[str]) -> set[str]:
    """The modules of our package that a module imports anywhere, except for annotations."""
    imported = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("vaelab"):
            continue
        package = (node.module or "").removeprefix("vaelab").removeprefix(".")
        for alias in node.names:
            inner = f"{package}.{alias.name}".removeprefix(".")
            imported.add(inner if inner in names else package)
    return (imported & set(names)) - {module.name}


def trace_path(root: Path) -> list[Step]:
    """The functions of our package that are called on the way from the command line to the first gradient.

    `vaelab train digits --epochs 1` runs in a process of its own, on a cache that holds the decoded digits already.
    Every function is listed once, in the order of its first call. A function within a function counts with its outer
    one. Not listed are the bodies of modules and classes, and what has no source (the `__init__` of a dataclass).
    What an import calls is not counted. A function is on the way if `main` calls it, directly or through others that
    are on the way; `SIDE_PURPOSES` are not on it, and are summed up by purpose.
    """
    with tempfile.TemporaryDirectory() as folder:
        variables = {"VAELAB_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root.parent)}
        trace = Path(folder) / "trace.json"
        words = ["train", "digits", "--epochs", "1", "--no-figures", "--device", "cpu", "--out", f"{folder}/runs"]
        commands = (
            [sys.executable, "-m", "vaelab", "data", "digits"],
            [sys.executable, __file__, "--trace", str(trace), str(root), *words],
        )
        for command in commands:
            subprocess.run(command, env=os.environ | variables, check=True, stdout=subprocess.DEVNULL)
        calls, stack = json.loads(trace.read_text())
    return describe_calls(root, calls, stack)


def describe_calls(root: Path, calls: list[list[Place | None]], stack: list[Place]) -> list[Step]:
    """Look up the traced calls, pairs of caller and function, in the source."""
    modules = {module.name: module for module in read_modules(root)}
    steps: dict[tuple[str, int], Step] = {}

    def find_step(place: Place) -> Step | None:
        module = modules[".".join(Path(place[0]).with_suffix("").parts).removesuffix(".__init__")]
        for function in outer_functions(module.tree):
            first_line = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
            if first_line <= place[1] <= last_line(function):
                purpose = SIDE_PURPOSES.get(module.name) or SIDE_PURPOSES.get(f"{module.name}.{function.name}")
                lines = count_body_lines(function, module.code_lines)
                return steps.setdefault((place[0], first_line), Step(place[0], function.name, lines, purpose))
        return None

    for caller, called in calls:
        step = find_step(called) if called else None
        calling = find_step(caller) if caller else None
        if step and calling:
            calling.calls.append(step)
    for place in stack:
        if step := find_step(place):
            step.on_stack = True
    all_steps = list(steps.values())
    needed = find_needed(all_steps[0])
    for step in all_steps:
        if step not in needed:
            spread_purpose(step, needed)
    return all_steps


def find_needed(start: Step) -> list[Step]:
    """The steps that a first one calls, directly or through others, without those for a side purpose."""
    needed: list[Step] = []
    waiting = [start]
    while waiting:
        step = waiting.pop()
        if step.purpose is None and step not in needed:
            needed.append(step)
            waiting.extend(step.calls)
    return needed


def spread_purpose(step: Step, needed: list[Step]) -> None:
    """Give the purpose of a step to what only it calls."""
    for called in step.calls:
        if called not in needed and called.purpose is None:
            called.purpose = step.purpose
            spread_purpose(called, needed)


def record_trace(target: Path, root: Path, words: list[str]) -> None:
    """Run a command line of ours, and write down which functions call which before the first gradient."""
    calls: dict[tuple[Place | None, Place], None] = {}
    prefix = str(root) + os.sep

    def place_of(frame: FrameType) -> Place | None:
        code = frame.f_code
        if not code.co_filename.startswith(prefix) or not code.co_flags & inspect.CO_NEWLOCALS:
            return None  # not ours, or the body of a module or a class
        return code.co_filename.removeprefix(prefix), code.co_firstlineno

    def places_above(frame: FrameType | None) -> Iterator[Place]:
        while frame is not None:
            if place := place_of(frame):
                yield place
            frame = frame.f_back

    def is_importing(frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(prefix):
                return True
            frame = frame.f_back
        return False

    def watch(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and (called := place_of(frame)) and not is_importing(frame.f_back):
            calls[next(places_above(frame.f_back), None), called] = None
        elif event == "c_call" and getattr(argument, "__name__", "") == "run_backward":
            sys.setprofile(None)
            target.write_text(json.dumps([list(calls), list(places_above(frame))]))

    from vaelab.cli.main import main as run_command_line

    sys.setprofile(watch)
    run_command_line(words)


def count_file_changes(steps: list[Step]) -> int:
    """How often one goes to another file while reading the steps in order."""
    return sum(first.file != second.file for first, second in pairwise(steps))


def print_path(steps: list[Step]) -> None:
    """Print the way to the gradient, function by function."""
    print("| | function | file | lines of its body |\n|---|---|---|---|")
    needed = [step for step in steps if step.purpose is None]
    for number, step in enumerate(needed, 1):
        name = f"**`{step.name}`**" if step.on_stack else f"`{step.name}`"
        print(f"| {number} | {name} | `{step.file}` | {step.lines} |")
    print(f"\nIn all: {summarise(needed)}.")
    print(f"Of these on the stack when the gradient is computed: {summarise([s for s in needed if s.on_stack])}.")
    for purpose in dict.fromkeys(step.purpose for step in steps if step.purpose):
        aside = [step for step in steps if step.purpose == purpose]
        print(f"Not counted, {purpose}: {summarise(aside)}.")


def summarise(steps: list[Step]) -> str:
    """How much one reads on a way."""
    files = len({step.file for step in steps})
    lines = sum(step.lines for step in steps)
    return f"{files} files, {len(steps)} functions, {lines} lines, {count_file_changes(steps)} changes of file"


def print_table(structures: dict[str, Structure]) -> None:
    """Print the measures, one column for each package."""
    print("| | " + " | ".join(structures) + " |")
    print("|---" * (1 + len(structures)) + "|")
    for measure in fields(Structure):
        cells = []
        for structure in structures.values():
            cells.append(format_measure(measure.name, getattr(structure, measure.name)))
        print(f"| {measure.name.replace('_', ' ')} | " + " | ".join(cells) + " |")


def format_measure(name: str, value: float) -> str:
    """A measure as a cell of the table."""
    if name in SHARES:
        return f"{value:.1%}"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def find_package(name: str) -> Path | None:
    """The folder of an installed package."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", default=["zuko", "azula"], help="other packages to measure")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1] / "src" / "vaelab")
    parser.add_argument("--path", action="store_true", help="list the functions on the way to the gradient")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    if arguments.path:
        print_path(trace_path(root))
        return
    structures = {"vaelab": measure_structure(root)}
    for name in arguments.packages:
        folder = find_package(name)
        if folder is None:
            print(f"{name} is not installed", file=sys.stderr)
        else:
            structures[name] = measure_structure(folder)
    print_table(structures)
    imports = check_imports(root)
    print(f"\nImports upwards between packages: {len(imports.upwards)}. Rings: {imports.rings}.")
    needed = [step for step in trace_path(root) if step.purpose is None]
    print(f"From the command line to the gradient: {summarise(needed)}.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trace"]:
        record_trace(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    else:
        main()
