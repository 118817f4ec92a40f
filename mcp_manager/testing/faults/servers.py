"""Faults of a server itself: each takes effect at once, and lasts until the faults are cleared."""

from __future__ import annotations

from typing import Annotated, Protocol

import msgspec

from mcp_manager.testing.faults.record import Count, FaultRecord, Size

__all__ = ["Exit", "Flap", "IgnoreSigterm", "Peer", "RugPull", "ServerFault", "Slow", "StderrFlood"]


class Peer(Protocol):
    """A server that these faults change; it raises ``ValueError`` for those that do not exist for it."""

    def slow_down(self, p50_s: float, p99_s: float) -> None:
        """Answer late."""

    def flap(self, period_s: float) -> None:
        """Refuse and accept connections in turns."""

    def describe(self, tool: str, description: str) -> None:
        """Change the description of a tool."""

    def exit_after(self, requests: int, code: int) -> None:
        """End in place of the answer to a later request."""

    def ignore_sigterm(self) -> None:
        """Go on after SIGTERM and the end of standard input."""

    def flood_stderr(self, size: int) -> None:
        """Write to standard error with every request."""


class ServerFault(FaultRecord, frozen=True):
    """A fault of a server, not of one answer."""

    def apply(self, peer: Peer) -> None:
        """Take effect."""
        raise NotImplementedError


class Slow(ServerFault, frozen=True, tag="slow"):
    """Answer every request late: half of them after ``p50`` seconds, one of a hundred after ``p99``."""

    p50: float
    p99: float

    def apply(self, peer: Peer) -> None:
        peer.slow_down(self.p50, self.p99)


class Flap(ServerFault, frozen=True, tag="flap"):
    """Refuse all connections for ``period`` seconds, accept them for as long, and so on."""

    period: float

    def apply(self, peer: Peer) -> None:
        peer.flap(self.period)


class RugPull(ServerFault, frozen=True, tag="rug_pull"):
    """Change the description of a tool after clients have read it."""

    tool: str
    description: str

    def apply(self, peer: Peer) -> None:
        peer.describe(self.tool, self.description)


class Exit(ServerFault, frozen=True, tag="exit"):
    """End after ``after`` more answers: a program exits with ``code``, an HTTP server refuses connections."""

    code: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    after: Count = 0

    def apply(self, peer: Peer) -> None:
        peer.exit_after(self.after, self.code)


class IgnoreSigterm(ServerFault, frozen=True, tag="ignore_sigterm"):
    """Go on after SIGTERM and after the end of standard input, until SIGKILL; for programs."""

    def apply(self, peer: Peer) -> None:
        peer.ignore_sigterm()


class StderrFlood(ServerFault, frozen=True, tag="stderr_flood"):
    """Write ``size`` bytes of text to standard error with every request; for programs."""

    size: Size = 1_000_000

    def apply(self, peer: Peer) -> None:
        peer.flood_stderr(self.size)
