"""Settings and provenance: what a study varied, what it kept fixed, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from vaelab.core.console import count_text
from vaelab.reporting.formatting import value_text
from vaelab.runs.spec import Spec, spec_to_dict
from vaelab.studies.definition import Experiment
from vaelab.studies.results import StudyResults

__all__ = ["SettingsContext", "image_counts", "provenance_rows", "seeds_text", "settings_context", "summary_facts"]

NamedText = tuple[str, str]  # a name, and what it is


@dataclass(frozen=True)
class SettingsContext:
    """What an experiment varied and kept fixed.

    Attributes:
        varied: The factors with their values, or the variants with their changes.
        conditions: The conditions with their changes.
        fixed: The settings that all runs share.
        seeds: The seeds.
    """

    varied: list[NamedText]
    conditions: list[NamedText]
    fixed: list[NamedText]
    seeds: str


def settings_context(results: StudyResults, experiment: Experiment) -> SettingsContext:
    """What an experiment varied and kept fixed."""
    specs = []
    for result in results.setting_results:
        if result.experiment is experiment:
            specs += results.specs(result)
    conditions = []
    for condition in experiment.conditions:
        if condition:
            conditions.append((condition, value_text(results.study.conditions[condition]) or "as it is"))
    seeds = ", ".join(map(str, results.study.seeds))
    added = added_seeds(results, experiment)
    if added:
        seeds += f"; where claims were still open also {', '.join(map(str, added))}"
    return SettingsContext(_varied_factors(experiment), conditions, fixed_fields(specs), seeds)


def added_seeds(results: StudyResults, experiment: Experiment | None = None) -> list[int]:
    """The seeds beyond those that all settings have, which open claims asked for.

    Args:
        results: The results.
        experiment: The experiment whose settings are looked at; all of them if None.
    """
    added = set()
    for result in results.setting_results:
        if experiment is None or result.experiment is experiment:
            added |= set(result.runs) - set(results.study.seeds)
    return sorted(added)


def _varied_factors(experiment: Experiment) -> list[NamedText]:
    """The variants with their changes, or the factors with their values."""
    if experiment.factors == ["variant"]:
        return [(setting.name, value_text(setting.changes) or "the base") for setting in experiment.settings]
    factors = []
    for factor in experiment.factors:
        values = dict.fromkeys(setting.values[factor] for setting in experiment.settings)
        factors.append((factor, ", ".join(values)))
    return factors


def fixed_fields(specs: Sequence[Spec]) -> list[NamedText]:
    """The fields that all specs share, as text; of members that differ, the inner fields that they share.

    Example:
        >>> dict(fixed_fields([Spec(latent_dim=2), Spec(latent_dim=4)]))["epochs"]
        '20'
    """
    shared: list[NamedText] = []
    for name in spec_to_dict(specs[0]):
        if name == "data":
            continue
        members = list(dict.fromkeys(getattr(spec, name) for spec in specs))
        if len(members) == 1:
            shared.append((name, value_text(members[0])))
        elif _are_of_one_kind(members):
            shared += _shared_inner_fields(name, members)
    return shared


def _are_of_one_kind(members: Sequence[Any]) -> bool:
    """Whether members are all of one dataclass, such as all `BetaVAE`."""
    return len({type(member) for member in members}) == 1 and hasattr(members[0], "__dataclass_fields__")


def _shared_inner_fields(name: str, members: Sequence[Any]) -> list[NamedText]:
    """The fields that members of one kind share."""
    shared = []
    for field in fields(members[0]):
        values = {getattr(member, field.name) for member in members}
        if len(values) == 1:
            shared.append((f"{name}.{field.name}", value_text(values.pop())))
    return shared


# Where the numbers come from


def summary_facts(results: StudyResults) -> list[str]:
    """The data, their shape and number, the runs and the seeds, each as a few words."""
    facts = [results.study.data]
    if results.finished_runs:
        data = results.finished_runs[0].origin["data"]
        facts += [" × ".join(map(str, data["shape"])), image_counts(data)]
    seeds = seeds_text(results.study.seeds)
    added = added_seeds(results)
    if added:
        seeds += f", up to {len(results.study.seeds) + len(added)} for open claims"
    return [*facts, count_text(results.num_specs, "run"), seeds]


def image_counts(data: Mapping[str, Any]) -> str:
    """How many images each split has; `data` as in origin.json.

    Example:
        >>> image_counts({"images": {"train": 1200, "test": 300}})
        '1,200 train, 300 test images'
    """
    return ", ".join(f"{count:,} {split}" for split, count in data["images"].items()) + " images"


def seeds_text(seeds: Sequence[int]) -> str:
    """The seeds of a study.

    Example:
        >>> seeds_text((1, 2))
        'seeds 1, 2'
    """
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"


def provenance_rows(results: StudyResults, provenance: Mapping[str, Any]) -> list[NamedText]:
    """Where the numbers come from, as (name, text).

    Wall time is left out: the same results give the same report.

    Args:
        results: The results.
        provenance: What is known of the study itself, such as its command; the rest is taken from the runs.

    Returns:
        The rows that have a text. Where runs differ, their texts stand side by side.
    """
    origins = [run.origin for run in results.finished_runs]
    data = [origin["data"] for origin in origins]
    rows = {
        "Command": _distinct_texts("command", provenance, origins),
        "Versions": _distinct_texts("versions", provenance, origins),
        "Machine": _distinct_texts("machine", provenance, origins),
        "Plan": _distinct_texts("plan", provenance, origins),
        "Training": f"{count_text(len(origins), 'run')}; timings.csv says how long each took" if origins else "",
        "Data": "; ".join(dict.fromkeys(str(facts["source"]) for facts in data)) or results.study.data,
        "Fingerprint of the data": "; ".join(dict.fromkeys(facts["fingerprint"] for facts in data)),
        "Images": "; ".join(dict.fromkeys(map(image_counts, data))),
        "Seeds": ", ".join(map(str, [*results.study.seeds, *added_seeds(results)])),
    }
    return [(name, text) for name, text in rows.items() if text]


def _distinct_texts(name: str, provenance: Mapping[str, Any], origins: Sequence[Mapping[str, Any]]) -> str:
    """An entry of the study, or else the different ones of its runs."""
    values = [provenance[name]] if provenance.get(name) else [origin[name] for origin in origins if origin.get(name)]
    return "; ".join(dict.fromkeys(map(_provenance_text, values)))


def _provenance_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name.replace('_', ' ')} {value_text(item)}" for name, item in value.items() if item is not None
        )
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
