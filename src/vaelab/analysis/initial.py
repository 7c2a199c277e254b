"""Where a training starts: the terms of the loss before the first step.

The history of a run begins after its first epoch, in which most of the loss may already have fallen.
"""

from __future__ import annotations

from vaelab.analysis.baseline import Baseline
from vaelab.analysis.results import AnalysisResult
from vaelab.evaluation.metrics import validate
from vaelab.runs.run import Run
from vaelab.training.state import initial_model

__all__ = ["INITIAL_NUMBERS", "analyse_initial"]

INITIAL_NUMBERS = ("loss", "kl", "cross_entropy", "squared_error", "negative_elbo")


def analyse_initial(run: Run, baseline: Baseline) -> AnalysisResult:
    """The terms that a row of history holds, of the initial weights and the images that the history is measured on.

    Args:
        run: The run. Its own weights are not read.
        baseline: What the runs of a study are compared with; it holds the data.

    Returns:
        The terms by name, in nats per image; none for a run that continues from another run's weights.
    """
    if run.spec.parent is not None:
        return AnalysisResult()
    splits = baseline.dataset.splits
    model = initial_model(run.spec, splits["train"])
    terms = validate(model, run.spec.objective, splits.get("validation", splits["train"]))
    return AnalysisResult({name: terms[name] for name in INITIAL_NUMBERS if name in terms})
