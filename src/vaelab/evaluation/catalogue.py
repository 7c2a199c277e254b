"""The catalogue of metrics: names, units and kinds, each stated once."""

from __future__ import annotations

__all__ = ["CURVES", "METRICS", "NATS", "SUMMED", "TERMS"]

NATS = "nats per image"

SUMMED = "summed over pixel values"

TERMS = {
    "loss": ("Loss", "as trained, per image"),
    "cross_entropy": ("Cross entropy", NATS),
    "kl": ("KL", NATS),
    "squared_error": ("Squared error", SUMMED),
    "negative_elbo": ("Negative ELBO", NATS),
}

CURVES = ("loss", "cross_entropy", "squared_error", "kl", "negative_elbo")

BOUNDS = ("cross_entropy_of_mean", "squared_error_of_mean", "negative_elbo_of_mean")

PARTS = ("mutual_information", "marginal_kl", "total_correlation")

METRICS = (*CURVES, *BOUNDS, *PARTS, "bits_per_dim", "mse", "psnr", "ssim", "sharpness", "active_units")
