from .diagnostics import Diagnosis as Diagnosis, diagnose as diagnose
from .evidence import LogEvidence as LogEvidence, log_evidence as log_evidence
from .metrics import compute_metrics as compute_metrics, elbo_terms as elbo_terms, evaluate_model as evaluate_model
from .catalogue import (
    MetricInfo as MetricInfo,
    metric_info as metric_info,
    posterior_metric as posterior_metric,
    reconstruction_metric as reconstruction_metric,
)
from .results import Evaluation as Evaluation, Metric as Metric
