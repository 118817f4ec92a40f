"""Objects that are never destroyed."""

__all__ = ["make_permanent"]

def make_permanent(kept: object) -> None:
    """Keep an object, and what it refers to, until the process ends; the interpreter's own end destroys it neither."""
