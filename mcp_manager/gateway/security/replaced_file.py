"""Files that commands write and that the gateway reads, perhaps as another user: replaced at once, or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from typing import Final

__all__ = ["replace_file"]

_OF_GROUP: Final = stat.S_IRWXG


def replace_file(path: str, text: bytes, *, mode: int) -> None:
    """Replace the content of a file. It keeps its owner, group and mode as far as this user may give them.

    Parameters
    ----------
    path
        The file; a link stays one, and what it points to is replaced.
    text
        The content.
    mode
        The mode of a file that is new.

    Raises
    ------
    OSError
        It cannot be written; what was there before is still there.
    """
    path = os.path.realpath(path)
    handle, made = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(path))
    try:
        with open(handle, "wb") as file:
            file.write(text)
            os.fchmod(handle, _mode_like(path, handle, mode))
            file.flush()
            os.fsync(handle)
        os.replace(made, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(made)
        raise


def _mode_like(path: str, made: int, mode: int) -> int:
    """Give a file the owner and group of the one that it replaces, and return the mode for it."""
    try:
        before = os.stat(path)
    except FileNotFoundError:
        return mode
    kept = stat.S_IMODE(before.st_mode)
    with suppress(PermissionError):
        # Only root may give a file away.
        os.fchown(made, before.st_uid, -1)
    try:
        os.fchown(made, -1, before.st_gid)
    except PermissionError:
        # What its group may do is not for another group.
        kept &= ~_OF_GROUP
    return kept
