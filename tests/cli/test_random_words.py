"""Random settings and random command lines: every one is carried out or answered in a sentence."""

from __future__ import annotations

import inspect
import json
import math
import random
from pathlib import Path

import pytest
from command_lines import say

from vaelab.cli.main import COMMANDS
from vaelab.core.errors import UserError
from vaelab.runs.spec import Spec, accepted_names, check_spec, run_key, spec_from_dict, spec_to_dict, to_argv, updated

SPECS, COMMAND_LINES = 4000, 150

VALUES = (
    *(None, True, False, 0, 1, -1, 2.5, math.inf, -math.inf, math.nan, 10**400, 2**32, (1, 2), [], [[1]], {}),
    *("", "none", " 5 ", "1e5", "1_000", "9" * 5000, "\x00", "\ud800", "x:y=z", "best", "cosine", "dynamic", "ce+se"),
    *("mlp", "mlp:hidden=", "mlp:hidden=1,2,x", "beta:kl_weight=nan", "beta:,", "conv:widths=", "iwae:k=-1", "dip"),
    *({"name": "mlp"}, {"name": "mlp", "hidden": {"a": 1}}, {"name": None}, {"name": "conv", "widths": [None]}),
)


def test_a_random_spec_is_read_or_refused() -> None:
    chance = random.Random(0)
    names = [
        *accepted_names(),
        "objective.kl_weight",
        "network.hidden",
        "loss.sigma",
        "objective.",
        "seed.x",
        ".",
        "",
        "x",
    ]
    read = 0
    for _ in range(SPECS):
        changes = {chance.choice(names): chance.choice(VALUES) for _ in range(chance.randint(1, 3))}
        try:
            spec = updated(Spec(), changes)
            check_spec(spec)
        except UserError:
            continue
        read += 1
        assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec
        assert len(run_key(spec, "f", "float32")) == 16
        assert to_argv(spec)[0] == spec.data
    assert read > SPECS // 50


WORDS = (
    *("0", "-1", "1", "nan", "inf", "1e400", "9" * 30, "abc", "", "none", "1,2", "true", "x.png", "-", "--"),
    *(
        "empty",
        "file.png",
        "nowhere",
        "bad.toml",
        "/dev/null",
        "~nosuchuser",
        "x" * 5000,
        "\x1b[31m",
        "\udcff",
        "a\x00b",
    ),
    *("mlp:hidden=-1", "ce", "iwae:k=0"),
)


def test_a_random_command_line_is_carried_out_or_answered_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_text("no picture")
    (tmp_path / "bad.toml").write_text("x = [")
    chance = random.Random(0)
    for _ in range(COMMAND_LINES):
        verb = chance.choice([name for name in COMMANDS if name != "cache"])
        flags = [name.strip("_") for name in inspect.signature(COMMANDS[verb].function).parameters]
        flags += list(accepted_names()) if verb == "train" else []
        words = [verb, *chance.choices(WORDS, k=chance.randint(0, 2))]
        for _ in range(chance.randint(0, 3)):
            words.append("--" + chance.choice(flags).replace("_", "-"))
            words += chance.choices(WORDS, k=chance.randint(0, 1))
        status, out, err = say(capsys, *words)
        assert status in (0, 2), words
        if status == 2:
            assert out == "", words
            assert 1 <= len(err.strip().splitlines()) <= 3, (words, err)
