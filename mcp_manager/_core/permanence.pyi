"""Keeps objects from being destroyed."""

__all__ = ["make_permanent"]

def make_permanent(kept: object) -> None:
    """Keep an object, and what it refers to, until the process ends, even through interpreter shutdown."""
