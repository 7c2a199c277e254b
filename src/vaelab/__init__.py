"""vaelab: variational autoencoders on images, with numbers one can trust and pictures one can show.

The verbs of the command line are functions here, under the same names; `load` opens a stored run. The public names are
listed in `__init__.pyi`. Each is imported when it is first used, so that `import vaelab` does not wait for torch.
"""

import os
import sys
from typing import Any

import lazy_loader

from vaelab.core.version import __version__ as __version__

if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:  # torch reads these once
    # Threads that wait actively stall on a busy machine. Threads that sleep at once halve the speed of an idle one,
    # where most waits are shorter than falling asleep: they wait actively for some microseconds, and then sleep.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

_lazy_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "list":  # not in __all__, where it would hide the builtin from `import *`
        from vaelab.api import list_

        return list_
    return _lazy_attribute(name)
