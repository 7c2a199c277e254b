"""Each example of CONTRIBUTING.md is one file: added to a copy of the package, it works on the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Example(NamedTuple):
    """A change of CONTRIBUTING.md and the commands that use it. `change` is empty for a new file."""

    change: str
    file: str
    content: str
    commands: list[str]


def read_examples() -> dict[str, Example]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    examples = {}
    for section in text.split("\n### ")[1:]:
        title, _, body = section.partition("\n")
        body = body.partition("\n## ")[0]
        kind, change, file = re.fullmatch(r"An? (.+?): (at the end of |in |)`src/vaelab/(.+)`", title).groups()
        [content] = re.findall(r"```(?:python|diff)\n(.*?)```", body, re.DOTALL)
        [commands] = re.findall(r"```sh\n(.*?)```", body, re.DOTALL)
        examples[kind] = Example(change.strip(), file, content, commands.splitlines())
    return examples


EXAMPLES = read_examples()

# Prints the key that a run has in the package as it is, without the change of an example.
RUN_KEY = """
import json, sys, tempfile
import vaelab
settings = json.loads(sys.argv[1])
print(vaelab.train(**settings, figures=False, out=tempfile.mkdtemp()).key)
"""


class Outcome(NamedTuple):
    """What the commands of an example left behind, in `folder`, and printed."""

    folder: Path
    package: Path
    stdout: list[str]
    stderr: list[str]


def change_file(file: Path, example: Example) -> None:
    """Make the change of an example, which is that of one file."""
    if not example.change:
        assert file.parent.is_dir(), "a new file in a package that exists"
        assert not file.exists(), "a new file"
        text = example.content
    elif example.change == "in":
        text = apply_diff(file.read_text(encoding="utf-8"), example.content)
    else:
        text = f"{file.read_text(encoding='utf-8')}\n\n{example.content}"
    file.write_text(text, encoding="utf-8")


def apply_diff(text: str, diff: str) -> str:
    """Apply the hunks of a diff, whose lines of context must be in the text once."""
    for hunk in diff.split("@@\n")[1:]:
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        after = "".join(line[1:] for line in lines if line[0] != "-")
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def carry_out(kind: str, folder: Path) -> Outcome:
    """Add the file of an example to a copy of the package, and run its commands with that copy."""
    example = EXAMPLES[kind]
    package = folder / "copy/vaelab"
    shutil.copytree(ROOT / "src/vaelab", package, ignore=shutil.ignore_patterns("__pycache__"))
    change_file(package / example.file, example)
    environment = os.environ | {"PYTHONPATH": str(folder / "copy"), "OMP_NUM_THREADS": "1"}
    outcome = Outcome(folder, package, [], [])
    for line in example.commands:
        words = shlex.split(line, comments=True)
        assert words[0] == "vaelab"
        command = [sys.executable, "-m", "vaelab", *words[1:]]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        outcome.stdout.append(done.stdout)
        outcome.stderr.append(done.stderr)
    return outcome


def read_run(folder: Path, name: str) -> dict:
    [file] = folder.glob(f"*/{name}")
    return json.loads(file.read_text(encoding="utf-8"))


def test_every_promised_kind_has_an_example() -> None:
    assert set(EXAMPLES) >= {"loss", "prior", "metric", "data source", "figure", "setting"}


def test_a_loss(tmp_path: Path) -> None:
    outcome = carry_out("loss", tmp_path)
    assert "no likelihood" in outcome.stderr[0]
    assert read_run(tmp_path / "runs/norm", "spec.json")["objective"] == {"name": "norm", "weight": 0.5}
    assert "negative_elbo" not in read_run(tmp_path / "runs/norm", "metrics.json")["test"]["metrics"]


def test_a_prior(tmp_path: Path) -> None:
    carry_out("prior", tmp_path)
    assert read_run(tmp_path / "runs/prior", "spec.json")["prior"] == {"name": "laplace", "scale": 0.7}
    assert (tmp_path / "samples.png").exists()


def test_a_metric(tmp_path: Path) -> None:
    outcome = carry_out("metric", tmp_path)
    metrics = json.loads(outcome.stdout[1])["metrics"]
    assert 0 < metrics["mae"]["value"] < 1
    assert metrics["mae"]["stderr"] > 0
    assert "mae" in read_run(tmp_path / "runs/metric", "metrics.json")["test"]["metrics"]


def test_a_data_source(tmp_path: Path) -> None:
    outcome = carry_out("data source", tmp_path)
    assert json.loads(outcome.stdout[0])["categories"] == ["small", "large"]
    assert read_run(tmp_path / "runs/source", "spec.json")["data"] == "squares"


def test_a_figure(tmp_path: Path) -> None:
    carry_out("figure", tmp_path)
    [picture] = (tmp_path / "runs/figure").glob("*/figures/code_norms.png")
    assert picture.stat().st_size > 1000


def test_a_setting(tmp_path: Path) -> None:
    outcome = carry_out("setting", tmp_path)
    assert read_run(tmp_path / "runs/setting", "spec.json")["init_scale"] == 0.5
    [run] = (tmp_path / "runs/without").glob("*/spec.json")
    spec = {"data": "digits", "network": "mlp:hidden=16", "epochs": 1}
    unchanged = subprocess.run(
        [sys.executable, "-c", RUN_KEY, json.dumps(spec)], capture_output=True, text=True, check=True
    )
    assert unchanged.stdout.strip() == run.parent.name, "the default keeps the key of a run"
    assert "--init-scale" in outcome.stdout[2]
