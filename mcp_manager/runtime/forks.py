"""Detaches a forked child from the connections and programs of its parent's managers.

A fork copies every object, but no threads, and it shares open files: parent and child have the same connections, the
same pipes to programs and the same epoll instance of the loop. Anything the child does to them, its garbage collection
and its exit included, would affect the parent.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Final, Protocol

__all__ = ["HasDescriptor", "Inheritable", "keep_from_children", "tell_of_forks"]


class HasDescriptor(Protocol):
    """An open file or socket."""

    def fileno(self) -> int:
        """Return the descriptor; negative, or :class:`ValueError`, once it is closed."""


class Inheritable(Protocol):
    """An object that works only in the process that made it."""

    def _disown(self) -> None:
        """Give up what belongs to the parent; called in the child right after the fork, before it has other threads."""


_owners: Final[weakref.WeakSet[Inheritable]] = weakref.WeakSet()
_files: Final[weakref.WeakSet[HasDescriptor]] = weakref.WeakSet()


def tell_of_forks(owner: Inheritable) -> None:
    """Call ``owner._disown()`` in every forked child as long as the owner exists."""
    _owners.add(owner)


def keep_from_children(file: HasDescriptor) -> None:
    """Point a file's descriptor at the null device in every forked child.

    The peer then sees the end of the connection when this process closes it, not when the last child has ended, and
    nothing that the child's objects write, also while they are destroyed, reaches the peer or the parent's loop.
    """
    _files.add(file)


def _in_child() -> None:
    files = list(_files)
    _files.clear()
    if files:
        # It fails if the process has no descriptor left. Then the files stay open, and only _disown() protects them.
        with contextlib.suppress(OSError):
            _cut_off(files)
    for owner in list(_owners):
        owner._disown()


def _cut_off(files: list[HasDescriptor]) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            number = file.fileno()
            if number >= 0:
                # dup2() replaces it in one step. A closed number could go to an unrelated file, which its old owner
                # would then use.
                os.dup2(nowhere, number, inheritable=False)
    os.close(nowhere)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
