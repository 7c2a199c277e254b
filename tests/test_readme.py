"""The examples of the README run as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sample_images import folder_of_pictures

from vaelab.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_commands_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_pictures(tmp_path / "photos", size=(40, 36), names=("cats", "dogs"))
    [study] = blocks("toml")
    (tmp_path / "photos.toml").write_text(study)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "vaelab"
        assert main.run_cli(words[1:]) == 0, line
    shown = {shlex.split(line)[1] for line in lines}
    assert shown == set(main.COMMANDS), "one example a verb"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})


def test_the_loss_of_contributing_works_when_it_is_pasted(tmp_path: Path) -> None:
    """In a copy of the package, into the one file that it names."""
    root = Path(__file__).parents[1]
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    package = Path(shutil.copytree(root / "src" / "vaelab", tmp_path / "vaelab"))
    (package / "objectives/norm.py").write_text(block)
    words = ["train", "digits", "--objective", "norm:weight=0.5", "--loss", "se", "--epochs", "1", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "vaelab", *words, "--json", "--out", str(tmp_path / "runs")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no likelihood" in done.stderr
    [spec] = tmp_path.glob("runs/*/spec.json")
    assert json.loads(spec.read_text())["objective"] == {"name": "norm", "weight": 0.5}
    [metrics] = tmp_path.glob("runs/*/metrics.json")
    assert "negative_elbo" not in json.loads(metrics.read_text())["test"]["metrics"]


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert all((Path(__file__).parents[1] / link).exists() for link in links)
