"""Training steps: eager, stacked and compiled."""
