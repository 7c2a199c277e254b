"""Training: fit, the loop, and the steps."""
