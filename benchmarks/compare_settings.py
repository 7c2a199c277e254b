"""Which settings of a training are best, counted on validation images and by seconds of one processor?

    python benchmarks/compare_settings.py cifar10 --base "latent_dim=128 kl_weight=0 epochs=5" \
        "network=conv:init=torch" "network=conv:init=he lr=0.002"

Each argument is a setting to try: names and values as in `vaelab train`, which change those of --base. Test images are
never looked at. One line of a Markdown table is printed for each setting: the mean over the seeds, and the standard
deviation between them. With `--measure mse` the error of PCA with as many dimensions stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from vaelab.analysis.principal_components import fit_principal_components, reconstruction_errors
from vaelab.datasets.images import Dataset
from vaelab.datasets.loading import load_dataset
from vaelab.runs.spec import Spec, updated
from vaelab.training.fit import fit


@dataclass(frozen=True)
class Measured:
    """What one run came to: seconds of processor time of its training, and the measure on validation images."""

    seconds: float
    value: float


def parse_settings(text: str) -> dict[str, str]:
    """`latent_dim=8 network=mlp:hidden=16` as a table."""
    settings = {}
    for word in text.split():
        name, _, value = word.partition("=")
        settings[name] = value
    return settings


def validation_data(spec: Spec, images: int) -> Dataset:
    """The training split, and some of the validation images."""
    dataset = load_dataset(spec.data, **spec.data_settings)
    validation = dataset.splits["validation"].evenly_spaced(images)
    return replace(dataset, splits={"train": dataset.splits["train"], "validation": validation})


def measure_run(spec: Spec, dataset: Dataset, measure: str, compiled: bool | None) -> Measured:
    """Train one run on one thread."""
    with tempfile.TemporaryDirectory() as out:
        start = time.process_time()
        [run] = fit([spec], dataset, Path(out), threads=1, compiled=compiled)
        seconds = time.process_time() - start
        return Measured(seconds, run.metrics["validation"]["metrics"][measure]["value"])


def table_row(text: str, runs: list[Measured], pca: float | None) -> str:
    """A line of the table."""
    values = [run.value for run in runs]
    spread = f" +- {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    seconds = statistics.mean(run.seconds for run in runs)
    baseline = "" if pca is None else f" {pca:.4g} |"
    return f"| `{text}` | {seconds:.0f} | {statistics.mean(values):.5g}{spread} |{baseline}"


def pca_errors(dataset: Dataset) -> list[float]:
    """The mean squared error of PCA on the validation images, by the number of components."""
    components = fit_principal_components(dataset.splits["train"])
    return reconstruction_errors(components, dataset.splits["validation"]).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("settings", nargs="+")
    parser.add_argument("--base", default="", help="settings of all runs")
    parser.add_argument("--measure", default="loss", help="the metric that is compared")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, default=1000, help="validation images that are looked at")
    parser.add_argument("--eager", action="store_true", help="do not compile the steps")
    arguments = parser.parse_args()
    base = updated(Spec(data=arguments.data), parse_settings(arguments.base))
    dataset = validation_data(base, arguments.images)
    pca = pca_errors(dataset) if arguments.measure == "mse" else None
    print(f"| setting | seconds | {arguments.measure} |" + (" PCA |" if pca else ""))
    print("|---|---|---|" + ("---|" if pca else ""), flush=True)
    for text in arguments.settings:
        spec = updated(base, parse_settings(text))
        compiled = False if arguments.eager else None
        runs = []
        for seed in range(arguments.seeds):
            runs.append(measure_run(replace(spec, seed=seed), dataset, arguments.measure, compiled))
        print(table_row(text, runs, pca[spec.latent_dim] if pca else None), flush=True)


if __name__ == "__main__":
    main()
