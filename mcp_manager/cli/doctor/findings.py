"""What the examination of a fleet found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Severity"]

Severity = Literal["error", "warning", "note"]
"""``error``: something does not work. ``warning``: it works, but is likely to cause trouble. ``note``: good to know."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Parameters
    ----------
    severity
        How bad it is.
    server_id
        The id of the server, ``None`` for the fleet as a whole.
    seen
        What was seen, in one line.
    advice
        What to do, in one line.
    """

    severity: Severity
    server_id: str | None
    seen: str
    advice: str
