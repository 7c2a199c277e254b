"""Foundations that know nothing of models: errors, files, console, random numbers, jobs, devices."""
