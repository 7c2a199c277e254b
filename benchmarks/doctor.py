"""Does the doctor find each sickness that is made on purpose, and leave healthy runs alone?

    python benchmarks/doctor.py mnist --seeds 5

Every run has 3,000 training pictures and another seed; a line says in how many of the seeds the ailment was found, and
which others were, then the numbers by which. Ailments that are notes and no alarms are marked so.
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
SICK = {
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


def findings(data: str, changes: dict[str, object], seed: int, out: Path) -> list[Diagnosis]:
    spec = updated(replace(Spec(data=data), seed=seed), BASE | changes)
    dataset = load_dataset(data, **spec.data_settings)
    [run] = fit([spec], dataset, out, threads=1)
    return diagnose(
        RunContext(spec, run.history, run.model, compute_latent_stats(run.model, dataset.splits["validation"]))
    )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("data", nargs="+")
    words.add_argument("--seeds", type=int, default=5)
    words.add_argument("--only", help="conditions whose names begin so")
    given = words.parse_args()
    print(f"vaelab {vaelab.__version__}")
    for data in given.data:
        for name, changes in {**HEALTHY, **SICK}.items():
            if given.only and not name.startswith(given.only):
                continue
            found: Counter[str] = Counter()
            numbers: dict[str, list[str]] = {}
            with tempfile.TemporaryDirectory() as out:
                for seed in range(1, given.seeds + 1):
                    said = findings(data, changes, seed, Path(out))
                    found.update(
                        f"{f.ailment}{' (note)' * (f.state == 'note')}" for f in said if f.state in ("alarm", "note")
                    )
                    for finding in said:
                        if finding.state == "alarm" or finding.ailment.startswith(name.split(",")[0]):
                            numbers.setdefault(finding.ailment, []).append(finding.number)
            told = ", ".join(f"{ailment} {n}/{given.seeds}" for ailment, n in found.most_common()) or "nothing"
            print(f"{data:<8} {name:<40} found: {told}")
            for ailment, shown in numbers.items():
                print(f"{'':<12}{ailment}: {'; '.join(shown)}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
