"""The registry of objectives: the union of all that the modules of this package define.

The codec, the files, the command line and the tests read it. A new objective is a class in any module here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaelab.core.codec import union_in_package
from vaelab.objectives.terms import ObjectiveBase

__all__ = ["Objective"]

if TYPE_CHECKING:
    Objective = ObjectiveBase
else:
    Objective = union_in_package("vaelab.objectives", ObjectiveBase)
