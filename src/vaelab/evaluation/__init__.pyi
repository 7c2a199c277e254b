from .diagnostics import Diagnosis as Diagnosis, diagnose as diagnose
from .evidence import LogEvidence as LogEvidence, log_evidence as log_evidence
from .metrics import compute_metrics as compute_metrics, elbo_terms as elbo_terms, metrics_record as metrics_record
