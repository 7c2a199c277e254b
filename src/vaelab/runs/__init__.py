"""Runs: the spec of a run and its folder on disk."""
