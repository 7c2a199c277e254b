"""What a study is: settings, experiments and claims as frozen dataclasses."""

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
    """One choice of the factors of an experiment: its name, the value of each factor, and the changes of the spec."""

    name: str
    values: dict[str, str]
    changes: Changes


class Trial(NamedTuple):
    """A run that a study asks for, and what for."""

    experiment: str
    condition: str
    setting: Setting
    spec: Spec


@dataclass(frozen=True)
class Claim:
    """A sentence, the quantity that it speaks of, and what it expects of it.

    With several measures these are what is compared, at the one setting that `where` leaves.
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
        quantity = ", ".join(m.text for m in self.quantities)
        return f"{quantity}: {' and '.join(e.description for e in self.expectations)}"

    def settings(self, experiment: Experiment) -> list[Setting]:
        """The settings that it compares."""
        return [s for s in experiment.settings if all(s.values[f] in v for f, v in self.fixed_factors.items())]


@dataclass(frozen=True)
class Experiment:
    """Settings of one or several factors, the figures wanted of them, and claims."""

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
        return list(self.settings[0].values)


@dataclass(frozen=True)
class Study:
    """A whole study, as its file says, with what was overridden on the command line."""

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

    @cached_property
    def trials(self) -> list[Trial]:
        """Every run asked for: all settings of the first seed, then of the next, so that a part is a smaller study."""
        cells = [(e, reading, setting) for e in self.experiments for reading in e.conditions for setting in e.settings]
        return [
            Trial(e.id, reading, setting, self.spec(e, reading, setting, seed))
            for seed in self.seeds
            for e, reading, setting in cells
        ]

    def experiment(self, name: str) -> Experiment:
        return next(e for e in self.experiments if e.id == name)

    def spec(self, experiment: Experiment, condition: str, setting: Setting, seed: int) -> Spec:
        changes = dict(self.base)
        spec = get_preset(changes.pop("preset", None), self.data)
        for changed in (changes, experiment.base, self.conditions[condition], setting.changes):
            try:
                spec = updated(spec, changed)
            except UserError as error:
                raise UserError(f"experiment {experiment.id}, {setting.name or 'base'}: {error}") from None
        return replace(spec, seed=seed, epochs=self.epochs or spec.epochs)
