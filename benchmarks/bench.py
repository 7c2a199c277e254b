"""How fast, beside others: every case in pairs, each side a process of its own, taking turns; medians and ratios.

    make bench                                        # every case that can be run here, written to docs/performance.md
    python benchmarks/bench.py mlp study --rounds 5   # some of them, printed

Ratios are of neighbours in time, so that a machine whose speed drifts treats both alike. VAELAB_DATA must hold mnist
and faces; what compares with pythae needs an interpreter that has it (--peer PYTHON). Two cases run only where they are
named: `whole`, which takes an hour, and `large`, which needs 25 GB of disk.
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
PAGE = HERE.parent / "docs" / "performance.md"
HEAD = """# How fast

Made by `make bench`: each side of a comparison is a process of its own, the sides take turns, and a ratio is that of
neighbours in time. Medians over the rounds, and in brackets from least to most. The textbook loop is that of tutorials:
DataLoader, ToTensor for each image, float32, `torch.optim.Adam`; the layers are the same on every side
(`benchmarks/contenders.py`). Seconds of training run from the first step to the last, the measurements that vaelab
makes after each epoch included. The machine is a virtual one, whose speed other tenants change by half from one hour to
the next: ratios tell more than rates.
"""


@dataclass(frozen=True)
class Case:
    """Sides that are compared by one figure: the first is what the others are held against."""

    name: str
    title: str
    sides: dict[str, tuple[str, ...]]
    figure: str = "images/s"
    beside: tuple[str, ...] = ()  # other figures that are told
    asked: str = ""
    note: str = ""
    related: bool = True  # whether a ratio of the sides means something
    long: bool = False  # carried out where it is asked for by name

    @property
    def higher(self) -> bool:
        return self.figure == "images/s"


CASES = (
    Case("mlp", "One run of 784-400-20-400-784, MNIST, batches of 128, five epochs", {
        "textbook loop": ("textbook", "textbook", "5"),
        "vaelab": ("vaelab", "textbook", "5"),
        "vaelab, one thread": ("vaelab", "textbook", "5", "1", "", "1"),
        "vaelab, float32": ("vaelab", "textbook", "5", "1", "float32"),
        "floor, two threads": ("floor", "textbook", "bfloat16", "2"),
        "floor, one thread": ("floor", "textbook", "bfloat16", "1"),
        "pythae": ("pythae", "textbook", "5"),
    }, asked="3.5 times the textbook loop, 3 times pythae, 55 % of the floor, 1.8 times in float32",
       note="The floor is each matrix product of a step and one fused Adam, timed alone, in that precision. In a step, "
       "weights, moments and gradients come from further away, since two passes through the network lie between two "
       "updates, and the losses and measurements come besides. The step is compiled once for all runs of a shape, "
       "which is not in these seconds (see below)."),
    Case("data", "A step of that run, and what of it reads, shuffles and converts the images", {
        "the step": ("piece", "step"), "its images": ("piece", "images"),
    }, "microseconds", asked="under 5 % of a step"),
    Case("report-a", "One run of report A's network, 32 x 32 faces, batches of 128, one epoch", {
        "textbook loop": ("textbook", "report-a", "1"), "vaelab": ("vaelab", "report-a", "1"),
    }, asked="1.8 times"),
    Case("quality", "Seconds to the textbook's figure of MNIST (105.6 nats)", {
        "textbook loop, ten epochs": ("textbook", "textbook", "10"), "preset fast": ("vaelab", "fast", "0"),
    }, "seconds", ("negative ELBO",), "8 times fewer",
       "Another seed in each round. The recipe of `fast` was chosen on 10,000 training images held out: batches of 192 "
       "in place of 128, a learning rate that rises to 0.02 in the first fifth and falls to 0, four epochs."),
    Case("study", "Four runs of that network, ten epochs each", {
        "textbook loop, one run": ("textbook", "textbook", "2"),
        "vaelab study, the first time": ("study", "textbook", "10", "1", "local", "anew"),
        "vaelab study, later": ("study", "textbook", "10", "1"),
    }, asked="4.5 times",
       note="From the command to the last file of the report, two workers; the textbook loop's rate is that of "
       "two epochs. What is lost beside the training: two workers import torch, each run measures 10,000 "
       "test images at its end, and the report is written; the first time, a step is compiled."),
    Case("overhead", "Runs of a dozen steps on the bundled digits: what a run costs beside its training", {
        "4 runs": ("study", "digits", "1", "1"), "24 runs": ("study", "digits", "1", "6"),
    }, "seconds", asked="0.2 s for each run", related=False),
    Case("tsne", "t-SNE of 10,000 codes, one thread", {
        "scikit-learn": ("tsne", "sklearn", "10000"), "vaelab": ("tsne", "vaelab", "10000"),
    }, "seconds", ("KL",), "2.5 times, at an equal or lower KL",
       "Of 5,000 points and more vaelab takes 380 steps in place of openTSNE's 750: at a momentum of 0.97 in the end."),
    Case("evidence", "Evidence of 1,000 images by 1,000 samples each, two threads", {
        "pythae, get_nll": ("evidence", "pythae"), "vaelab": ("evidence", "vaelab"),
    }, "seconds", ("negative log evidence",), "10 times, same value",
       "The same model on both sides; the standard error of the values, by sampling, is 0.02. vaelab encodes an image "
       "once, decodes in bfloat16, and corrects that by 20 samples in float32. What is left are the decoder's matrix "
       "products and a pass over the pixels of every sample."),
    Case("ranks", "One run of report B's network on MNIST by processes of one thread, one epoch", {
        "one process": ("torchrun", "report-b", "1", "1"),
        "two processes, torchrun": ("torchrun", "report-b", "1", "2"),
    }, note="The processes add up 0.8 million gradients after each step. Of a network with 26 million (report "
            "A's), which are 100 MB a step, two processes train more slowly than one."),
    Case("ray", "Eight runs of the first network, one epoch each, two at a time", {
        "worker processes": ("study", "textbook", "1", "2"), "Ray": ("study", "textbook", "1", "2", "ray"),
    }, "seconds"),
    Case("start", "From the shell", {
        "python -c pass": ("command", "bare"), "vaelab --help": ("command", "help"),
        "vaelab list, 1,000 runs": ("command", "list"), "compiling a step, once": ("compiling", "anew"),
        "loading it, each time": ("compiling", "kept"), "first training step, cached MNIST": ("command", "first step"),
    }, "seconds", asked="help 0.15 s over the bare interpreter, list 1 s, first step 3 s", related=False),
    Case("whole", "The study `mnist`, all 100 runs of 20 epochs, two workers", {
        "pythae, training alone": ("pythae_study", "mnist"), "vaelab, all of it": ("whole", "mnist"),
    }, "seconds", asked="4 times", long=True,
       note="pythae trains the same layers one run after another, by two threads: its seconds are those of an epoch of "
       "each kind of run, times epochs and runs. vaelab's are from the command to the report: training, "
       "compiling, measuring, t-SNE of codes and pixels, classifiers, figures. Two workers of one thread share a "
       "processor's memory, and slow each other down."),
    Case("large", "Training steps of the default network on pictures of 64 x 64 in colour", {
        "10,000 pictures": ("large", "10000"), "1,000,000 pictures (12 GB)": ("large", "1000000"),
    }, beside=("memory, MiB", "seconds to load"), asked="the same speed, the same memory",
       note="The first time, the million is written into the cache (97 s).", long=True),
)  # fmt: skip


def measure(side: tuple[str, ...], python: str, seed: int) -> dict[str, float]:
    """The numbers of one side in one round; `quality` trains another seed in each."""
    words = [*side, str(seed)] if side[0] in ("textbook", "vaelab") and len(side) == 3 else list(side)
    interpreter = python if needs_peer(side) else sys.executable
    done = subprocess.run([interpreter, str(HERE / "contenders.py"), *words], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL,
                          env=os.environ | {"PYTHONPATH": str(HERE.parent / "src")})  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def needs_peer(side: tuple[str, ...]) -> bool:
    return any(word.startswith("pythae") for word in side[:2])


def carry_out(case: Case, rounds: int, peer: str | None) -> dict[str, list[dict[str, float]]]:
    sides = {name: side for name, side in case.sides.items() if peer or not needs_peer(side)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for turn in range(1, rounds + 1):
        for name, side in sides.items():
            found[name].append(measure(side, peer or "", turn))
            print(f"{case.name} {turn} {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    return found


NATS = {"negative ELBO": 2, "KL": 3, "negative log evidence": 2}  # digits


def told(values: list[float], digits: int | None = None) -> str:
    """The median, and from least to most."""
    if digits is None:
        digits = 0 if min(values) >= 100 else 1 if min(values) >= 20 else 2
    middle, low, high = (f"{v:,.{digits}f}" for v in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def table(case: Case, found: dict[str, list[dict[str, float]]]) -> str:
    first = next(iter(found))
    columns = [case.figure, *case.beside]
    lines = [f"## {case.title}\n", "| | " + " | ".join([*columns, "ratio"]) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, rounds in found.items():
        own, other = ([r[case.figure] for r in found[n]] for n in (name, first))
        ratios = [a / b if case.higher else b / a for a, b in zip(own, other, strict=True)]
        cells = [
            told([r[column] for r in rounds], NATS.get(column)) if column in rounds[0] else "" for column in columns
        ]
        ratio = "" if name == first or not case.related else told(ratios)
        lines.append("| " + " | ".join([name, *cells, ratio]) + " |")
    if case.name == "mlp":
        for ours, floor in (("vaelab, one thread", "floor, one thread"), ("vaelab", "floor, two threads")):
            part = [a["images/s"] / b["images/s"] for a, b in zip(found[ours], found[floor], strict=True)]
            lines.append(f"\nOf the {floor.replace(',', ' of')}: {100 * statistics.median(part):.0f} %.")
    if case.name == "overhead":
        few, many = found.values()
        each = [2 * (b["seconds"] - a["seconds"]) / (b["runs"] - a["runs"]) for a, b in zip(few, many, strict=True)]
        lines.append(f"\nFor each further run: {told(each)} s of a processor, its steps, its measurement and its files "
                     "included.")  # fmt: skip
    if case.name in ("study", "ray"):
        for name, rounds in found.items():
            if "runs" in rounds[0]:
                over = [(2 * r["seconds"] - r["trained"]) / r["runs"] for r in rounds]
                lines.append(f"\n{name}: {told(over)} s of a processor for each run beside its training, start-up, "
                             "report and the wait for the last one included.")  # fmt: skip
    lines += [f"\n{text}" for text in (case.note, case.asked and f"Asked for: {case.asked}.") if text]
    return "\n".join(lines) + "\n"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("cases", nargs="*", help=", ".join(case.name for case in CASES))
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--peer", help="an interpreter that has pythae")
    words.add_argument("--write", action="store_true", help=f"write {PAGE.name}, in which other cases stay as they are")
    given = words.parse_args()
    wanted = given.cases or [case.name for case in CASES if not case.long]
    kept = parts() if PAGE.exists() else {}
    for case in (c for c in CASES if c.name in wanted):
        kept[case.title] = table(case, carry_out(case, given.rounds, given.peer)) + "\n" + machine(given.rounds) + "\n"
        print(kept[case.title])
        if given.write:
            PAGE.write_text("\n".join([HEAD, *(kept[c.title] for c in CASES if c.title in kept)]), encoding="utf-8")


def parts() -> dict[str, str]:
    """The sections of the page as it is, by title."""
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    return {section.split("\n")[0]: f"## {section.rstrip()}\n" for section in sections}


def machine(rounds: int) -> str:
    import torch

    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if system.startswith("Linux") else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"*{rounds} round{'s' * (rounds > 1)}, torch {torch.__version__}, {', '.join([system, *names[:1]])}*"


if __name__ == "__main__":
    main()
