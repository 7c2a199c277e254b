"""The catalogue of metrics: names, units and kinds, each stated once."""

from __future__ import annotations

__all__ = ["CURVE_NAMES", "METRIC_NAMES", "NATS_UNIT", "SUMMED_UNIT", "TERM_LABELS"]

NATS_UNIT = "nats per image"

SUMMED_UNIT = "summed over pixel values"

TERM_LABELS = {
    "loss": ("Loss", "as trained, per image"),
    "cross_entropy": ("Cross entropy", NATS_UNIT),
    "kl": ("KL", NATS_UNIT),
    "squared_error": ("Squared error", SUMMED_UNIT),
    "negative_elbo": ("Negative ELBO", NATS_UNIT),
}

CURVE_NAMES = ("loss", "cross_entropy", "squared_error", "kl", "negative_elbo")

MEAN_DECODED_METRICS = ("cross_entropy_of_mean", "squared_error_of_mean", "negative_elbo_of_mean")

RATE_PARTS = ("mutual_information", "marginal_kl", "total_correlation")

METRIC_NAMES = (
    *CURVE_NAMES,
    *MEAN_DECODED_METRICS,
    *RATE_PARTS,
    "bits_per_dim",
    "mse",
    "psnr",
    "ssim",
    "sharpness",
    "active_units",
)
