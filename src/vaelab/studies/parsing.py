r"""The protocol of a study: what is asked, run and expected, written down before any run.

    Study = data, base spec, readings, seeds  +  experiments
    Experiment = settings of one or several factors  +  figures  +  claims

A study is one TOML file. A setting is a change of the base spec; every setting runs under every reading and seed:

    spec(experiment, reading, setting, seed) = base  <-  experiment.base  <-  reading  <-  setting  <-  seed

where later changes win. Names that the file gets wrong are refused with what was perhaps meant.
"""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaelab.analysis.registry import ANALYSES
from vaelab.core.codec import parse_value, to_word
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.runs import spec as specs
from vaelab.studies.definition import Changes, Claim, Experiment, Setting, Study
from vaelab.studies.hypotheses import Expectation
from vaelab.studies.quantities import Quantity

__all__ = ["STUDIES_DIR", "parse_study", "read_study", "shipped_studies", "with_overrides"]

STUDIES_DIR = Path(__file__).parent / "builtin"


def shipped_studies() -> dict[str, Path]:
    """The studies that come with vaelab, by name."""
    return {file.stem: file for file in sorted(STUDIES_DIR.glob("*.toml"))}


def read_study(name: str | Path) -> Study:
    """The study in a file, or the shipped one of that name."""
    path = Path(name)
    known = shipped_studies()
    if path.suffix != ".toml":
        if str(name) not in known:
            raise (
                unknown_name_error("study", str(name), known)
                if path.suffix == ""
                else UserError(f"{name} is no .toml file")
            )
        path = known[str(name)]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the study {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return parse_study(text, path.stem)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


class Validator(NamedTuple):
    """What an entry of a study file may be, in words, and whether a value is that."""

    description: str
    is_valid: Callable[[Any], bool]


def _is_texts(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(v, str) for v in values) and len(set(values)) == len(values)


def _is_list(value: Any) -> bool:
    """Whether a value is a list of different values."""
    return isinstance(value, list) and bool(value) and len({*map(str, value)}) == len(value)


TEXT = Validator("text", lambda v: isinstance(v, str))

NAME = Validator(
    "a name of letters, digits, spaces and . + - _",
    lambda v: isinstance(v, str) and re.fullmatch(r"\w[\w .+-]{0,80}", v) is not None,
)

TEXTS = Validator("a text or a list of different ones", _is_texts)

FIGURES = Validator("a list of figures", lambda v: v == [] or _is_texts(v))

COUNT = Validator("a whole number of at least 1", lambda v: type(v) is int and v >= 1)

SEEDS = Validator(
    "how many, at least 1, or a list of different whole numbers from 0 on",
    lambda v: COUNT.is_valid(v) or (_is_list(v) and all(type(n) is int and 0 <= n < 2**31 for n in v)),
)

TABLE = Validator("a table, such as { latent_dim = 16 }", lambda v: isinstance(v, Mapping))

NAMED_TABLES = Validator(
    "a table of named tables", lambda v: TABLE.is_valid(v) and bool(v) and all(map(TABLE.is_valid, v.values()))
)

LISTS = Validator(
    "a table of lists of different values, such as { latent_dim = [8, 16] }",
    lambda v: TABLE.is_valid(v) and bool(v) and all(map(_is_list, v.values())),
)

TABLES = Validator("a list of tables", lambda v: isinstance(v, list) and all(map(TABLE.is_valid, v)))

ROWS = Validator("a table of texts", lambda v: TABLE.is_valid(v) and all(map(TEXT.is_valid, v.values())))

ANY = Validator("anything", lambda v: v != [])

STUDY_SCHEMA = {
    "name": NAME,
    "title": TEXT,
    "about": TEXT,
    "data": TEXT,
    "seeds": SEEDS,
    "epochs": COUNT,
    "base": TABLE,
    "readings": NAMED_TABLES,
    "rows": ROWS,
    "experiments": TABLES,
    "overridden": TABLE,
}

OVERRIDE_SCHEMA = {name: STUDY_SCHEMA[name] for name in ("data", "seeds", "epochs")}

EXPERIMENT_SCHEMA = {
    "id": NAME,
    "title": TEXT,
    "question": TEXT,
    "rows": TEXTS,
    "base": TABLE,
    "vary": LISTS,
    "variants": NAMED_TABLES,
    "readings": TEXTS,
    "figures": FIGURES,
    "claims": TABLES,
}

CLAIM_SCHEMA = {
    "id": NAME,
    "sentence": TEXT,
    "source": TEXT,
    "measure": TEXTS,
    "expect": ANY,
    "where": TABLE,
    "readings": TEXTS,
}


def _validate_table(table: Mapping[str, Any], place: str, validators: Mapping[str, Validator], *required: str) -> None:
    """Refuse entries that are not known, that are not what they must be, and those that lack."""
    for name, value in table.items():
        if name not in validators:
            raise unknown_name_error(f"entry in {place}", name, validators)
        if not validators[name].is_valid(value):
            raise UserError(
                f"{name} in {place} must be {validators[name].description}, got {json.dumps(value, default=str)}"
            )
    for name in required:
        if name not in table:
            raise UserError(f"{place} lacks {name}")


def parse_study(text: str, name: str) -> Study:
    """A study from the text of its file; every spec that it asks for is checked."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not TOML: {error}") from None
    _validate_table(table, "the study", STUDY_SCHEMA, "data", "experiments")
    given = table.pop("overridden", {})
    _validate_table(given, "the command", OVERRIDE_SCHEMA)
    table |= given
    readings = {n: _check_changes(c, f"reading {n}") for n, c in table.get("readings", {"": {}}).items()}
    for reading in filter(None, readings):
        _validate_table({"reading": reading}, "readings", {"reading": NAME})
    experiments = [_parse_experiment(e, readings) for e in table["experiments"]]
    if not experiments:
        raise UserError("a study needs one [[experiments]] at least")
    _check_unique([e.id for e in experiments], "experiment")
    _check_unique([c.id for e in experiments for c in e.claims], "claim")
    rows, seeds = table.get("rows", {}), table.get("seeds", 3)
    for row in (row for e in experiments for row in e.rows if rows and row not in rows):
        raise unknown_name_error("row", row, rows)
    study = Study(
        name=table.get("name", name),
        title=table.get("title", name),
        text=text,
        data=table["data"],
        base=_check_changes(table.get("base", {}), "base"),
        conditions=readings,
        seeds=tuple(range(1, seeds + 1)) if isinstance(seeds, int) else tuple(seeds),
        experiments=tuple(experiments),
        about=table.get("about", ""),
        rows=rows,
        epochs=table.get("epochs"),
    )
    for trial in study.trials:
        try:
            specs.check_spec(trial.spec)
        except UserError as error:
            raise UserError(f"experiment {trial.experiment}, {trial.setting.name or 'base'}: {error}") from None
    return study


def with_overrides(study: Study, data: str | None, seeds: int | None, epochs: int | None) -> Study:
    """The study with other data, seeds 1 to `seeds`, or other epochs, which its own text then says as well."""
    given = {"data": data, "seeds": seeds, "epochs": epochs}
    lines = [f"{name} = {json.dumps(value)}" for name, value in given.items() if value is not None]
    if not lines:
        return study
    head, _, _ = study.text.partition("\n[overridden]\n")
    return parse_study(head.rstrip() + "\n\n[overridden]\n" + "\n".join(lines) + "\n", study.name)


def _parse_experiment(table: Mapping[str, Any], conditions: Mapping[str, Changes]) -> Experiment:
    where = f"experiment {table.get('id', '')}".strip()
    _validate_table(table, where, EXPERIMENT_SCHEMA, "id")
    chosen = _to_texts(table.get("readings", tuple(conditions)))
    for reading in chosen:
        if reading not in conditions:
            raise unknown_name_error(f"reading in {where}", reading, conditions)
    experiment = Experiment(
        id=table["id"],
        title=table.get("title", table["id"]),
        question=table.get("question", ""),
        rows=_to_texts(table.get("rows", ())),
        base=_check_changes(table.get("base", {}), where),
        settings=tuple(_parse_settings(table, where)),
        conditions=chosen,
        figures=_to_texts(table.get("figures", ("curves",))),
    )
    _check_unique([setting.name for setting in experiment.settings], f"{where}: setting")
    return replace(experiment, claims=tuple(_parse_claim(c, experiment) for c in table.get("claims", ())))


def _parse_settings(table: Mapping[str, Any], place: str) -> Iterator[Setting]:
    """The named variants of a table, or the grid of the factors that it varies, or its base alone."""
    if "vary" in table and "variants" in table:
        raise UserError(f"{place} has both vary and variants: take one of them")
    if "variants" in table:
        for name, changes in table["variants"].items():
            yield Setting(name, {"variant": name}, _check_changes(changes, f"{place}, variant {name}"))
        return
    factors = _check_changes(table.get("vary", {}), place)
    for values in itertools.product(*factors.values()):
        changes = dict(zip(factors, values, strict=True))
        texts = {factor: _value_to_text(value) for factor, value in changes.items()}
        yield Setting(", ".join(texts.values()), texts, changes)


def _parse_claim(table: Mapping[str, Any], experiment: Experiment) -> Claim:
    where = f"claim {table.get('id', '')} of experiment {experiment.id}"
    _validate_table(table, where, CLAIM_SCHEMA, "id", "sentence", "measure", "expect")
    expect = tuple(parse_value("expect", Expectation, e) for e in _as_list(table["expect"]))
    measure = tuple(Quantity(text) for text in _to_texts(table["measure"]))
    for name in (n for m in measure for n in m.required_analyses):
        if name not in ANALYSES:
            raise unknown_name_error(f"examination in {where}", name, ANALYSES)
    fixed = {factor: tuple(map(_value_to_text, _as_list(value))) for factor, value in table.get("where", {}).items()}
    for factor, values in fixed.items():
        if factor not in experiment.factors:
            raise unknown_name_error(f"factor in {where}", factor, experiment.factors)
        for value in values:
            if value not in (known := {s.values[factor] for s in experiment.settings}):
                raise unknown_name_error(f"{factor} in {where}", value, known)
    readings = _to_texts(table.get("readings", experiment.conditions))
    for reading in readings:
        if reading not in experiment.conditions:
            raise unknown_name_error(f"reading in {where}", reading, experiment.conditions)
    claim = Claim(table["id"], table["sentence"], table.get("source", ""), measure, expect, fixed, readings)
    _check_comparable(claim, experiment, where)
    return claim


def _check_comparable(claim: Claim, experiment: Experiment, place: str) -> None:
    """Refuse a claim whose expectations have nothing to compare."""
    names = [s.name for s in claim.settings(experiment)]
    if not names or (len(claim.quantities) > 1 and len(names) > 1):
        raise UserError(f"{place}: `where` must leave one setting beside several measures, it leaves {len(names)}")
    names = names if len(claim.quantities) == 1 else [m.text for m in claim.quantities]
    for e in claim.expectations:
        try:
            found = e.contrasts(np.zeros((2, len(names))), names)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        if not found:
            raise UserError(f"{place}: {e.name} has nothing to compare here; it needs two settings or a bound")


def _value_to_text(value: Any) -> str:
    return to_word(value) if hasattr(value, "__dataclass_fields__") else str(value)


def _to_texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, _as_list(value)))


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _check_changes(table: Any, place: str) -> Changes:
    """Changes of a spec; what they change, and to what, is checked where specs are made of them."""
    for name in ("data", "seed", "parent"):
        if name in table:
            raise UserError(f"{place}: {name} is nothing that a study varies; data and seeds are said once, at its top")
    return table


def _check_unique(names: Sequence[str], kind: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'{kind} id "{name}" stands there twice')
