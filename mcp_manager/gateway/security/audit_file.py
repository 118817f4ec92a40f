"""``AuditFile``: a file that several processes append lines to, and that may be renamed at any time."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from mcp_manager.errors import ConfigError

if sys.platform != "win32":
    import fcntl

__all__ = ["AuditFile"]

_log = logging.getLogger(__name__)

_MODE: Final = 0o600
_STDERR: Final = "stderr"
_STDERR_DESCRIPTOR: Final = 2
_LOCK_TRIES: Final = 20
_LOCK_S: Final = 0.01
_RETRY_S: Final = 1.0
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)


class AuditFile:
    """Append lines to a file; all methods but :meth:`open` are called on one thread.

    Each process appends whole lines with one ``write``, while it holds a lock. A process that was killed in the middle
    may leave a part of a line behind: whoever writes next ends it first.

    Parameters
    ----------
    path
        The path, or ``stderr``.

    Attributes
    ----------
    written, lost
        How many lines were written, and how many could not be.
    is_stale
        Whether the file is to be opened anew.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._is_regular = False
        # What follows a line that was written in part.
        self._is_torn = False
        self._is_failing = False
        self._next_try = 0.0
        self.is_stale: bool = False
        self.written: int = 0
        self.lost: int = 0

    def open(self) -> None:
        """Open the file.

        Raises
        ------
        ConfigError
            It cannot be opened.
        """
        try:
            self._open()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(
                f"serve.audit.path: {os.path.abspath(self._path)!r} cannot be written: {reason}",
                hint="make its directory, and let the user of the gateway write there; or leave serve.audit out",
            ) from None

    def close(self) -> None:
        """Close the file. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor not in (-1, _STDERR_DESCRIPTOR):
            os.close(descriptor)

    @contextlib.contextmanager
    def appending(self) -> Iterator[None]:
        """Hold the file for :meth:`write`: opened anew if it was renamed, and locked."""
        self._renew()
        is_locked = self._lock()
        try:
            if self._is_regular:
                self._look_at_end()
            yield
        finally:
            if is_locked and self._descriptor >= 0:
                self._unlock()

    def write(self, lines: Sequence[bytes]) -> None:
        """Append lines; what cannot be written is counted as lost."""
        if self._descriptor < 0:
            self.lost += len(lines)
            return
        text = b"\n".join(lines) + b"\n"
        if self._is_torn:
            text = b"\n" + text
        done = 0
        try:
            while done < len(text):
                # A disk that takes only a part has a reason, which the next write tells.
                done += os.write(self._descriptor, text[done:])
        except OSError as error:
            self._is_torn = self._is_torn or done > 0
            self.lost += len(lines)
            self._failed(error)
            return
        self._is_torn = False
        self.written += len(lines)
        if self._is_failing:
            self._is_failing = False
            _log.warning("the gateway can write the audit log again", extra={"event": "audit_recovered"})

    def _open(self) -> None:
        if self._path == _STDERR:
            self._descriptor = _STDERR_DESCRIPTOR
            return
        self._descriptor = os.open(self._path, _FLAGS, _MODE)
        self._is_regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def _renew(self) -> None:
        """Open the file anew if another one is there by now, or none."""
        if self._descriptor == _STDERR_DESCRIPTOR:
            return
        if self._descriptor >= 0 and not self.is_stale:
            try:
                there, own = os.stat(self._path), os.fstat(self._descriptor)
                if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
                    return
            except FileNotFoundError:
                pass
            except OSError as error:
                self._failed(error)
                return
        if self._descriptor < 0 and time.monotonic() < self._next_try:
            return
        self.is_stale = False
        self.close()
        try:
            self._open()
        except OSError as error:
            self._next_try = time.monotonic() + _RETRY_S
            self._failed(error)

    def _lock(self) -> bool:
        if sys.platform == "win32" or not self._is_regular or self._descriptor < 0:
            return False
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_S)
            except OSError:
                return False
            else:
                return True
        # Whoever holds it so long is no sibling. Appended lines stay whole without it.
        return False

    def _unlock(self) -> None:
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _look_at_end(self) -> None:
        """Find out whether the file ends in the middle of a line."""
        try:
            size = os.fstat(self._descriptor).st_size
            self._is_torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        except (AttributeError, OSError):
            self._is_torn = False

    def _failed(self, error: OSError) -> None:
        if not self._is_failing:
            self._is_failing = True
            _log.error(
                "audit lines are lost: %r cannot be written: %s",
                self._path,
                errno.errorcode.get(error.errno or 0, type(error).__name__),
                extra={"event": "audit_failed"},
            )
