"""Figures: numbers and tensors become pictures; nothing is computed here."""
