"""vaelab: variational autoencoders on images, with numbers one can trust and pictures one can show.

The verbs of the command line are functions here, under the same names; `load` opens a stored run. Everything is
imported when it is first used, so that `import vaelab` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaelab.api import (
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
    from vaelab.api import list_ as list  # noqa: A004
    from vaelab.core.errors import UserError
    from vaelab.runs.run import Run, load

from vaelab.core.version import __version__ as __version__

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
PUBLIC = {name: ("vaelab.api", name) for name in VERBS}
PUBLIC |= {
    "UserError": ("vaelab.core.errors", "UserError"),
    "list": ("vaelab.api", "list_"),
    "load": ("vaelab.runs.run", "load"),
    "Run": ("vaelab.runs.run", "Run"),
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
