"""What a server sends that it should not: counted, and logged now and then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from mcp_manager.config.redaction import Secrets, printable
from mcp_manager.errors import ProtocolError
from mcp_manager.runtime.read_budget import FLOOD

__all__ = ["PeerFaults"]

_log = logging.getLogger(__name__)

_QUIET_NS: Final = 60 * 10**9
# A flood is counted once a second for as long as it lasts.
_FLOODING_NS: Final = 10 * 10**9
# What networks do as well, and what cost nobody anything.
_ORDINARY: Final = frozenset({"a connection that ended under a request"})


class PeerFaults:
    """Count the faults of one server.

    Parameters
    ----------
    server_id
        Names the server in the log.
    clock
        Monotonic nanoseconds. A kind of fault is logged at most once a minute.
    secrets
        Masks what the server was trusted with wherever a fault quotes it.

    ``on_flood`` is called, if there is one, whenever the server is found to flood.
    """

    __slots__ = ("_clock", "_flooding_until", "_quiet_until", "_server_id", "counts", "on_flood", "secrets")

    def __init__(self, server_id: str, clock: Callable[[], int], secrets: Secrets | None = None) -> None:
        self._server_id = server_id
        self._clock = clock
        self.secrets = secrets
        self._quiet_until: dict[str, int] = {}
        self._flooding_until = 0
        self.counts: dict[str, int] = {}
        self.on_flood: Callable[[], None] | None = None

    @property
    def is_flooding(self) -> bool:
        """Whether reading from it has had to pause within the last ten seconds."""
        return self._clock() < self._flooding_until

    def count(self, kind: str, detail: str = "") -> None:
        """Count a fault; ``kind`` is one of a few fixed phrases, ``detail`` may quote the server."""
        count = self.counts[kind] = self.counts.get(kind, 0) + 1
        now_ns = self._clock()
        if kind == FLOOD:
            self._flooding_until = now_ns + _FLOODING_NS
            if self.on_flood is not None:
                self.on_flood()
        if now_ns >= self._quiet_until.get(kind, 0):
            self._quiet_until[kind] = now_ns + _QUIET_NS
            detail = printable(detail if self.secrets is None else self.secrets.masked_so_far(detail))
            level = logging.INFO if kind in _ORDINARY else logging.WARNING
            said = f": {detail}" if detail else ""
            _log.log(level, "server %r: %s%s (%d so far)", self._server_id, kind, said, count)

    def count_error(self, error: ProtocolError) -> None:
        """Count an answer that failed its call; one that refuses it breaks no rule."""
        if error.delivery != "rejected":
            self.count("an answer that breaks the protocol", error.message)
