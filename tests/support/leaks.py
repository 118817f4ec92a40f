"""Checks that a test leaves nothing behind: those of the package, and the package's own objects."""

from __future__ import annotations

import gc
from collections import Counter

from support import kept

from mcp_manager.testing import leaks

__all__ = ["KINDS", "Snapshot"]

KINDS = (*leaks.KINDS, "objects")
"""The kinds of leaks that are checked; the marker ``allow_leaks`` names exceptions."""


class Snapshot(leaks.Snapshot):
    """The threads, child processes, descriptors and objects of this process, to compare with later ones.

    Without ``objects``, :meth:`new_objects` has nothing to compare with, and the snapshot takes less time.
    """

    def __init__(self, *, objects: bool = True) -> None:
        super().__init__()
        self._objects = kept.objects() if objects else Counter[str]()

    def new_objects(self) -> list[str]:
        """Describe objects of calls, sessions and servers made since that remain in memory after a collection."""
        if not kept.objects() - self._objects:
            return []
        gc.collect()
        left = kept.objects() - self._objects
        return [f"{count} more of {name} can be reached: {kept.holders_of(name)}" for name, count in left.items()]
