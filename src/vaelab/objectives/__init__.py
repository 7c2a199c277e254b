"""Objectives: how distortion and rate become a loss."""
