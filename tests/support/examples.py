"""How many examples a property is tried with: a number of its own, in proportion to the profile."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

__all__ = ["examples"]

_DEFAULT: Final = 100


def examples(number: int) -> int:
    """Return how many examples to try where all are ``number``.

    A number that a test gives itself replaces that of the profile. So it has to follow the profile: ``brief`` wants a
    fifth of them, since all are tried on the first interpreter.
    """
    profile = settings.default
    assert profile is not None, "hypothesis has a profile from its import on"
    return max(1, number * profile.max_examples // _DEFAULT)
