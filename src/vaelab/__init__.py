"""vaelab: variational autoencoders on images, with numbers one can trust and pictures one can show.

The verbs of the command line are functions here, under the same names; `load` opens a stored run. Everything is
imported when it is first used, so that `import vaelab` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaelab.errors import UserError
    from vaelab.store import Run, load
    from vaelab.verbs import (
        data,
        doctor,
        embed,
        evaluate,
        interpolate,
        model,
        reconstruct,
        report,
        sample,
        study,
        train,
    )
    from vaelab.verbs import list_ as list  # noqa: A004

__version__ = "0.1.0"

VERBS = (
    "data",
    "doctor",
    "embed",
    "evaluate",
    "interpolate",
    "model",
    "reconstruct",
    "report",
    "sample",
    "study",
    "train",
)
PUBLIC = {name: ("vaelab.verbs", name) for name in VERBS}
PUBLIC |= {
    "UserError": ("vaelab.errors", "UserError"),
    "list": ("vaelab.verbs", "list_"),
    "load": ("vaelab.store", "load"),
    "Run": ("vaelab.store", "Run"),
}

__all__ = [
    "Run",
    "UserError",
    "data",
    "doctor",
    "embed",
    "evaluate",
    "interpolate",
    "list",
    "load",
    "model",
    "reconstruct",
    "report",
    "sample",
    "study",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module vaelab has no attribute {name}")
    module, attribute = PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:  # type: ignore[valid-type]
    return sorted([*__all__, "__version__"])
