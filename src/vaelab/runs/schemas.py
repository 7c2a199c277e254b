"""The shape of the JSON files in a run's folder.

`origin.json` may have further fields, so that a later version can add some; what is read of it is checked.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from vaelab.core.schema import OPEN

__all__ = ["HistoryRow", "ListedSpec", "Origin", "StateMetadata", "StoredMetrics"]


class DataOrigin(TypedDict):
    """The data that a run was trained on."""

    source: str
    location: str
    fingerprint: str
    shape: list[int]
    categories: list[str]
    images: dict[str, int]
    value_ranges: NotRequired[dict[str, list[float]]]


class StoredPlan(TypedDict):
    """How a run is computed on its machine."""

    device: str
    precision: str
    threads: int
    channels_last: bool
    steps: NotRequired[int | None]
    ranks: NotRequired[int]
    stacked: NotRequired[bool]
    compiled: NotRequired[bool]
    segments: NotRequired[list[list[float]] | None]
    record_every: NotRequired[int]


class RunOrigin(TypedDict):
    """origin.json: where a run comes from. `digests` are those of the run's files, and of this one without them."""

    data: Annotated[DataOrigin, OPEN]
    plan: StoredPlan
    versions: dict[str, Any]
    key: NotRequired[str]
    digests: NotRequired[dict[str, str]]
    stamps: NotRequired[dict[str, list[int]]]


class Named(TypedDict):
    """A network or a loss."""

    name: str


class SpecTable(TypedDict):
    """What a list shows of spec.json; `spec_from_dict` reads all of it."""

    data: str
    network: Annotated[Named, OPEN]
    latent_dim: int
    loss: Annotated[Named, OPEN]


class Metric(TypedDict):
    """A number with its standard error."""

    value: float
    stderr: float | None
    note: NotRequired[str]
    n: NotRequired[int]


class SplitMetrics(TypedDict):
    """The metrics of one split."""

    run: str
    data: str
    split: str
    n: int
    metrics: dict[str, Annotated[Metric, OPEN]]
    kl_per_dimension: list[float]


class HistoryRow(TypedDict):
    """A line of history.jsonl: the terms of the loss by split after an epoch."""

    epoch: int
    step: int
    seconds: float
    train: dict[str, float]
    validation: dict[str, float]


class HistoryMark(TypedDict):
    """How much of history.jsonl was there when a state was stored."""

    bytes: int
    digest: str


class TrainingRecord(TypedDict):
    """What the files of a run held when its state was stored."""

    history: NotRequired[HistoryMark]
    snapshots: NotRequired[dict[str, str]]


class StateMetadata(TypedDict):
    """The metadata of state.safetensors; `best_loss` is infinite before the first epoch."""

    step: int
    seconds: float
    best_loss: Any
    files: NotRequired[TrainingRecord]


ListedSpec = Annotated[SpecTable, OPEN]

Origin = Annotated[RunOrigin, OPEN]

StoredMetrics = dict[str, Annotated[SplitMetrics, OPEN]]
