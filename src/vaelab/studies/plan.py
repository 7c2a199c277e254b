"""The plan of a study: every run that it asks for, once, with its folder and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vaelab.analysis.registry import has_analysis
from vaelab.core.devices import choose_device
from vaelab.datasets.images import Dataset
from vaelab.datasets.loading import load_dataset
from vaelab.models.networks import Shape
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec, run_key
from vaelab.studies.definition import Cell, Experiment, Setting, Study
from vaelab.training.plan import choose_plan, count_multiply_adds
from vaelab.training.resources import num_parameters

__all__ = [
    "DataKey",
    "PlannedRun",
    "data_key",
    "group_runs",
    "judging_analyses",
    "load_spec_dataset",
    "missing_analyses",
    "plan_runs",
    "required_analyses",
]

DataKey = tuple[Any, ...]  # what of a spec says which images a run is trained on

FIGURE_ANALYSES = {
    "features": "features",
    "classifier_features": "features",
    "interpolations": "interpolations",
    "path": "interpolations",
    "samples": "samples",
}  # the analysis that a figure shows


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study, once, however many experiments ask for it.

    Attributes:
        spec: Its spec.
        run: Its folder.
        dataset: Its data.
        cost: The multiply-adds of its whole training.
        num_parameters: How many parameters its model has.
        compiled: Whether its step is compiled.
    """

    spec: Spec
    run: Run
    dataset: Dataset = field(compare=False, repr=False)
    cost: float
    num_parameters: int
    compiled: bool

    def fraction_done(self) -> float:
        """How much of its training is done, from 0 to 1."""
        if self.run.finished:
            return 1.0
        try:
            rows = (self.run.path / "history.jsonl").read_text(encoding="utf-8").count("\n")
        except (OSError, UnicodeDecodeError):
            return 0.0
        return min(rows / self.spec.num_epochs(len(self.dataset.splits["train"])), 1.0)


def load_spec_dataset(spec: Spec) -> Dataset:
    """The data of a spec."""
    return load_dataset(spec.data, **spec.data_settings)


def data_key(spec: Spec) -> DataKey:
    """What of a spec says which images it is trained on."""
    return (spec.data, *spec.data_settings.values())


def plan_runs(
    study: Study, out: Path, device: str | None = None, known: Mapping[Spec, PlannedRun] = MappingProxyType({})
) -> dict[Spec, PlannedRun]:
    """The runs that a study asks for.

    Args:
        study: The study.
        out: The folder that has or receives runs/.
        device: The device to train on; the fastest there is if None.
        known: Runs that are planned already.

    Returns:
        Each run once, by its spec, in the order in which they are asked for.

    Raises:
        UserError: The data cannot be read, or do not suit a spec.
    """
    specs = list(dict.fromkeys(trial.spec for trial in study.trials))
    datasets = {data_key(spec): planned.dataset for spec, planned in known.items()}
    planned_runs = {}
    for spec in specs:
        if spec in known:
            planned_runs[spec] = known[spec]
            continue
        key = data_key(spec)
        if key not in datasets:
            datasets[key] = load_spec_dataset(spec)
        planned_runs[spec] = _plan_run(spec, datasets[key], out, device)
    return planned_runs


def _plan_run(spec: Spec, dataset: Dataset, out: Path, device: str | None) -> PlannedRun:
    """One run, with its folder and cost."""
    train_images = dataset.splits["train"]
    plan = choose_plan(spec, train_images, device, threads=1)
    run = Run(out / "runs" / run_key(spec, dataset.fingerprint, plan.precision))
    cost = count_multiply_adds(spec, train_images.shape) * len(train_images) * spec.num_epochs(len(train_images))
    parameters = _count_parameters(_model_spec(spec), train_images.shape)
    return PlannedRun(spec, run, dataset, cost, parameters, plan.compiled)


@cache
def _count_parameters(model_spec: Spec, shape: Shape) -> int:
    """The parameters of a model; specs that differ in training alone share the count."""
    return num_parameters(model_spec, shape)


def _model_spec(spec: Spec) -> Spec:
    """A spec with the same model and defaults otherwise."""
    return Spec(
        network=spec.network,
        distortion=spec.distortion,
        latent_dim=spec.latent_dim,
        objective=spec.objective,
        prior=spec.prior,
    )


def group_runs(planned_runs: Sequence[PlannedRun], device: str | None) -> list[list[PlannedRun]]:
    """Runs that one worker trains: each alone on a CPU; on a GPU all with the same data, which may be stacked."""
    if choose_device(device) == "cpu":
        return [[planned] for planned in planned_runs]
    groups: dict[DataKey, list[PlannedRun]] = {}
    for planned in planned_runs:
        groups.setdefault(data_key(planned.spec), []).append(planned)
    return list(groups.values())


def required_analyses(experiment: Experiment) -> list[str]:
    """The analyses that the figures and claims of an experiment ask for.

    Example:
        >>> required_analyses(Experiment("a", "a", figures=("curves", "path")))
        ['interpolations']
    """
    names = [FIGURE_ANALYSES[figure] for figure in experiment.figures if figure in FIGURE_ANALYSES]
    for claim in experiment.claims:
        names += claim.required_analyses
    return list(dict.fromkeys(names))


def required_numbers(experiment: Experiment) -> dict[str, set[str]]:
    """The numbers of each analysis that the claims of an experiment ask for."""
    numbers: dict[str, set[str]] = {}
    for claim in experiment.claims:
        for quantity in claim.quantities:
            for source, name in quantity.numbers:
                numbers.setdefault(source, set()).add(name)
    return numbers


def judging_analyses(experiment: Experiment, condition: str, setting: Setting) -> list[str]:
    """What the verdicts need of a setting's runs besides numbers: whether they are sound, and the values of images."""
    names = []
    for claim in experiment.claims:
        if condition not in claim.conditions or setting not in claim.settings(experiment):
            continue
        names.append("health")
        for quantity in claim.quantities:
            if quantity.may_have_image_values and any(source == "test" for source, _ in quantity.numbers):
                names.append("image_values")
    return list(dict.fromkeys(names))


def missing_analyses(study: Study, planned_runs: Mapping[Spec, PlannedRun]) -> dict[PlannedRun, list[str]]:
    """The analyses that a study asks for and that its finished runs do not have yet.

    Args:
        study: The study.
        planned_runs: Its runs, by spec.

    Returns:
        The names of the analyses for each run that lacks any.
    """
    missing: dict[PlannedRun, list[str]] = {}
    required: dict[Cell, list[str]] = {}
    for trial in study.trials:
        planned = planned_runs[trial.spec]
        if not planned.run.finished:
            continue
        cell = Cell(trial.experiment, trial.condition, trial.setting.name)
        if cell not in required:
            experiment = study.experiment(trial.experiment)
            names = required_analyses(experiment) + judging_analyses(experiment, trial.condition, trial.setting)
            required[cell] = names
        numbers = required_numbers(study.experiment(trial.experiment))
        for name in required[cell]:
            if name not in missing.get(planned, ()) and not has_analysis(planned.run, name, numbers.get(name, ())):
                missing.setdefault(planned, []).append(name)
    return missing
