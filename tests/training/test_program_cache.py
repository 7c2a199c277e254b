"""Compiled programs are machine code: only what this user made, unchanged, is loaded; all else is made anew."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from vaelab.core.files import content_digest, write_json
from vaelab.training.steps import program_cache
from vaelab.training.steps.program_cache import Program, load_or_compile


class FakeRunner:
    """In place of torch's, which would run the file."""

    loaded: list[bytes]

    def __init__(self, file: str, _: int) -> None:
        self.loaded.append(Path(file).read_bytes())


class Compiler:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, file: Path) -> None:
        self.calls += 1
        file.write_bytes(b"machine code")
        record = {"terms": ["loss"], "digest": content_digest(file.read_bytes())}
        write_json(file.with_name("program.json"), record)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path))
    FakeRunner.loaded = []
    monkeypatch.setattr(torch._C._aoti, "AOTIModelContainerRunnerCpu", FakeRunner)  # pyright: ignore
    monkeypatch.setattr(program_cache, "find_compiler", lambda: os.__file__)
    return tmp_path / "programs"


def test_a_program_is_made_once_in_a_private_folder(programs: Path) -> None:
    compiler = Compiler()
    for _ in range(3):
        assert isinstance(load_or_compile("key", compiler), Program)
    assert compiler.calls == 1
    assert stat.S_IMODE(programs.stat().st_mode) == 0o700
    assert set(FakeRunner.loaded) == {b"machine code"}


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "record", "no record", "no digest"])
def test_a_changed_program_is_made_anew(damage: str, programs: Path) -> None:
    compiler = Compiler()
    load_or_compile("key", compiler)
    file, record = programs / "key" / "step.so", programs / "key" / "program.json"
    match damage:
        case "flipped":
            file.write_bytes(b"machine codf")
        case "cut":
            file.write_bytes(b"mach")
        case "emptied":
            file.write_bytes(b"")
        case "record":
            record.write_text("{")
        case "no record":
            record.unlink()
        case "no digest":
            record.write_text('{"terms": ["loss"]}')
    assert load_or_compile("key", compiler) is not None
    assert compiler.calls == 2
    assert set(FakeRunner.loaded) == {b"machine code"}, "the changed one was never loaded"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_what_others_could_have_written_is_deleted(mode: int, programs: Path) -> None:
    compiler = Compiler()
    load_or_compile("key", compiler)
    programs.chmod(mode)
    load_or_compile("key", compiler)
    assert compiler.calls == 2
    assert stat.S_IMODE(programs.stat().st_mode) == 0o700


def test_what_others_could_only_read_is_kept(programs: Path) -> None:
    compiler = Compiler()
    load_or_compile("key", compiler)
    programs.chmod(0o755)
    load_or_compile("key", compiler)
    assert compiler.calls == 1
    assert stat.S_IMODE(programs.stat().st_mode) == 0o700


def test_the_folder_of_another_user_is_not_used(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = Compiler()
    load_or_compile("key", compiler)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    FakeRunner.loaded.clear()
    assert load_or_compile("key", compiler) is None
    assert not FakeRunner.loaded
    assert "belongs to another user" in capsys.readouterr().err
