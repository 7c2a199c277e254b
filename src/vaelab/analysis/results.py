"""Results of analyses: numbers by name, and the arrays that figures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

__all__ = ["AnalysisResult"]


@dataclass(frozen=True)
class AnalysisResult:
    """What an analysis found.

    Attributes:
        numbers: Numbers by name, for tables and claims; NaN where one is not defined for the data.
        arrays: Arrays by name, for figures.

    Example:
        >>> both = AnalysisResult({"a": 1.0}).merged(AnalysisResult({"b": 2.0}))
        >>> both.numbers
        {'a': 1.0, 'b': 2.0}
    """

    numbers: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def merged(self, other: AnalysisResult) -> AnalysisResult:
        """Both results in one; where both have a name, that of the other counts."""
        return AnalysisResult({**self.numbers, **other.numbers}, {**self.arrays, **other.arrays})
