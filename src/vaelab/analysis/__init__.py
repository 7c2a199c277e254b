"""What a model has learned: representations, samples, interpolations."""
