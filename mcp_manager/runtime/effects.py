"""Marks the coroutine methods whose effect is there before they first wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ["has_effect_at_once", "takes_effect_at_once"]

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "_takes_effect_at_once"


def takes_effect_at_once(method: F) -> F:
    """Mark a coroutine method that checks its arguments and makes its change before it first waits.

    What follows only waits for the consequences. ``PyMcpManager`` relies on this where its plain methods are called on
    the manager's own loop, which they must not block.
    """
    setattr(method, _MARK, True)
    return method


def has_effect_at_once(method: object) -> bool:
    """Tell whether a method is marked with :func:`takes_effect_at_once`."""
    return getattr(method, _MARK, False) is True
