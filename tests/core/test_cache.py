"""The cache: what it takes, how it is emptied, and its bound."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from command_lines import say

import vaelab
from vaelab.core.cache import cache_items, clear_cache, shrink_cache
from vaelab.core.errors import UserError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three entries of 1 MiB, the first used three days ago, with files that are not ours."""
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache"
    names = ["a" * 32, f"programs/{'b' * 24}", "c" * 32]
    for days, name in zip((3, 2, 0), names, strict=True):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_bytes(bytes(2**20))
        os.utime(folder / name, (time.time() - days * 86400,) * 2)
    (folder / f".{'d' * 32}.part").mkdir()
    (folder / "mine").mkdir()
    (folder / "mine" / "letter.txt").write_text("dear")
    (folder / ("e" * 32)).symlink_to(folder / "mine")
    return folder


def test_the_cache_is_told_and_emptied_of_what_is_ours(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = say(capsys, "cache")
    assert status == 0
    assert "3.0 MiB of at most 20,480.0 MiB" in out
    assert "2 data sets: 2.0 MiB" in out
    assert "1 compiled program: 1.0 MiB" in out
    status, out, _ = say(capsys, "cache", "--clear", "--json")
    assert (json.loads(out)["freed"], json.loads(out)["items"]) == (3 * 2**20, [])
    assert sorted(path.name for path in cache.rglob("*")) == ["e" * 32, "letter.txt", "mine", "programs"]
    assert clear_cache() == 0


def test_what_was_used_longest_ago_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shrink_cache() == 0
    monkeypatch.setenv("VAELAB_CACHE_LIMIT", str(2.5 / 1024))
    assert shrink_cache() == 2**20
    assert [item.path.name[0] for item in cache_items()] == ["b", "c"]
    monkeypatch.setenv("VAELAB_CACHE_LIMIT", str(0.1 / 1024))
    shrink_cache()
    assert [item.path.name[0] for item in cache_items()] == ["c"], "what was used in the last day stays"


def test_the_bound_is_a_number(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("VAELAB_CACHE_LIMIT", text)
        with pytest.raises(UserError, match=f'positive number of GiB, got "{text}"'):
            vaelab.cache()


def test_data_that_are_used_stay_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path))
    vaelab.data("digits")
    [item] = cache_items()
    os.utime(item.path, (0, 0))
    vaelab.data("digits")
    assert time.time() - cache_items()[0].last_used < 3600
