"""What a study is: settings, experiments and claims as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from vaelab.core.errors import UserError
from vaelab.runs.presets import preset
from vaelab.runs.spec import Spec, change
from vaelab.studies.hypotheses import Expectation
from vaelab.studies.quantities import Measure

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
    reading: str
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
    measure: tuple[Measure, ...]
    expect: tuple[Expectation, ...]
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    readings: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        quantity = ", ".join(m.text for m in self.measure)
        return f"{quantity}: {' and '.join(e.said for e in self.expect)}"

    def settings(self, experiment: Experiment) -> list[Setting]:
        """The settings that it compares."""
        return [s for s in experiment.settings if all(s.values[f] in v for f, v in self.where.items())]


@dataclass(frozen=True)
class Experiment:
    """Settings of one or several factors, the figures wanted of them, and claims."""

    id: str
    title: str
    question: str = ""
    rows: tuple[str, ...] = ()
    base: Changes = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    readings: tuple[str, ...] = ()
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
    readings: Mapping[str, Changes]
    seeds: tuple[int, ...]
    experiments: tuple[Experiment, ...]
    about: str = ""
    rows: Mapping[str, str] = field(default_factory=dict)
    epochs: int | None = None

    @cached_property
    def trials(self) -> list[Trial]:
        """Every run asked for: all settings of the first seed, then of the next, so that a part is a smaller study."""
        cells = [(e, reading, setting) for e in self.experiments for reading in e.readings for setting in e.settings]
        return [
            Trial(e.id, reading, setting, self.spec(e, reading, setting, seed))
            for seed in self.seeds
            for e, reading, setting in cells
        ]

    def experiment(self, name: str) -> Experiment:
        return next(e for e in self.experiments if e.id == name)

    def spec(self, experiment: Experiment, reading: str, setting: Setting, seed: int) -> Spec:
        changes = dict(self.base)
        spec = preset(changes.pop("preset", None), self.data)
        for changed in (changes, experiment.base, self.readings[reading], setting.changes):
            try:
                spec = change(spec, changed)
            except UserError as error:
                raise UserError(f"experiment {experiment.id}, {setting.name or 'base'}: {error}") from None
        return replace(spec, seed=seed, epochs=self.epochs or spec.epochs)
