"""Data sets of the Hugging Face hub, from its local cache or the network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

from vaelab.core.errors import UserError, unknown_name_error
from vaelab.datasets.decoding import error_text, suppress_warnings
from vaelab.datasets.sources.raw import SPLIT_FOLDERS, SPLITS, RawDataset
from vaelab.datasets.sources.tables import table_source

__all__ = ["HUB_NAMES", "hub_source", "source_not_found_error"]

HUB_NAMES = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}

HUB_TIMEOUT = 2.5  # seconds the hub has to answer, name resolution included


def source_not_found_error(data: str, hub: str) -> UserError:
    """The error for data that are nowhere: what was looked for, where, and how to give it."""
    root = os.environ.get("VAELAB_DATA")
    entries = list(Path(root).expanduser().iterdir()) if root and Path(root).expanduser().is_dir() else []
    known = {"digits", *HUB_NAMES, *(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")}
    plain = data in known or "/" in data or not data
    what = f'data "{data}" not found' if plain else str(unknown_name_error("data", data, known))
    places = [f"the path {Path(data).absolute()}", f"$VAELAB_DATA ({root or 'unset'})", *([hub] if hub else [])]
    remedy = 'give a folder of images or of train.parquet, a .npz or .npy file, or "digits"'
    return UserError(f"{what}\nlooked for: {', '.join(places)}\n{remedy}; $VAELAB_DATA is the folder of named sources")


def hub_source(data: str) -> RawDataset:
    """A dataset of the Hugging Face hub; where the hub does not answer, of its local cache or an error at once."""
    from huggingface_hub import constants

    name, offline = HUB_NAMES.get(data, data), constants.HF_HUB_OFFLINE
    silent = offline or not _hub_responds(constants.ENDPOINT)
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        with suppress_warnings(), _hub_offline(silent):
            loaded: Any = datasets.load_dataset(name)
    except Exception as error:  # network, disk and the dataset's own form: no common class
        if not silent and not isinstance(error, DatasetNotFoundError):
            raise UserError(f"{name} of the Hugging Face hub cannot be loaded: {error_text(error)}") from error
        state = "is set to offline" if offline else "does not answer" if silent else f"has no {name}"
        where = f"the Hugging Face hub ({constants.ENDPOINT} {state}; cache {constants.HF_HOME})"
        raise source_not_found_error(data, where) from error
    parts = {SPLIT_FOLDERS.get(str(split), str(split)): part for split, part in loaded.items()}
    if "train" not in parts:
        raise UserError(f"{name} of the Hugging Face hub has no train split (has: {', '.join(parts)})")
    tables = {split: parts[split].with_format("arrow")[:] for split in SPLITS if split in parts}
    raw = table_source(tables, parts["train"].features.to_dict(), name)
    unused = sorted(set(parts) - set(SPLITS))
    return replace(raw, notes=[f"splits not used: {', '.join(unused)}"] if unused else [])


def _hub_responds(endpoint: str) -> bool:
    """Whether a server answers at all. In a thread, because name resolution knows no time limit."""
    from huggingface_hub.utils import get_session

    heard: list[bool] = []

    def ask() -> None:
        try:
            heard.append(get_session().head(endpoint, timeout=HUB_TIMEOUT).status_code < 500)
        except Exception:  # of the HTTP library at hand, which differs between versions: all mean silence
            heard.append(False)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT)
    return heard == [True]


@contextmanager
def _hub_offline(enabled: bool) -> Iterator[None]:
    """Let the hub's libraries look into their cache only: they would retry for half a minute or far longer."""
    from datasets import config
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    if enabled:
        constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before
