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
from vaelab.studies.hypotheses import Expectation
from vaelab.studies.quantities import Quantity

__all__ = ["Changes", "Claim", "Experiment", "Setting", "Study", "Trial"]

Changes = Mapping[str, Any]


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
    """

    id: str
    sentence: str
    source: str
    quantities: tuple[Quantity, ...]
    expectations: tuple[Expectation, ...]
    fixed_factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()

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

    @property
    def num_trials(self) -> int:
        """How many trials it has."""
        num_cells = sum(len(experiment.conditions) * len(experiment.settings) for experiment in self.experiments)
        return num_cells * len(self.seeds)

    @cached_property
    def trials(self) -> list[Trial]:
        """Every run that it asks for.

        All settings of the first seed come first, then those of the next: a part of a study is a study of fewer seeds.
        """
        trials = []
        for seed in self.seeds:
            for experiment in self.experiments:
                for condition in experiment.conditions:
                    for setting in experiment.settings:
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
        return replace(spec, seed=seed)
