"""Studies: grids of runs, hypotheses and verdicts."""
