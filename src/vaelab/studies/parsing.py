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

from vaelab.analysis.registry import EXAMINATIONS
from vaelab.core.codec import parse as parse_value
from vaelab.core.codec import word
from vaelab.core.errors import UserError, unknown
from vaelab.runs import spec as specs
from vaelab.studies.definition import Changes, Claim, Experiment, Setting, Study
from vaelab.studies.hypotheses import Expectation
from vaelab.studies.quantities import Measure

__all__ = ["SHIPPED", "overridden", "parse", "read", "shipped"]

SHIPPED = Path(__file__).parent / "builtin"


def shipped() -> dict[str, Path]:
    """The studies that come with vaelab, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.toml"))}


def read(name: str | Path) -> Study:
    """The study in a file, or the shipped one of that name."""
    path = Path(name)
    known = shipped()
    if path.suffix != ".toml":
        if str(name) not in known:
            raise unknown("study", str(name), known) if path.suffix == "" else UserError(f"{name} is no .toml file")
        path = known[str(name)]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the study {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return parse(text, path.stem)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


class Kind(NamedTuple):
    """What an entry of a study file may be, in words, and whether a value is that."""

    said: str
    holds: Callable[[Any], bool]


def _is_texts(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(v, str) for v in values) and len(set(values)) == len(values)


def _is_list(value: Any) -> bool:
    """Whether a value is a list of different values."""
    return isinstance(value, list) and bool(value) and len({*map(str, value)}) == len(value)


TEXT = Kind("text", lambda v: isinstance(v, str))

NAME = Kind(
    "a name of letters, digits, spaces and . + - _",
    lambda v: isinstance(v, str) and re.fullmatch(r"\w[\w .+-]{0,80}", v) is not None,
)

TEXTS = Kind("a text or a list of different ones", _is_texts)

FIGURES = Kind("a list of figures", lambda v: v == [] or _is_texts(v))

COUNT = Kind("a whole number of at least 1", lambda v: type(v) is int and v >= 1)

SEEDS = Kind(
    "how many, at least 1, or a list of different whole numbers from 0 on",
    lambda v: COUNT.holds(v) or (_is_list(v) and all(type(n) is int and 0 <= n < 2**31 for n in v)),
)

TABLE = Kind("a table, such as { latent_dim = 16 }", lambda v: isinstance(v, Mapping))

NAMED = Kind("a table of named tables", lambda v: TABLE.holds(v) and bool(v) and all(map(TABLE.holds, v.values())))

LISTS = Kind(
    "a table of lists of different values, such as { latent_dim = [8, 16] }",
    lambda v: TABLE.holds(v) and bool(v) and all(map(_is_list, v.values())),
)

TABLES = Kind("a list of tables", lambda v: isinstance(v, list) and all(map(TABLE.holds, v)))

ROWS = Kind("a table of texts", lambda v: TABLE.holds(v) and all(map(TEXT.holds, v.values())))

ANY = Kind("anything", lambda v: v != [])

STUDY = {
    "name": NAME,
    "title": TEXT,
    "about": TEXT,
    "data": TEXT,
    "seeds": SEEDS,
    "epochs": COUNT,
    "base": TABLE,
    "readings": NAMED,
    "rows": ROWS,
    "experiments": TABLES,
    "overridden": TABLE,
}

OVERRIDDEN = {name: STUDY[name] for name in ("data", "seeds", "epochs")}

EXPERIMENT = {
    "id": NAME,
    "title": TEXT,
    "question": TEXT,
    "rows": TEXTS,
    "base": TABLE,
    "vary": LISTS,
    "variants": NAMED,
    "readings": TEXTS,
    "figures": FIGURES,
    "claims": TABLES,
}

CLAIM = {
    "id": NAME,
    "sentence": TEXT,
    "source": TEXT,
    "measure": TEXTS,
    "expect": ANY,
    "where": TABLE,
    "readings": TEXTS,
}


def _held(table: Mapping[str, Any], where: str, kinds: Mapping[str, Kind], *needed: str) -> None:
    """Refuse entries that are not known, that are not what they must be, and those that lack."""
    for name, value in table.items():
        if name not in kinds:
            raise unknown(f"entry in {where}", name, kinds)
        if not kinds[name].holds(value):
            raise UserError(f"{name} in {where} must be {kinds[name].said}, got {json.dumps(value, default=str)}")
    for name in needed:
        if name not in table:
            raise UserError(f"{where} lacks {name}")


def parse(text: str, name: str) -> Study:
    """A study from the text of its file; every spec that it asks for is checked."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not TOML: {error}") from None
    _held(table, "the study", STUDY, "data", "experiments")
    given = table.pop("overridden", {})
    _held(given, "the command", OVERRIDDEN)
    table |= given
    readings = {n: _changes(c, f"reading {n}") for n, c in table.get("readings", {"": {}}).items()}
    for reading in filter(None, readings):
        _held({"reading": reading}, "readings", {"reading": NAME})
    experiments = [_experiment(e, readings) for e in table["experiments"]]
    if not experiments:
        raise UserError("a study needs one [[experiments]] at least")
    _different([e.id for e in experiments], "experiment")
    _different([c.id for e in experiments for c in e.claims], "claim")
    rows, seeds = table.get("rows", {}), table.get("seeds", 3)
    for row in (row for e in experiments for row in e.rows if rows and row not in rows):
        raise unknown("row", row, rows)
    study = Study(
        name=table.get("name", name),
        title=table.get("title", name),
        text=text,
        data=table["data"],
        base=_changes(table.get("base", {}), "base"),
        readings=readings,
        seeds=tuple(range(1, seeds + 1)) if isinstance(seeds, int) else tuple(seeds),
        experiments=tuple(experiments),
        about=table.get("about", ""),
        rows=rows,
        epochs=table.get("epochs"),
    )
    for trial in study.trials:
        try:
            specs.check(trial.spec)
        except UserError as error:
            raise UserError(f"experiment {trial.experiment}, {trial.setting.name or 'base'}: {error}") from None
    return study


def overridden(study: Study, data: str | None, seeds: int | None, epochs: int | None) -> Study:
    """The study with other data, seeds 1 to `seeds`, or other epochs, which its own text then says as well."""
    given = {"data": data, "seeds": seeds, "epochs": epochs}
    lines = [f"{name} = {json.dumps(value)}" for name, value in given.items() if value is not None]
    if not lines:
        return study
    head, _, _ = study.text.partition("\n[overridden]\n")
    return parse(head.rstrip() + "\n\n[overridden]\n" + "\n".join(lines) + "\n", study.name)


def _experiment(table: Mapping[str, Any], readings: Mapping[str, Changes]) -> Experiment:
    where = f"experiment {table.get('id', '')}".strip()
    _held(table, where, EXPERIMENT, "id")
    chosen = _texts(table.get("readings", tuple(readings)))
    for reading in chosen:
        if reading not in readings:
            raise unknown(f"reading in {where}", reading, readings)
    experiment = Experiment(
        id=table["id"],
        title=table.get("title", table["id"]),
        question=table.get("question", ""),
        rows=_texts(table.get("rows", ())),
        base=_changes(table.get("base", {}), where),
        settings=tuple(_settings(table, where)),
        readings=chosen,
        figures=_texts(table.get("figures", ("curves",))),
    )
    _different([setting.name for setting in experiment.settings], f"{where}: setting")
    return replace(experiment, claims=tuple(_claim(c, experiment) for c in table.get("claims", ())))


def _settings(table: Mapping[str, Any], where: str) -> Iterator[Setting]:
    """The named variants of a table, or the grid of the factors that it varies, or its base alone."""
    if "vary" in table and "variants" in table:
        raise UserError(f"{where} has both vary and variants: take one of them")
    if "variants" in table:
        for name, changes in table["variants"].items():
            yield Setting(name, {"variant": name}, _changes(changes, f"{where}, variant {name}"))
        return
    factors = _changes(table.get("vary", {}), where)
    for values in itertools.product(*factors.values()):
        changes = dict(zip(factors, values, strict=True))
        texts = {factor: _text(value) for factor, value in changes.items()}
        yield Setting(", ".join(texts.values()), texts, changes)


def _claim(table: Mapping[str, Any], experiment: Experiment) -> Claim:
    where = f"claim {table.get('id', '')} of experiment {experiment.id}"
    _held(table, where, CLAIM, "id", "sentence", "measure", "expect")
    expect = tuple(parse_value("expect", Expectation, e) for e in _listed(table["expect"]))
    measure = tuple(Measure(text) for text in _texts(table["measure"]))
    for name in (n for m in measure for n in m.examinations):
        if name not in EXAMINATIONS:
            raise unknown(f"examination in {where}", name, EXAMINATIONS)
    fixed = {factor: tuple(map(_text, _listed(value))) for factor, value in table.get("where", {}).items()}
    for factor, values in fixed.items():
        if factor not in experiment.factors:
            raise unknown(f"factor in {where}", factor, experiment.factors)
        for value in values:
            if value not in (known := {s.values[factor] for s in experiment.settings}):
                raise unknown(f"{factor} in {where}", value, known)
    readings = _texts(table.get("readings", experiment.readings))
    for reading in readings:
        if reading not in experiment.readings:
            raise unknown(f"reading in {where}", reading, experiment.readings)
    claim = Claim(table["id"], table["sentence"], table.get("source", ""), measure, expect, fixed, readings)
    _compares(claim, experiment, where)
    return claim


def _compares(claim: Claim, experiment: Experiment, where: str) -> None:
    """Refuse a claim whose expectations have nothing to compare."""
    names = [s.name for s in claim.settings(experiment)]
    if not names or (len(claim.measure) > 1 and len(names) > 1):
        raise UserError(f"{where}: `where` must leave one setting beside several measures, it leaves {len(names)}")
    names = names if len(claim.measure) == 1 else [m.text for m in claim.measure]
    for e in claim.expect:
        try:
            found = e.contrasts(np.zeros((2, len(names))), names)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if not found:
            raise UserError(f"{where}: {e.name} has nothing to compare here; it needs two settings or a bound")


def _text(value: Any) -> str:
    return word(value) if hasattr(value, "__dataclass_fields__") else str(value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, _listed(value)))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _changes(table: Any, where: str) -> Changes:
    """Changes of a spec; what they change, and to what, is checked where specs are made of them."""
    for name in ("data", "seed", "parent"):
        if name in table:
            raise UserError(f"{where}: {name} is nothing that a study varies; data and seeds are said once, at its top")
    return table


def _different(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'{what} id "{name}" stands there twice')
