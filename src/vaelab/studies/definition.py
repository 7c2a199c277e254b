"""The definition of a study: settings, experiments and claims as frozen dataclasses.

    Study      = data, base spec, conditions, seeds  +  experiments
    Experiment = settings of one or several factors  +  figures  +  claims

A condition is one interpretation of what a report leaves open, such as the KL weight. Every setting runs under every
condition of its experiment and with every seed. In study files conditions stand under `readings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from vaelab.core.errors import UserError
from vaelab.runs.presets import get_preset
from vaelab.runs.spec import Spec, updated
from vaelab.studies.expectations import NO_MARGIN, Expectation, Margin
from vaelab.studies.quantities import Quantity
from vaelab.studies.sequential import LookPlan

__all__ = ["DEFAULT_MOST_SEEDS", "Cell", "Changes", "Claim", "Experiment", "Setting", "Study", "Trial"]

Changes = Mapping[str, Any]

DEFAULT_MOST_SEEDS = 12  # seeds of a setting, where seeds are added until claims are decided


class Cell(NamedTuple):
    """A setting of an experiment under a condition, by their names."""

    experiment: str
    condition: str
    setting: str


class Setting(NamedTuple):
    """One combination of the factors of an experiment.

    Attributes:
        name: What it is called, such as "ce+se, 0.001".
        values: The value of each factor, as text.
        changes: The changes of the base spec that it makes.
    """

    name: str
    values: dict[str, str]
    changes: Changes


class Trial(NamedTuple):
    """A run that a study asks for: its experiment, condition, setting and spec."""

    experiment: str
    condition: str
    setting: Setting
    spec: Spec

    @property
    def label(self) -> str:
        """What the run is for, in words, such as "B1, KL weight 1, ce, seed 2"."""
        parts = (self.experiment, self.condition, self.setting.name, f"seed {self.spec.seed}")
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class Claim:
    """A sentence with the quantity that it is about and what it expects of it.

    Args:
        id: Its name, unique in the study.
        sentence: What it says.
        source: Where it comes from.
        quantities: What is measured. Several quantities are compared with each other, at the one setting that
            `fixed_factors` leaves; a single one is compared between settings.
        expectations: What is expected of it.
        fixed_factors: The values of factors to which the settings are restricted.
        conditions: The conditions under which it is judged.
        once: Whether it depends on no condition, so that it is judged under the first one alone.
        anchor: Whether it is a published figure with its tolerance, which is met or missed.
        margin: The largest difference that does not matter.
        margin_reason: Why; empty where no margin was set.
    """

    id: str
    sentence: str
    source: str
    quantities: tuple[Quantity, ...]
    expectations: tuple[Expectation, ...]
    fixed_factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    once: bool = False
    anchor: bool = False
    margin: Margin = NO_MARGIN
    margin_reason: str = ""

    @property
    def expectation_text(self) -> str:
        """What is expected, in words."""
        quantities = ", ".join(quantity.text for quantity in self.quantities)
        descriptions = " and ".join(expectation.description for expectation in self.expectations)
        return f"{quantities}: {descriptions}"

    @property
    def required_analyses(self) -> list[str]:
        """The analyses whose numbers it asks for."""
        names = [name for quantity in self.quantities for name in sorted(quantity.required_analyses)]
        return list(dict.fromkeys(names))

    def settings(self, experiment: Experiment) -> list[Setting]:
        """The settings of an experiment that it compares."""
        return [setting for setting in experiment.settings if self._includes(setting)]

    def _includes(self, setting: Setting) -> bool:
        return all(setting.values[factor] in values for factor, values in self.fixed_factors.items())

    def compared_names(self, settings: list[Setting]) -> list[str]:
        """The names of what it compares: settings, or quantities where there are several."""
        if len(self.quantities) == 1:
            return [setting.name for setting in settings]
        return [quantity.text for quantity in self.quantities]


@dataclass(frozen=True)
class Experiment:
    """Settings of one or several factors, with figures and claims.

    Args:
        id: Its name, unique in the study.
        title: Its title.
        question: What it asks.
        rows: The rows of a report that it covers.
        base: Changes of the base spec for all of its settings.
        settings: The settings.
        conditions: The conditions under which they run.
        figures: The names of the figures.
        claims: What is judged.
    """

    id: str
    title: str
    question: str = ""
    rows: tuple[str, ...] = ()
    base: Changes = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    conditions: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()

    @property
    def factors(self) -> list[str]:
        """The names of what is varied."""
        return list(self.settings[0].values)


@dataclass(frozen=True)
class Study:
    """A whole study, as its file says, with the changes of the command line.

    Args:
        name: Its name, which is also that of its folder.
        title: Its title.
        text: The text of its file; empty for a single run.
        data: The data, as `vaelab train` takes them.
        base: Changes of the preset for all runs.
        conditions: The changes that each condition makes.
        seeds: The seeds of each setting.
        experiments: The experiments.
        about: What it is about.
        rows: The rows of a report that it covers, with their texts.
        epochs: The epochs of every run; as in the specs if None.
        decide: Whether seeds are added until every claim is decided.
        most_seeds: The seeds of a setting at which that ends.
        repeat_splits: Whether each seed has splits of its own, where the data do not store them.
        added_seeds: The seeds that settings have got beyond `seeds` so far.
    """

    name: str
    title: str
    text: str
    data: str
    base: Changes
    conditions: Mapping[str, Changes]
    seeds: tuple[int, ...]
    experiments: tuple[Experiment, ...]
    about: str = ""
    rows: Mapping[str, str] = field(default_factory=dict)
    epochs: int | None = None
    decide: bool = False
    most_seeds: int = DEFAULT_MOST_SEEDS
    repeat_splits: bool = False
    added_seeds: Mapping[Cell, tuple[int, ...]] = field(default_factory=dict)

    @property
    def num_cells(self) -> int:
        """How many settings it has, those of each experiment and condition counted on their own."""
        return sum(len(experiment.conditions) * len(experiment.settings) for experiment in self.experiments)

    @property
    def max_trials(self) -> int:
        """How many trials it has at most."""
        return self.num_cells * len(self.all_seeds)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """Its seeds and those that may be added to them, in this order."""
        if not self.decide:
            return self.seeds
        first_added = max(self.seeds) + 1
        num_added = max(0, self.most_seeds - len(self.seeds))
        return (*self.seeds, *range(first_added, first_added + num_added))

    def with_all_seeds(self) -> Study:
        """The study with all seeds that it may ask for, in every setting."""
        if not self.decide:
            return self
        added_seeds = {}
        for experiment in self.experiments:
            for condition in experiment.conditions:
                for setting in experiment.settings:
                    added_seeds[Cell(experiment.id, condition, setting.name)] = self.all_seeds[len(self.seeds) :]
        return replace(self, added_seeds=added_seeds)

    @property
    def look_plan(self) -> LookPlan | None:
        """After how many seeds claims are judged; None for once, with the seeds that there are."""
        return LookPlan.sequential(len(self.seeds), self.most_seeds) if self.decide else None

    def seeds_of(self, cell: Cell) -> tuple[int, ...]:
        """The seeds that a setting has so far."""
        return (*self.seeds, *self.added_seeds.get(cell, ()))

    @cached_property
    def trials(self) -> list[Trial]:
        """Every run that it asks for.

        All settings of the first seed come first, then those of the next: a part of a study is a study of fewer seeds.
        """
        trials = []
        for seed in self.all_seeds:
            for experiment in self.experiments:
                for condition in experiment.conditions:
                    for setting in experiment.settings:
                        if seed not in self.seeds_of(Cell(experiment.id, condition, setting.name)):
                            continue
                        spec = self.spec(experiment, condition, setting, seed)
                        trials.append(Trial(experiment.id, condition, setting, spec))
        return trials

    def experiment(self, name: str) -> Experiment:
        """The experiment with an id."""
        return next(experiment for experiment in self.experiments if experiment.id == name)

    def spec(self, experiment: Experiment, condition: str, setting: Setting, seed: int) -> Spec:
        """The spec of a trial: base <- experiment <- condition <- setting <- seed, where later changes win.

        Raises:
            UserError: A change does not fit, with the experiment and the setting.
        """
        changes = dict(self.base)
        spec = get_preset(changes.pop("preset", None), self.data)
        for change in (changes, experiment.base, self.conditions[condition], setting.changes):
            try:
                spec = updated(spec, change)
            except UserError as error:
                raise UserError(f"experiment {experiment.id}, {setting.name or 'base'}: {error}") from None
        if self.epochs is not None:
            spec = updated(spec, {"epochs": self.epochs})
        return replace(spec, seed=seed, split_seed=seed if self.repeat_splits else spec.split_seed)
