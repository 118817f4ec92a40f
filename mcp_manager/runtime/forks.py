"""What a manager's process and its forked copies share, and how a copy lets go of it.

A fork copies every object, but the threads that work with them stay behind, and open files are not copied: a connection,
the pipe to a program and the loop's list of what it waits for are the same ones in both processes. Whatever the copy
did with them, its garbage collection and its exit included, it would do to the parent's.
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
        """Return its number; negative, or a ``ValueError``, once it is closed."""


class Inheritable(Protocol):
    """What works in the process that made it alone."""

    def _disown(self) -> None:
        """Give up what is the parent's; called in the child, first of all, when no other thread is there."""


_owners: Final[weakref.WeakSet[Inheritable]] = weakref.WeakSet()
_files: Final[weakref.WeakSet[HasDescriptor]] = weakref.WeakSet()


def tell_of_forks(owner: Inheritable) -> None:
    """Have ``owner._disown()`` called in every forked child, for as long as the owner is there."""
    _owners.add(owner)


def keep_from_children(file: HasDescriptor) -> None:
    """Have a file's descriptor lead nowhere in every forked child.

    The peer then learns of its end when this process closes it, and not only when the last child is gone; and nothing
    that the child's objects write to it, or ask of it when they are destroyed, reaches the peer or the parent's loop.
    """
    _files.add(file)


def _in_child() -> None:
    files = list(_files)
    _files.clear()
    if files:
        # Without a descriptor to spare they stay open: then it is their owners alone who leave them in peace.
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
                # In one step: a closed number could be given to a file of somebody else, whom the owner then disturbs.
                os.dup2(nowhere, number, inheritable=False)
    os.close(nowhere)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
