"""Records what callers saw, and compares it with what servers executed."""

from __future__ import annotations

import collections
import threading
from pathlib import Path
from typing import Final

# How often a call may have been executed, by how it ended for its caller.
_ALLOWED: Final = {
    "ok": (1, 1),
    "not_sent": (0, 0),
    "rejected": (0, 0),
    "refused": (0, 0),
    "unknown": (0, 1),
    "answered": (0, 1),
    "cancelled": (0, 1),
    "late": (0, 1),
}


class Accounts:
    """Write a line per call to a file, so that the records do not grow the process under test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Two threads must not write to a text file at the same time.
        self._lock = threading.Lock()
        self._file = path.open("w", encoding="ascii", buffering=1 << 16)
        self.ends: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.overdue = 0

    def note(self, call: str, end: str, error: BaseException | None = None) -> None:
        with self._lock:
            self._file.write(f"{call} {end}\n")
            self.ends[end] += 1
            if error is not None:
                self.errors[type(error).__name__] += 1

    def verdict(self, ledger: Path) -> list[str]:
        """Return what is wrong: calls that were executed too often, or not at all although they were answered."""
        self._file.close()
        executed = collections.Counter(ledger.read_text(encoding="ascii").split())
        wrong = []
        for line in self._path.read_text(encoding="ascii").splitlines():
            call, end = line.split()
            least, most = _ALLOWED[end]
            if not least <= executed.pop(call, 0) <= most:
                wrong.append(f"{call} ended as {end!r} and was not executed {least} to {most} times")
        return wrong + [f"{call} was executed but has no recorded end" for call in executed]
