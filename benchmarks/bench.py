"""Measure how fast vaelab is in comparison with other software, and write docs/performance.md.

    make bench                                        # all cases that this machine can run, into docs/performance.md
    python benchmarks/bench.py mlp study --rounds 5   # only these cases, printed

Each side of a comparison runs in a process of its own, and the sides take turns. A ratio compares measurements that
follow each other, so that a machine whose speed drifts treats both sides alike. VAELAB_DATA must hold mnist and faces.
A comparison with pythae needs an interpreter that has it (--peer PYTHON). Two cases run only if they are named: `whole`
takes an hour, and `large` needs 25 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
Measurements = dict[str, list[dict[str, float]]]  # of each side, round by round
DIGITS = {"negative ELBO": 2, "KL": 3, "negative log evidence": 2}
PAGE = HERE.parent / "docs" / "performance.md"
HEAD = """# How fast

This page is written by `make bench`. Each side of a comparison runs in a process of its own, the sides take turns, and
a ratio compares measurements that follow each other. Values are medians over the rounds, with the smallest and the
largest in brackets. The "textbook loop" is the one of tutorials: DataLoader, ToTensor for each image, float32,
`torch.optim.Adam`. The layers are the same on every side (`benchmarks/contenders.py`). The time of a training is
counted from its first step to its last, with the evaluations that vaelab makes after each epoch. The machine is a
virtual one whose speed changes by half from one hour to the next, so ratios say more than rates.
"""


@dataclass(frozen=True)
class Case:
    """A comparison.

    Attributes:
        name: The word that selects it on the command line.
        title: Its heading on the page.
        sides: For each side, the arguments of `contenders.py`. The first side is the one that ratios refer to.
        figure: What is compared.
        other_figures: What is shown as well.
        target: What was aimed at.
        note: A paragraph below the table.
        has_ratio: Whether a ratio of the sides means something.
        only_by_name: Whether it runs only if it is named.
    """

    name: str
    title: str
    sides: dict[str, tuple[str, ...]]
    figure: str = "images/s"
    other_figures: tuple[str, ...] = ()
    target: str = ""
    note: str = ""
    has_ratio: bool = True
    only_by_name: bool = False

    @property
    def larger_is_better(self) -> bool:
        return self.figure == "images/s"


CASES = (
    Case(
        name="mlp",
        title="One run of 784-400-20-400-784 on MNIST, batch size 128, five epochs",
        sides={
            "textbook loop": ("textbook", "textbook", "5"),
            "vaelab": ("vaelab", "textbook", "5"),
            "vaelab, one thread": ("vaelab", "textbook", "5", "1", "", "1"),
            "vaelab, float32": ("vaelab", "textbook", "5", "1", "float32"),
            "matrix products alone, two threads": ("matrix_products", "textbook", "bfloat16", "2"),
            "matrix products alone, one thread": ("matrix_products", "textbook", "bfloat16", "1"),
            "pythae": ("pythae", "textbook", "5"),
        },
        target="3.5 times the textbook loop, 3 times pythae, 55 % of the matrix products alone, 1.8 times in float32",
        note="Matrix products alone: the rate if a step were only its matrix products and one fused Adam, each "
        "measured alone in that precision. In a real step, weights, moments and gradients come from slower memory, "
        "because two passes through the network lie between two updates. Losses and evaluations come on top. The "
        "compilation of the step, once for all runs of a shape, is not included (see below).",
    ),
    Case(
        name="data",
        title="One step of that run, and the part of it that reads, shuffles and converts images",
        sides={"the step": ("piece", "step"), "its images": ("piece", "images")},
        figure="microseconds",
        target="under 5 % of a step",
    ),
    Case(
        name="report-a",
        title="One run of the network of report A, faces at 32 x 32, batch size 128, one epoch",
        sides={"textbook loop": ("textbook", "report-a", "1"), "vaelab": ("vaelab", "report-a", "1")},
        target="1.8 times",
    ),
    Case(
        name="quality",
        title="Seconds until the ELBO of the textbook on MNIST (105.6 nats)",
        sides={
            "textbook loop, ten epochs": ("textbook", "textbook", "10"),
            "preset fast": ("vaelab", "fast", "0"),
        },
        figure="seconds",
        other_figures=("negative ELBO",),
        target="8 times fewer",
        note="Each round uses another seed. The settings of `fast` were chosen on 10,000 held-out training images: "
        "batch size 192 instead of 128, a learning rate that rises to 0.02 in the first fifth and falls to 0, four "
        "epochs.",
    ),
    Case(
        name="study",
        title="Four runs of that network, ten epochs each",
        sides={
            "textbook loop, one run": ("textbook", "textbook", "2"),
            "vaelab study, the first time": ("study", "textbook", "10", "1", "local", "anew"),
            "vaelab study, later": ("study", "textbook", "10", "1"),
        },
        target="4.5 times",
        note="From the command to the last file of the report, with two workers. The rate of the textbook loop is that "
        "of two epochs. Besides training, both workers import torch, each run evaluates 10,000 test images at its "
        "end, and the report is written. The first time, a step is compiled.",
    ),
    Case(
        name="overhead",
        title="Runs of a dozen steps on the bundled digits: the cost of a run besides its training",
        sides={"4 runs": ("study", "digits", "1", "1"), "24 runs": ("study", "digits", "1", "6")},
        figure="seconds",
        target="0.2 s for each run",
        has_ratio=False,
    ),
    Case(
        name="tsne",
        title="t-SNE of 10,000 codes, one thread",
        sides={"scikit-learn": ("tsne", "sklearn", "10000"), "vaelab": ("tsne", "vaelab", "10000")},
        figure="seconds",
        other_figures=("KL",),
        target="2.5 times, with an equal or lower KL",
        note="For 5,000 points or more vaelab takes 380 steps, not openTSNE's 750, with a final momentum of 0.97.",
    ),
    Case(
        name="evidence",
        title="Log evidence of 1,000 images with 1,000 samples each, two threads",
        sides={"pythae, get_nll": ("evidence", "pythae"), "vaelab": ("evidence", "vaelab")},
        figure="seconds",
        other_figures=("negative log evidence",),
        target="10 times, the same value",
        note="Both sides use the same model. The standard error of the values from sampling is 0.02. vaelab encodes an "
        "image once, decodes in bfloat16, and corrects this with 20 samples in float32. The rest of the time goes to "
        "the decoder's matrix products and to one pass over the pixels of every sample.",
    ),
    Case(
        name="ranks",
        title="One run of the network of report B on MNIST in processes of one thread, one epoch",
        sides={
            "one process": ("torchrun", "report-b", "1", "1"),
            "two processes, torchrun": ("torchrun", "report-b", "1", "2"),
        },
        note="The processes add up 0.8 million gradients after each step. For a network with 26 million weights "
        "(report A), which are 100 MB a step, two processes are slower than one.",
    ),
    Case(
        name="ray",
        title="Eight runs of the first network, one epoch each, two at a time",
        sides={"worker processes": ("study", "textbook", "1", "2"), "Ray": ("study", "textbook", "1", "2", "ray")},
        figure="seconds",
    ),
    Case(
        name="start",
        title="Start-up",
        sides={
            "python -c pass": ("command", "bare"),
            "vaelab --help": ("command", "help"),
            "vaelab list, 1,000 runs": ("command", "list"),
            "compiling a step, once": ("compiling", "anew"),
            "loading it, each time": ("compiling", "kept"),
            "first training step, cached MNIST": ("command", "first step"),
        },
        figure="seconds",
        target="help 0.15 s more than the bare interpreter, list 1 s, first step 3 s",
        has_ratio=False,
    ),
    Case(
        name="whole",
        title="The study `mnist`, all 100 runs of 20 epochs, two workers",
        sides={"pythae, training alone": ("pythae_study", "mnist"), "vaelab, everything": ("whole", "mnist")},
        figure="seconds",
        target="4 times",
        only_by_name=True,
        note="pythae trains the same layers with two threads, one run after another. Its time is that of one epoch of "
        "each kind of run, times epochs and runs. The time of vaelab goes from the command to the report: training, "
        "compiling, evaluating, t-SNE of codes and pixels, classifiers, figures. Two workers of one thread share the "
        "memory of one processor and slow each other down.",
    ),
    Case(
        name="large",
        title="Training steps of the default network on colour images of 64 x 64",
        sides={"10,000 images": ("large", "10000"), "1,000,000 images (12 GB)": ("large", "1000000")},
        other_figures=("memory, MiB", "seconds to load"),
        target="the same speed, the same memory",
        note="The first time, the million images are written into the cache (97 s).",
        only_by_name=True,
    ),
)


def measure(side: tuple[str, ...], python: str, seed: int) -> dict[str, float]:
    """The numbers of one side in one round. Trainings without a seed of their own get another one in each round."""
    has_no_seed = side[0] in ("textbook", "vaelab") and len(side) == 3
    arguments = [*side, str(seed)] if has_no_seed else list(side)
    interpreter = python if needs_peer(side) else sys.executable
    done = subprocess.run(
        [interpreter, str(HERE / "contenders.py"), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(HERE.parent / "src")},
    )
    return json.loads(done.stdout.splitlines()[-1])


def needs_peer(side: tuple[str, ...]) -> bool:
    return any(word.startswith("pythae") for word in side[:2])


def run_case(case: Case, rounds: int, peer: str | None) -> Measurements:
    """The numbers of every side that can run here, round by round."""
    sides = {name: side for name, side in case.sides.items() if peer or not needs_peer(side)}
    measurements: Measurements = {name: [] for name in sides}
    for number in range(1, rounds + 1):
        for name, side in sides.items():
            measured = measure(side, peer or "", number)
            measurements[name].append(measured)
            print(f"{case.name} {number} {name}: {measured}", file=sys.stderr, flush=True)
    return measurements


def format_values(values: list[float], digits: int | None = None) -> str:
    """The median, with the smallest and the largest value."""
    if digits is None:
        digits = 0 if min(values) >= 100 else 1 if min(values) >= 20 else 2
    middle, low, high = (f"{v:,.{digits}f}" for v in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def format_case(case: Case, measurements: Measurements) -> str:
    """The section of a case on the page."""
    columns = [case.figure, *case.other_figures]
    header = "| | " + " | ".join([*columns, "ratio"]) + " |"
    lines = [f"## {case.title}\n", header, "|---" * (len(columns) + 2) + "|"]
    for name, rounds in measurements.items():
        cells = [name]
        for column in columns:
            values = [measured[column] for measured in rounds if column in measured]
            cells.append(format_values(values, DIGITS.get(column)) if values else "")
        cells.append(format_ratio(case, measurements, name))
        lines.append("| " + " | ".join(cells) + " |")
    for sentence in derived_sentences(case, measurements):
        lines.append(f"\n{sentence}")
    if case.note:
        lines.append(f"\n{case.note}")
    if case.target:
        lines.append(f"\nAimed at: {case.target}.")
    return "\n".join(lines) + "\n"


def format_ratio(case: Case, measurements: Measurements, name: str) -> str:
    """How many times as good a side is as the first one, round by round."""
    first = next(iter(measurements))
    if name == first or not case.has_ratio:
        return ""
    ratios = []
    for own, other in zip(measurements[name], measurements[first], strict=True):
        ratio = own[case.figure] / other[case.figure]
        ratios.append(ratio if case.larger_is_better else 1 / ratio)
    return format_values(ratios)


def derived_sentences(case: Case, measurements: Measurements) -> list[str]:
    """What follows from the numbers of some cases."""
    sentences = []
    if case.name == "mlp":
        for ours, bound in (("vaelab, one thread", "one thread"), ("vaelab", "two threads")):
            pairs = zip(measurements[ours], measurements[f"matrix products alone, {bound}"], strict=True)
            shares = [own["images/s"] / lowest["images/s"] for own, lowest in pairs]
            sentences.append(
                f"Of the rate of the matrix products with {bound}: {100 * statistics.median(shares):.0f} %."
            )
    if case.name == "overhead":
        costs = []
        for small, large in zip(*measurements.values(), strict=True):
            costs.append(2 * (large["seconds"] - small["seconds"]) / (large["runs"] - small["runs"]))
        sentences.append(
            f"Each further run costs {format_values(costs)} s of one processor, with its steps, its evaluation and its "
            "files."
        )
    if case.name in ("study", "ray"):
        for name, rounds in measurements.items():
            if "runs" not in rounds[0]:
                continue
            costs = [(2 * row["seconds"] - row["trained"]) / row["runs"] for row in rounds]
            sentences.append(
                f"{name}: {format_values(costs)} s of one processor for each run besides its training, with start-up, "
                "report and the wait for the last run."
            )
    return sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=", ".join(case.name for case in CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="an interpreter that has pythae")
    parser.add_argument("--write", action="store_true", help=f"update these cases in {PAGE.name}")
    arguments = parser.parse_args()
    names = arguments.cases or [case.name for case in CASES if not case.only_by_name]
    sections = read_sections() if PAGE.exists() else {}
    for case in CASES:
        if case.name not in names:
            continue
        measurements = run_case(case, arguments.rounds, arguments.peer)
        sections[case.title] = f"{format_case(case, measurements)}\n{describe_machine(arguments.rounds)}\n"
        print(sections[case.title])
        if arguments.write:
            ordered = [sections[other.title] for other in CASES if other.title in sections]
            PAGE.write_text("\n".join([HEAD, *ordered]), encoding="utf-8")


def read_sections() -> dict[str, str]:
    """The sections of the page as it is now, by title."""
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    return {section.split("\n")[0]: f"## {section.rstrip()}\n" for section in sections}


def describe_machine(rounds: int) -> str:
    import torch

    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if system.startswith("Linux") else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"*{rounds} round{'s' * (rounds > 1)}, torch {torch.__version__}, {', '.join([system, *names[:1]])}*"


if __name__ == "__main__":
    main()
