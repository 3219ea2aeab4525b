"""Faults on purpose, under load: what clients saw, how long, and what the operator was told."""
