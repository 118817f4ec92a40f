"""The count of the rules that one server breaks, and a log of them that is limited in rate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from mcp_manager.config.redaction import Secrets, printable
from mcp_manager.errors import ProtocolError
from mcp_manager.runtime.current_trace import trace_ids
from mcp_manager.runtime.read_budget import FLOOD

__all__ = ["PeerFaults"]

_log = logging.getLogger(__name__)

_QUIET_NS: Final = 60 * 10**9
# A flood is counted once a second for as long as it lasts.
_FLOODING_NS: Final = 10 * 10**9
_NO_IDS: Final[Mapping[str, str]] = {}
# A network may cause this as well, and it costs no call anything.
_ORDINARY: Final = frozenset({"a connection that ended under a request"})


class PeerFaults:
    """Count the faults of one server.

    Parameters
    ----------
    server_id
        Names the server in the log.
    clock
        Monotonic nanoseconds. Each kind of fault is logged at most once a minute.
    secrets
        Masks credentials where a fault quotes the server.

    Attributes
    ----------
    counts
        The number of faults, by kind.
    on_flood
        Called, if set, whenever a flood is counted.
    """

    __slots__ = ("_clock", "_flooding_until", "_quiet_until", "_server_id", "counts", "on_flood", "secrets")

    def __init__(self, server_id: str, clock: Callable[[], int], secrets: Secrets | None = None) -> None:
        self._server_id = server_id
        self._clock = clock
        self.secrets: Secrets | None = secrets
        self._quiet_until: dict[str, int] = {}
        self._flooding_until = 0
        self.counts: dict[str, int] = {}
        self.on_flood: Callable[[], None] | None = None

    @property
    def is_flooding(self) -> bool:
        """Whether a flood of the server was counted within the last ten seconds."""
        return self._clock() < self._flooding_until

    def count(self, kind: str, detail: str = "", ids: Mapping[str, str] = _NO_IDS) -> None:
        """Count a fault.

        Parameters
        ----------
        kind
            One of a few fixed phrases.
        detail
            More about this fault, for the log; may quote the server.
        ids
            The ids of the trace that it belongs to, for the log.
        """
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
            extra = {"event": "fault", "server_id": self._server_id, "fault": kind, "count": count, **ids}
            _log.log(level, "server %r: %s%s (%d so far)", self._server_id, kind, said, count, extra=extra)

    def count_error(self, error: ProtocolError) -> None:
        """Count an invalid answer; a refusal (delivery ``rejected``) breaks no rule and is not counted."""
        if error.delivery != "rejected":
            self.count("an answer that breaks the protocol", error.message, trace_ids())
