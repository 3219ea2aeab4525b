"""Core turns: replicas of a node share its cores by agreement instead of fighting for them."""

from serving.cores.joining import join
from serving.cores.unshared import UnsharedCores

__all__ = ["UnsharedCores", "join"]
