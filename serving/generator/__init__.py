"""Continuous batching over any decoder: sequences join and leave between two steps."""

from serving.generator.engine import SlotGenerator

__all__ = ["SlotGenerator"]
