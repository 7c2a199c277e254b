r"""Parsing: the text of a study file becomes a `Study`, and everything that it gets wrong is refused.

A study is one TOML file, written before any run. A setting is a change of the base spec:

    spec(experiment, condition, setting, seed) = base <- experiment.base <- condition <- setting <- seed

where later changes win. Names that the file gets wrong are refused with what was perhaps meant.
"""

from __future__ import annotations

import itertools
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaelab.analysis.registry import ANALYSES
from vaelab.core.codec import parse_value, to_word
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.runs.spec import check_spec
from vaelab.studies.definition import DEFAULT_MOST_SEEDS, Changes, Claim, Experiment, Setting, Study
from vaelab.studies.expectations import NO_MARGIN, Between, Expectation, parse_margin
from vaelab.studies.quantities import Quantity
from vaelab.studies.schema import (
    CLAIM_SCHEMA,
    EXPERIMENT_SCHEMA,
    NAME,
    OVERRIDE_SCHEMA,
    SEED_LIMIT,
    STUDY_SCHEMA,
    validate_table,
    with_standard_keys,
)

__all__ = ["STUDIES_DIR", "Overrides", "parse_study", "read_study", "shipped_studies", "with_overrides"]

STUDIES_DIR = Path(__file__).parent / "builtin"

MAX_TRIALS = 100_000  # runs of a study, those of equal specs counted several times

MAX_FILE_BYTES = 10**7  # bytes of a study file

FIXED_FIELDS = ("data", "seed", "parent")  # fields of a spec that no setting may change


def shipped_studies() -> dict[str, Path]:
    """The studies that come with vaelab: file by name."""
    files = {file.stem: file for file in STUDIES_DIR.glob("*.toml")}
    return {name: files[name] for name in sorted(files)}


def read_study(source: str | Path, name: str | None = None) -> Study:
    """Read a study from a file, or a shipped study by its name.

    Args:
        source: A path that ends in .toml, or the name of a shipped study.
        name: What the study is called where its file does not say; the name of the file if None.

    Returns:
        The study, with all of its specs checked.

    Raises:
        UserError: There is no such study, or the file is wrong.

    Example:
        >>> read_study("digits").data
        'digits'
    """
    path = _study_path(source)
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read the study {path}: it is no regular file")
        if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"cannot read the study {path}: a study has at most {MAX_FILE_BYTES // 10**6} MB")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the study {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return parse_study(text, name or path.stem)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _study_path(source: str | Path) -> Path:
    """The file of a study, which is a path that ends in .toml or the name of a shipped one."""
    path = Path(source)
    shipped = shipped_studies()
    if path.suffix == ".toml":
        return path
    if str(source) in shipped:
        return shipped[str(source)]
    if path.suffix == "":
        raise unknown_name_error("study", str(source), shipped)
    raise UserError(f"{source} is no .toml file")


def parse_study(text: str, name: str) -> Study:
    r"""Parse the text of a study file; every spec that it asks for is checked.

    Args:
        text: The file, TOML.
        name: What the study is called where the text does not say.

    Returns:
        The study.

    Raises:
        UserError: The text is wrong, with what is allowed and where.

    Example:
        >>> study = parse_study('data = "digits"\n[[experiments]]\nid = "a"\nvary = { latent_dim = [2, 4] }', "small")
        >>> [trial.label for trial in study.trials][:2]
        ['a, 2, seed 1', 'a, 4, seed 1']
    """
    table = _parse_toml(text)
    conditions = _parse_conditions(table.get("readings", {"": {}}))
    experiments = [_parse_experiment(experiment, conditions) for experiment in table["experiments"]]
    if not experiments:
        raise UserError("a study needs one [[experiments]] at least")
    _check_unique([experiment.id for experiment in experiments], "experiment")
    _check_unique([claim.id for experiment in experiments for claim in experiment.claims], "claim")
    study_name = table.get("name", name)
    study = Study(
        name=study_name,
        title=table.get("title", study_name),
        text=text,
        data=table["data"],
        base=_check_changes(table.get("base", {}), "base"),
        conditions=conditions,
        seeds=_to_seeds(table.get("seeds", 3)),
        experiments=tuple(experiments),
        about=table.get("about", ""),
        rows=table.get("rows", {}),
        epochs=table.get("epochs"),
        decide=table.get("decide", False),
        most_seeds=table.get("most_seeds", DEFAULT_MOST_SEEDS),
        repeat_splits=table.get("repeat_splits", False),
    )
    _check_seeds(study)
    _check_rows(study)
    _check_trials(study)
    return study


class Overrides(NamedTuple):
    """Changes of the command line, each None where it says nothing.

    Attributes:
        data: Other data.
        seeds: Seeds 1 to `seeds` in place of the study's.
        epochs: Other epochs for every run.
        decide: Whether seeds are added until every claim is decided.
        most_seeds: The seeds of a setting at which that ends.
    """

    data: str | None = None
    seeds: int | None = None
    epochs: int | None = None
    decide: bool | None = None
    most_seeds: int | None = None


def with_overrides(study: Study, overrides: Overrides) -> Study:
    """The study with changes of the command line, which its own text then holds as well.

    Args:
        study: The study as its file says, perhaps with earlier changes. These stay where nothing new is said.
        overrides: The changes.

    Returns:
        The study whose text ends in a table `[overridden]` with the changes.

    Raises:
        UserError: A change does not fit.

    Example:
        >>> study = with_overrides(read_study("digits"), Overrides(seeds=2))
        >>> study.seeds, study.text.splitlines()[-2:]
        ((1, 2), ['[overridden]', 'seeds = 2'])
    """
    changes = {name: value for name, value in overrides._asdict().items() if value is not None}
    if not changes:
        return study
    original_text, _, earlier_lines = study.text.partition("\n[overridden]\n")
    changes = tomllib.loads(earlier_lines) | changes
    lines = [f"{name} = {json.dumps(value)}" for name, value in changes.items()]
    text = original_text.rstrip() + "\n\n[overridden]\n" + "\n".join(lines) + "\n"
    return parse_study(text, study.name)


# The study as a whole


def _parse_toml(text: str) -> dict[str, Any]:
    """The validated table of a study file, with what was overridden in place of what it says."""
    try:
        table = with_standard_keys(tomllib.loads(text), "the study")
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not TOML: {error}") from None
    except RecursionError:
        raise UserError("not a study: its values are nested too deeply") from None
    validate_table(table, "the study", STUDY_SCHEMA, "data", "experiments")
    overrides = table.pop("overridden", {})
    validate_table(overrides, "the command", OVERRIDE_SCHEMA)
    return table | overrides


def _parse_conditions(table: Mapping[str, Changes]) -> dict[str, Changes]:
    """The changes of each condition, by its name; a study without any has one without a name."""
    conditions = {}
    for name, changes in table.items():
        if name:
            validate_table({"reading": name}, "readings", {"reading": NAME})
        conditions[name] = _check_changes(changes, f"reading {name}")
    return conditions


def _to_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(range(1, seeds + 1)) if isinstance(seeds, int) else tuple(seeds)


def _check_seeds(study: Study) -> None:
    """Refuse a limit of seeds below those that the study has anyway, and seeds beyond what libraries take."""
    if not study.decide:
        return
    if study.most_seeds < len(study.seeds):
        raise UserError(
            f"most_seeds must be at least {len(study.seeds)}, with which the study begins, got {study.most_seeds}"
        )
    if study.all_seeds[-1] >= SEED_LIMIT:
        raise UserError(f"seeds are added after the largest one, up to {SEED_LIMIT - 1}: take smaller ones")


def _check_rows(study: Study) -> None:
    """Refuse rows of a report that the study does not list, where it lists any."""
    for experiment in study.experiments:
        for row in experiment.rows:
            if study.rows and row not in study.rows:
                raise unknown_name_error("row", row, study.rows)


def _check_trials(study: Study) -> None:
    """Refuse a study with too many trials, or with a spec that cannot be meant."""
    if study.max_trials > MAX_TRIALS:
        raise UserError(f"a study has at most {MAX_TRIALS:,} trials, this one {study.max_trials:,}")
    for trial in study.trials:
        try:
            check_spec(trial.spec)
        except UserError as error:
            raise UserError(f"experiment {trial.experiment}, {trial.setting.name or 'base'}: {error}") from None


# An experiment


def _parse_experiment(table: Mapping[str, Any], conditions: Mapping[str, Changes]) -> Experiment:
    """An experiment with its claims."""
    place = f"experiment {table.get('id', '')}".strip()
    table = with_standard_keys(table, place)
    validate_table(table, place, EXPERIMENT_SCHEMA, "id")
    chosen_conditions = _to_texts(table.get("readings", tuple(conditions)))
    _check_known(chosen_conditions, conditions, f"reading in {place}")
    experiment = Experiment(
        id=table["id"],
        title=table.get("title", table["id"]),
        question=table.get("question", ""),
        rows=_to_texts(table.get("rows", ())),
        base=_check_changes(table.get("base", {}), place),
        settings=tuple(_parse_settings(table, place)),
        conditions=chosen_conditions,
        figures=_to_texts(table.get("figures", ("curves",))),
    )
    _check_unique([setting.name for setting in experiment.settings], f"{place}: setting")
    return replace(experiment, claims=tuple(_parse_claim(claim, experiment) for claim in table.get("claims", ())))


def _parse_settings(table: Mapping[str, Any], place: str) -> list[Setting]:
    """The named variants of a table, or the grid of the factors that it varies, or its base alone."""
    if "vary" in table and "variants" in table:
        raise UserError(f"{place} has both vary and variants: take one of them")
    if "variants" in table:
        return [_parse_variant(name, changes, place) for name, changes in table["variants"].items()]
    factors = _check_changes(table.get("vary", {}), place)
    num_settings = math.prod(len(values) for values in factors.values())
    if num_settings > MAX_TRIALS:
        raise UserError(f"{place} has {num_settings:,} settings; a study has at most {MAX_TRIALS:,} trials")
    settings = []
    for values in itertools.product(*factors.values()):
        changes = dict(zip(factors, values, strict=True))
        texts = {factor: _to_text(value) for factor, value in changes.items()}
        settings.append(Setting(", ".join(texts.values()), texts, changes))
    return settings


def _parse_variant(name: str, changes: Mapping[str, Any], place: str) -> Setting:
    return Setting(name, {"variant": name}, _check_changes(changes, f"{place}, variant {name}"))


# A claim


def _parse_claim(table: Mapping[str, Any], experiment: Experiment) -> Claim:
    """A claim of an experiment, refused where it has nothing to compare."""
    place = f"claim {table.get('id', '')} of experiment {experiment.id}"
    table = with_standard_keys(table, place)
    validate_table(table, place, CLAIM_SCHEMA, "id", "sentence", "measure", "expect")
    conditions = _to_texts(table.get("readings", experiment.conditions))
    _check_known(conditions, experiment.conditions, f"reading in {place}")
    try:
        claim = Claim(
            id=table["id"],
            sentence=table["sentence"],
            source=table.get("source", ""),
            quantities=tuple(Quantity(text) for text in _to_texts(table["measure"])),
            expectations=tuple(parse_value("expect", Expectation, value) for value in _as_list(table["expect"])),
            fixed_factors=_parse_fixed_factors(table.get("where", {}), experiment, place),
            conditions=conditions[:1] if table.get("once") else conditions,
            once=table.get("once", False),
            anchor=table.get("anchor", False),
            margin=parse_margin(table["margin"]) if "margin" in table else NO_MARGIN,
            margin_reason=table.get("margin_reason", ""),
        )
        _check_known(claim.required_analyses, ANALYSES, "analysis")
        _check_comparable(claim, experiment)
    except UserError as error:
        raise UserError(str(error) if place in str(error) else f"{place}: {error}") from None
    return claim


def _parse_fixed_factors(table: Mapping[str, Any], experiment: Experiment, place: str) -> dict[str, tuple[str, ...]]:
    """The values of factors to which a claim is restricted."""
    fixed_factors = {}
    for factor, value in table.items():
        _check_known([factor], experiment.factors, f"factor in {place}")
        texts = tuple(_to_text(item) for item in _as_list(value))
        _check_known(texts, [setting.values[factor] for setting in experiment.settings], f"{factor} in {place}")
        fixed_factors[factor] = texts
    return fixed_factors


def _check_comparable(claim: Claim, experiment: Experiment) -> None:
    """Refuse a claim whose expectations have nothing to compare."""
    settings = claim.settings(experiment)
    if not settings or (len(claim.quantities) > 1 and len(settings) > 1):
        raise UserError(f"`where` must leave one setting beside several measures, it leaves {len(settings)}")
    names = claim.compared_names(settings)
    is_between = [isinstance(expectation, Between) for expectation in claim.expectations]
    if claim.anchor and (is_between != [True] or len(names) != 1):
        raise UserError("an anchor is one measure of one setting, and expects it to be between two numbers")
    for expectation in claim.expectations:
        if not expectation.contrasts(np.zeros((2, len(names))), names):
            raise UserError(f"{expectation.name} has nothing to compare here; it needs two settings or a bound")


# Values


def _to_text(value: Any) -> str:
    return to_word(value) if hasattr(value, "__dataclass_fields__") else str(value)


def _to_texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, _as_list(value)))


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _check_changes(table: Changes, place: str) -> Changes:
    """Changes of a spec. Their names and values are checked where specs are made of them."""
    for name in FIXED_FIELDS:
        if name in table:
            raise UserError(f"{place}: {name} is nothing that a study varies; data and seeds are said once, at its top")
    return table


def _check_known(names: Sequence[str], known: Sequence[str] | Mapping[str, Any], kind: str) -> None:
    for name in names:
        if name not in known:
            raise unknown_name_error(kind, name, dict.fromkeys(known))


def _check_unique(names: Sequence[str], kind: str) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise UserError(f'{kind} id "{name}" stands there twice')
        seen.add(name)
