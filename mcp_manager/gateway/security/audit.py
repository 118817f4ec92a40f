"""``AuditLog``: the file with one line for each request that a server gets or that is refused."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Final, Protocol

from mcp_manager.config.audit import AuditConfig
from mcp_manager.gateway.security.audit_file import AuditFile
from mcp_manager.runtime.threads import in_thread

__all__ = ["AuditLog", "Entry"]

_log = logging.getLogger(__name__)

# Lines are written together: a thread that woke for each of them would cost more than the line.
_GATHERED_S: Final = 0.2
# Not so long if this share of the queue is taken.
_SHARE_OF_MANY: Final = 8
# The thread lets go of the interpreter after so many, of which one that is still to be made counts as many.
_AT_ONCE: Final = 1_024
_WORK_OF_ONE: Final = 32
_END_S: Final = 5.0
_SHARE_OF_DENIALS: Final = 4


class Entry(Protocol):
    """What one line says."""

    def line(self) -> bytes:
        """Return the line, without its end; called once, on the thread of the log. Empty: there is none."""


class AuditLog:
    """Write lines to a file, on a thread of its own.

    Nothing that fails here fails a request: a line that cannot be written is dropped, counted, and told in the log once.

    Parameters
    ----------
    config
        The file, and how many lines may wait; ``path`` is given.

    Attributes
    ----------
    written, dropped
        How many lines were written, and how many were not.
    """

    def __init__(self, config: AuditConfig) -> None:
        assert config.path is not None
        self.arguments: bool = config.arguments
        self._most = config.max_queue
        self._many = max(config.max_queue // _SHARE_OF_MANY, 1)
        self._file = AuditFile(config.path)
        self._queue: deque[Entry | bytes] = deque()
        # Set while the thread has something to do, or is to end.
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._end = threading.Event()
        self._drained = threading.Condition()
        self._is_asleep = True
        self._thread: threading.Thread | None = None
        self._overflowed = 0
        self._is_full = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def written(self) -> int:
        """How many lines were written."""
        return self._file.written

    @property
    def dropped(self) -> int:
        """How many lines were not: the queue was full, or the file could not be written."""
        return self._file.lost + self._overflowed

    def start(self) -> None:
        """Open the file, and begin to write.

        Raises
        ------
        ConfigError
            The file cannot be opened.
        """
        if self._thread is None:
            self._file.open()
            self._thread = threading.Thread(target=self._run, name="mcp-manager audit log", daemon=True)
            self._thread.start()

    def write(self, entry: Entry | bytes) -> None:
        """Write a line, or what makes one, soon; it is dropped if too many wait."""
        self._append(entry, self._most)

    def write_denial(self, entry: Entry) -> None:
        """Write the line of a request that was refused before anybody knew who sent it.

        It is dropped as soon as a quarter of the queue is taken: a flood of such requests leaves room for the others.
        """
        self._append(entry, max(self._most // _SHARE_OF_DENIALS, 1))

    def _append(self, entry: Entry | bytes, most: int) -> None:
        queue = self._queue
        if len(queue) >= most:
            self._overflow(most)
            return
        queue.append(entry)
        if self._is_asleep:
            self._is_asleep = False
            self._wake.set()
        elif len(queue) == self._many:
            self._hurry.set()

    def reopen(self) -> None:
        """Open the file anew before the next line, as after it was renamed."""
        self._file.is_stale = True

    async def flush(self) -> None:
        """Wait until everything is written that was to be written before."""
        if self._thread is not None:
            await in_thread(self._flush, "mcp-manager audit flush")

    async def aclose(self) -> None:
        """Write what is left, and end; it takes five seconds at most. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._end.set()
        self._hurry.set()
        self._wake.set()
        await in_thread(lambda: thread.join(_END_S), "mcp-manager audit end")
        if thread.is_alive():
            _log.error("the audit log could not be finished within %g s", _END_S, extra={"event": "audit_unfinished"})
        elif self._queue:
            self._overflowed += len(self._queue)
            self._queue.clear()

    def _overflow(self, most: int) -> None:
        self._overflowed += 1
        if not self._is_full:
            self._is_full = True
            _log.error(
                "audit lines are dropped: %d lines are waiting already; the disk is too slow, or serve.audit.max_queue too low",
                most,
                extra={"event": "audit_dropped"},
            )

    # On the thread, or while it waits

    def _flush(self) -> None:
        with self._drained:
            self._hurry.set()
            self._wake.set()
            while not self._is_asleep or self._queue:
                if not self._drained.wait(_GATHERED_S):
                    self._hurry.set()
                    self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._hurry.wait(_GATHERED_S)
            self._hurry.clear()
            self._write_all()
            self._is_asleep = True
            if self._queue:
                # It came after the last look.
                self._is_asleep = False
                self._wake.set()
                continue
            with self._drained:
                self._drained.notify_all()
            if self._end.is_set():
                self._file.close()
                return

    def _write_all(self) -> None:
        queue = self._queue
        if not queue:
            return
        with self._file.appending():
            while queue:
                lines = []
                work = 0
                while queue and work < _AT_ONCE:
                    entry = queue.popleft()
                    work += 1
                    if isinstance(entry, bytes):
                        lines.append(entry)
                        continue
                    work += _WORK_OF_ONE
                    try:
                        line = entry.line()
                    except Exception:
                        _log.exception("an audit line could not be made", extra={"event": "audit_failed"})
                        self._file.lost += 1
                        continue
                    if line:
                        lines.append(line)
                    # Whatever it refers to is let go here.
                    del entry
                if lines:
                    self._file.write(lines)
        self._is_full = False
