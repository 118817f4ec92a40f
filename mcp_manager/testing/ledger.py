"""What a faulty server has executed, whatever its clients were told."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["Ledger", "LedgerEntry"]


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One effect of a tool.

    Parameters
    ----------
    tool
        The tool's name.
    arguments
        The arguments it was called with.
    at
        When it was executed, in seconds since the epoch.
    request_id
        The JSON-RPC id of the request.
    pid
        The process that executed it; ``None`` for a server of HTTP.
    """

    tool: str
    arguments: dict[str, Any]
    at: float
    request_id: str | int | float | None = None
    pid: int | None = None


class Ledger:
    """The effects of tools in the order of their execution; it may be read on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[LedgerEntry] = []

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def __repr__(self) -> str:
        return f"<Ledger of {_described(self.entries)}>"

    @property
    def entries(self) -> list[LedgerEntry]:
        """All entries so far."""
        with self._lock:
            return list(self._entries)

    def of(self, tool: str, arguments: Mapping[str, Any] | None = None) -> list[LedgerEntry]:
        """Return the entries of a tool; with ``arguments``, those with exactly these."""
        return [
            each
            for each in self.entries
            if each.tool == tool and (arguments is None or each.arguments == dict(arguments))
        ]

    def record(
        self, tool: str, arguments: dict[str, Any], request_id: str | float | None = None, pid: int | None = None
    ) -> None:
        """Add an entry."""
        entry = LedgerEntry(tool=tool, arguments=arguments, at=time.time(), request_id=request_id, pid=pid)
        with self._lock:
            self._entries.append(entry)

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._entries.clear()

    def assert_executed_once(self, tool: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Assert that a tool was executed exactly once; with ``arguments``, once with exactly these.

        Raises
        ------
        AssertionError
            If it was not executed, or more than once. The message lists the ledger.
        """
        times = len(self.of(tool, arguments))
        if times != 1:
            raise AssertionError(self._message(tool, arguments, times, "once"))

    def assert_executed_at_most_once(self, tool: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Assert that a tool was not executed twice, which is what holds for a call whose outcome is unknown."""
        times = len(self.of(tool, arguments))
        if times > 1:
            raise AssertionError(self._message(tool, arguments, times, "at most once"))

    def assert_not_executed(self, tool: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Assert that a tool was not executed; with ``arguments``, not with exactly these."""
        times = len(self.of(tool, arguments))
        if times:
            raise AssertionError(self._message(tool, arguments, times, "never"))

    def _message(self, tool: str, arguments: Mapping[str, Any] | None, times: int, wanted: str) -> str:
        call = tool if arguments is None else f"{tool}({dict(arguments)!r})"
        return f"{call} was executed {times} times, not {wanted}; the ledger has {_described(self.entries)}"


def _described(entries: list[LedgerEntry]) -> str:
    if not entries:
        return "no entries"
    shown = ", ".join(f"{each.tool}({each.arguments!r})" for each in entries[:20])
    return f"{len(entries)} entries: {shown}" + (", …" if len(entries) > 20 else "")
