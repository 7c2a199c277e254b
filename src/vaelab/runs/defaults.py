"""What is trained where nothing is said of the training: settings that suit the number and kind of the pictures.

The rule was chosen on held-out pictures of three data sets, from 50 to 60,000 images of faces, objects and digits:

- About 3,000 steps. 10 steps give noise, 500 something that can be recognised, and more than 3,000 gain little.
- Batches of 32, whatever the number of pictures: as good as larger ones at equal steps, and up to three times as fast.
- Averaged weights at a constant learning rate, and those of the best epoch in validation. A few hundred pictures are
  soon learned by heart: without this the bound of new pictures gets far worse from the 600th step on.
- `mlp` starts with He's weights at the mean training image: on MNIST 18 nats better than PyTorch's after 300 steps. For
  `conv` and `report-a` nothing better than their own start was found (docs/choices.md).
- Random shifts, and mirrored pictures where they are in colour, if there are few: this gains more than all the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from vaelab.datasets.images import Dataset
    from vaelab.runs.spec import Spec

__all__ = ["given_fields", "suited_settings"]

STEPS = 3000

BATCH_SIZE = 32

EMA = 0.99

STARTS: dict[str, dict[str, Any]] = {"mlp": {"init": "he", "output_bias": "mean"}}  # by the name of the network

FEW_IMAGES = 500  # up to here pictures are shifted by a quarter of their side

SOME_IMAGES = 2000  # up to here by an eighth of it, and mirrored where they are in colour

MIN_IMAGES_TO_SELECT = 30  # below, a tenth of them says little about which weights are best


def suited_settings(spec: Spec, dataset: Dataset, given: Collection[str]) -> dict[str, Any]:
    """The settings of training that suit a data set.

    Args:
        spec: What was asked for.
        dataset: The images, loaded with the settings of the spec.
        given: The fields of the spec that the user set, and "network.init" or "network.output_bias" where the network
            was given with these. They stay as they are.

    Returns:
        Values for the other fields, by name.
    """
    images = dataset.splits["train"]
    channels, *sides = images.shape
    total = len(images) + len(dataset.splits.get("validation", ()))
    settings: dict[str, Any] = {"batch_size": min(BATCH_SIZE, len(images)), "ema": EMA}
    if spec.minutes is None:
        settings["steps"] = STEPS
    if "validation" in dataset.splits and total >= MIN_IMAGES_TO_SELECT:
        settings["keep"] = "best"
    if total <= SOME_IMAGES:
        settings["shift"] = min(sides) // (4 if total <= FEW_IMAGES else 8)
        settings["flips"] = channels == 3
    suited = {name: value for name, value in settings.items() if name not in given}
    start = STARTS.get(spec.network.name, {})
    start = {name: value for name, value in start.items() if f"network.{name}" not in given}
    return suited | {"network": replace(spec.network, **start)}


def given_fields(attribute: str, value: Any) -> set[str]:
    """The fields that the value of a setting gives: its own, and those of a member that is written with them.

    Example:
        >>> sorted(given_fields("network", "conv:init=torch"))
        ['network', 'network.init']
    """
    if isinstance(value, Mapping):
        inner = set(value)
    elif hasattr(value, "__dataclass_fields__"):
        inner = set(value.__dataclass_fields__)
    else:
        inner = {piece.partition("=")[0].strip().replace("-", "_") for piece in re.split("[:,]", str(value))}
    return {attribute} | {f"{attribute}.{name}" for name in inner if name in ("init", "output_bias")}
