"""Numbers of a trained model: metrics, evidence, diagnostics."""
