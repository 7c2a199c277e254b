"""Whatever is asked for, the answer is a value or one sentence: generated specs, study files and command lines.

`VAELAB_EXAMPLES=7000 python -m pytest tests/test_properties.py` tries that many of each.
"""

from __future__ import annotations

import inspect
import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaelab.cli.main import COMMANDS, run_cli
from vaelab.core.errors import UserError
from vaelab.runs.spec import (
    Spec,
    accepted_names,
    check_spec,
    run_key,
    spec_from_dict,
    spec_settings,
    spec_to_dict,
    updated,
)
from vaelab.studies.parsing import parse_study

MANY = settings(
    max_examples=int(os.environ.get("VAELAB_EXAMPLES", "150")),
    deadline=None,
    derandomize="VAELAB_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)

MEMBERS = (
    "mlp",
    "conv",
    "report-a",
    "mlp:hidden=400,200",
    "mlp:hidden=",
    "conv:widths=0",
    "gaussian",
    "gaussian:sigma=pixel",
    "gaussian:sigma=-1",
    "ce+se",
    "laplace",
    "discretised-logistic:components=0",
    "beta:kl_weight=nan",
    "beta:warmup=2",
    "capacity:capacity=25",
    "iwae:k=0,gradient=dreg",
    "dip:=,:",
    "standard-normal",
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(MEMBERS),
    st.sampled_from(("none", "inf", "-0", "1e3", "dynamic", "best", "cosine", "\x1b[31m", "\ud800")),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
SETTINGS = st.one_of(
    st.sampled_from(sorted(spec_settings())), st.sampled_from(("kl-weight", "objective.k", "seeed", ""))
)


def require_short(error: UserError) -> None:
    """A message of at most three lines."""
    assert str(error).count("\n") <= 2, error


@MANY
@given(changes=st.dictionaries(SETTINGS, VALUES, max_size=4))
def test_settings_make_a_spec_or_one_sentence(changes: dict[str, Any]) -> None:
    try:
        spec = updated(Spec(), changes)
        check_spec(spec)
    except UserError as error:
        require_short(error)
        return
    stored = json.loads(json.dumps(spec_to_dict(spec)))
    assert spec_from_dict(stored) == spec
    assert run_key(spec_from_dict(stored), "data", "float32") == run_key(spec, "data", "float32")


@MANY
@given(changes=st.dictionaries(st.sampled_from(sorted(spec_to_dict(Spec()))), VALUES, max_size=3), extra=VALUES)
def test_a_stored_spec_is_read_or_refused(changes: dict[str, Any], extra: Any) -> None:
    table = spec_to_dict(Spec()) | changes
    for stored in (table, {**table, "extra": extra}):
        try:
            check_spec(spec_from_dict(stored))
        except UserError:
            continue


TABLE = {
    "title": "Small",
    "data": "digits",
    "seeds": 2,
    "base": {"network": "mlp:hidden=16", "epochs": 2},
    "readings": {"vae": {"kl_weight": 1}, "bare": {"kl_weight": 0}},
    "experiments": [
        {
            "id": "size",
            "vary": {"latent_dim": [2, 4]},
            "figures": ["curves"],
            "claims": [{"id": "more", "sentence": "More is better.", "measure": "loss", "expect": "decreasing"}],
        }
    ],
}
PLACES = [(name,) for name in TABLE] + [
    ("experiments", 0, name) for name in ("id", "vary", "figures", "claims", "readings", "base", "variants")
]
PLACES += [("experiments", 0, "claims", 0, name) for name in ("id", "measure", "expect", "where", "sentence")]
EXPRESSIONS = st.sampled_from(
    ("loss / 0", "at(kl, 9)", "samples.sharpnes", "__import__('os')", "-(" * 40 + "kl", "kl +")
)


@MANY
@given(place=st.sampled_from(PLACES), value=st.one_of(VALUES, EXPRESSIONS))
def test_a_study_file_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    study = json.loads(json.dumps(TABLE))
    table = study
    for step in place[:-1]:
        table = table[step]
    table[place[-1]] = value
    try:
        parse_study(to_toml(study), "generated")
    except UserError as error:
        require_short(error)


def to_toml(value: Any, top: bool = True) -> str:
    """A table as TOML: inline below its first level. None and what TOML has no word for become odd text."""
    if isinstance(value, dict):
        pairs = [f"{json.dumps(str(name))} = {to_toml(inner, False)}" for name, inner in value.items()]
        return "\n".join(pairs) if top else "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(to_toml(inner, False) for inner in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    return str(value)


PARAMETERS = {name for command in COMMANDS.values() for name in inspect.signature(command.function).parameters}
FLAGS = [f"--{name.strip('_').replace('_', '-')}" for name in sorted({*PARAMETERS, *accepted_names()})]
FILES = (
    "empty",
    "file.png",
    "bad.toml",
    "/dev/null",
    "~nosuchuser",
    "x" * 5000,
    "\x1b[31m",
    "\udcff",
    "a\x00b",
    "-",
    "--",
)
WORDS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(MEMBERS),
    st.sampled_from(FILES),
    st.text(max_size=8),
    st.integers(-5, 10**19).map(str),
    st.floats().map(str),
)


@MANY
@given(verb=st.sampled_from([*sorted(COMMANDS), "trian"]), words=st.lists(WORDS, max_size=5))
def test_a_command_that_cannot_work_ends_with_a_sentence(
    verb: str, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In a folder without runs or data."""
    folder = tmp_path_factory.mktemp("folder", numbered=True)
    (folder / "empty").mkdir()
    (folder / "file.png").write_text("no picture")
    (folder / "bad.toml").write_text("x = [")
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(errors), redirect_stdout(io.StringIO()):
        patch.chdir(folder)
        patch.setenv("VAELAB_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("VAELAB_DATA", raising=False)
        status = run_cli([verb, "nothing-here", *words])
    assert status in (0, 2)
    if status == 2:
        assert 1 <= len(errors.getvalue().strip().splitlines()) <= 3
