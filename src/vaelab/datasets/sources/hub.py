"""Data sets of the Hugging Face hub, from its local cache or the network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from vaelab.core.errors import UserError
from vaelab.datasets.decoding import suppress_warnings
from vaelab.datasets.files import error_text
from vaelab.datasets.naming import list_text, split_of_stem
from vaelab.datasets.sources.source import (
    SPLITS,
    DataSource,
    Precedence,
    RawDataset,
    Request,
    known_suffixes,
    register,
    source_not_found_error,
)
from vaelab.datasets.sources.tables import ImageTable, choose_columns, read_tables

__all__ = ["HUB_NAMES", "hub_source", "read_hub"]

HUB_NAMES = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}

HUB_TIMEOUT = 2.5  # seconds the hub has to answer, name resolution included

DATASET_ID = re.compile(r"\w[\w.-]{0,95}(/[\w.-]{1,96})?")


def _may_be_on_the_hub(request: Request) -> bool:
    if request.path is not None or not isinstance(request.data, str | Path):
        return False
    name = str(request.data)
    return bool(DATASET_ID.fullmatch(name)) and Path(name).suffix.lower() not in known_suffixes()


@register(Precedence.REMOTE, _may_be_on_the_hub, names=tuple(HUB_NAMES))
def hub_source(request: Request) -> DataSource:
    """A data set of the hub. It is fetched once and stays as it was."""
    data = str(request.data)
    name = HUB_NAMES.get(data, data)
    return DataSource(f"Hugging Face hub {name}", ["hub", name], partial(read_hub, data))


def read_hub(data: str) -> RawDataset:
    """Read a data set of the hub; where the hub does not answer, from its local cache.

    Raises:
        UserError: It is neither on the hub nor in the cache, has no training split, or cannot be loaded.
    """
    name = HUB_NAMES.get(data, data)
    loaded = _load_from_hub(data, name)
    tables: dict[str, list[ImageTable]] = {}
    unused = []
    for hub_split, part in loaded.items():
        split = split_of_stem(str(hub_split))
        if split is None:
            unused.append(str(hub_split))
            continue
        table, features = part.with_format("arrow")[:], part.features.to_dict()
        columns = choose_columns(table.schema, features, name)
        tables.setdefault(split, []).append(ImageTable(table, columns, features, name, _cache_folders()))
    if "train" not in tables:
        raise UserError(f"{name} of the Hugging Face hub has no train split (has: {list_text(loaded, 20)})")
    raw = read_tables({split: tables[split] for split in SPLITS if split in tables})
    notes = [f"splits not used: {list_text(sorted(unused), 20)}"] if unused else []
    return replace(raw, notes=(*raw.notes, *notes))


def _cache_folders() -> list[Path]:
    """Where the hub's libraries keep files that rows of a data set may name."""
    from datasets import config
    from huggingface_hub import constants

    return [Path(constants.HF_HOME), Path(constants.HF_HUB_CACHE), Path(config.HF_DATASETS_CACHE)]


def _load_from_hub(data: str, name: str) -> Mapping[Any, Any]:
    """The splits of a data set, as the hub's library gives them."""
    from huggingface_hub import constants

    is_offline = constants.HF_HUB_OFFLINE
    is_unreachable = is_offline or not _hub_responds(constants.ENDPOINT)
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        with suppress_warnings(), _hub_offline(is_unreachable):
            loaded: Any = datasets.load_dataset(name)
            return loaded
    except Exception as error:  # network, disk and the dataset's own form: no common class
        if not is_unreachable and not isinstance(error, DatasetNotFoundError):
            raise UserError(f"{name} of the Hugging Face hub cannot be loaded: {error_text(error)}") from error
        state = "is set to offline" if is_offline else "does not answer" if is_unreachable else f"has no {name}"
        where = f"the Hugging Face hub ({constants.ENDPOINT} {state}; cache {constants.HF_HOME})"
        raise source_not_found_error(data, where) from error


def _hub_responds(endpoint: str) -> bool:
    """Whether a server answers at all. In a thread, because name resolution knows no time limit."""
    from huggingface_hub.utils import get_session

    responses: list[bool] = []

    def ask() -> None:
        try:
            responses.append(get_session().head(endpoint, timeout=HUB_TIMEOUT).status_code < 500)
        except Exception:  # of the HTTP library at hand, which differs between versions: all mean silence
            responses.append(False)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT)
    return responses == [True]


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
