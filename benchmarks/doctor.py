"""Does the doctor find each problem that is made on purpose, and raise no alarm on healthy runs?

    python benchmarks/doctor.py mnist --seeds 5

Every run has 3,000 training images and another seed. For each condition one line says in how many runs which problem
was found; the lines below give the numbers. A problem that is only a note, not an alarm, is marked.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import vaelab
from vaelab.datasets.loading import load_dataset
from vaelab.evaluation.diagnostics import Diagnosis, RunContext, compute_latent_stats, diagnose
from vaelab.runs.spec import Spec, updated
from vaelab.training.fit import fit

BASE = {"latent_dim": 20, "epochs": 15, "subset": 3000, "validation": 0.2}
BROKEN = {
    "posterior collapse": {"objective": "beta:kl_weight=1000"},
    "dead dimensions": {
        "latent_dim": 200,
        "network": "mlp",
        "loss": "ce",
        "subset": 30000,
        "epochs": 40,
        "kl_weight": 4,
    },
    "sigma far from the residual": {"loss": "se"},
    "sigma far from the residual, too small": {"loss": "gaussian:sigma=0.01"},
    "cross entropy read as likelihood": {"loss": "ce"},
    "exploding log-variance": {"objective": "beta:kl_weight=1e-9", "lr": 0.01},
    "prior hole": {"objective": "beta:kl_weight=0.001"},
    "overfitting": {"subset": 250, "epochs": 150, "batch_size": 16},
    "learning rate too high": {"lr": 0.03},
    "learning rate too low": {"lr": 5e-6},
}
HEALTHY = {
    "as shipped": {"epochs": 20},
    "as shipped, learning rate halved": {"epochs": 20, "lr": 5e-4},
    "optimal sigma": {"epochs": 20, "loss": "gaussian:sigma=optimal"},
    "with a warm-up": {"epochs": 20, "objective": "beta:warmup=0.3"},
}


def diagnose_run(data: str, changes: dict[str, object], seed: int, out: Path) -> list[Diagnosis]:
    """Train one run and ask the doctor."""
    spec = updated(replace(Spec(data=data), seed=seed), BASE | changes)
    dataset = load_dataset(data, **spec.data_settings)
    [run] = fit([spec], dataset, out, threads=1)
    stats = compute_latent_stats(run.model, dataset.splits["validation"])
    return diagnose(RunContext(spec, run.history, run.model, stats))


def print_condition(data: str, condition: str, changes: dict[str, object], seeds: int) -> None:
    """Train the runs of one condition and print what the doctor found in them."""
    counts: Counter[str] = Counter()
    numbers: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as out:
        for seed in range(1, seeds + 1):
            for diagnosis in diagnose_run(data, changes, seed, Path(out)):
                if diagnosis.state in ("alarm", "note"):
                    counts[f"{diagnosis.ailment}{' (note)' * (diagnosis.state == 'note')}"] += 1
                is_expected = diagnosis.ailment.startswith(condition.partition(",")[0])
                if diagnosis.state == "alarm" or is_expected:
                    numbers.setdefault(diagnosis.ailment, []).append(diagnosis.number)
    summary = ", ".join(f"{name} {count}/{seeds}" for name, count in counts.most_common())
    print(f"{data:<8} {condition:<40} found: {summary or 'nothing'}")
    for name, values in numbers.items():
        print(f"{'':<12}{name}: {'; '.join(values)}")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", help="only conditions whose names begin with this")
    arguments = parser.parse_args()
    print(f"vaelab {vaelab.__version__}")
    for data in arguments.data:
        for condition, changes in {**HEALTHY, **BROKEN}.items():
            if not arguments.only or condition.startswith(arguments.only):
                print_condition(data, condition, changes, arguments.seeds)


if __name__ == "__main__":
    main()
