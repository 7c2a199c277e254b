"""The examples of the README run as they are, only with fewer steps where it gives no number of them."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from sample_images import folder_of_pictures

from vaelab.cli import main
from vaelab.runs import defaults

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_commands_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(defaults, "STEPS", 20)
    folder_of_pictures(tmp_path / "photos", size=(40, 36), names=("cats", "dogs"))
    [study] = blocks("toml")
    (tmp_path / "photos.toml").write_text(study)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "vaelab"
        assert main.run_cli(words[1:]) == 0, line
    shown = {shlex.split(line)[1] for line in lines}
    assert shown == set(main.COMMANDS), "an example of each command"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})


def test_install_lines_name_what_there_is() -> None:
    """`pip install` from a clone, with extras that pyproject.toml has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = re.findall(r"^ {4}pip install (\S+)", README, re.MULTILINE)
    assert lines
    for target in lines:
        extras = re.fullmatch(r"\.(?:\[(.+)\])?", target.strip("'"))
        assert extras, f"{target}: only a clone can be installed"
        assert not extras[1] or extras[1] in project["optional-dependencies"]


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
