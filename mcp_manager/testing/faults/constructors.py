"""The faults that clients meet most, under the names that they have as JSON."""

from __future__ import annotations

from typing import Any, Literal

from mcp_manager.testing.faults.dialogues import ExpireSession, InputRequired, ListChangedStorm
from mcp_manager.testing.faults.endings import AcceptedWithoutAnswer, Point, Reset, Stall, TruncateStream
from mcp_manager.testing.faults.messages import DuplicateReply, WrongId
from mcp_manager.testing.faults.responses import GzipBomb, Status
from mcp_manager.testing.faults.servers import Exit, Flap, IgnoreSigterm, RugPull, Slow, StderrFlood

__all__ = ["Faults"]


class Faults:
    """Make faults; all times are in seconds. :mod:`mcp_manager.testing.faults` has many more."""

    @staticmethod
    def expire_session(form: Literal[404, 400, -32001, 200] = 404) -> ExpireSession:
        """Forget all sessions, and refuse the request in one of the forms that servers use."""
        return ExpireSession(form)

    @staticmethod
    def reset(after: Point = "request") -> Reset:
        """Reset the connection after the request, its execution, the response's headers, or half of the reply.

        A program closes its standard output.
        """
        return Reset(after)

    @staticmethod
    def stall(after: Point = "request", s: float | None = None) -> Stall:
        """Send nothing for ``s`` seconds from that point on, and then the rest; by default for ever."""
        return Stall(after, s)

    @staticmethod
    def truncate_stream() -> TruncateStream:
        """Execute the request, send half of the reply, and close the connection."""
        return TruncateStream()

    @staticmethod
    def accepted_without_answer() -> AcceptedWithoutAnswer:
        """Execute the request, and never reply to it."""
        return AcceptedWithoutAnswer()

    @staticmethod
    def duplicate_id() -> DuplicateReply:
        """Reply twice, the second time with another result."""
        return DuplicateReply()

    @staticmethod
    def wrong_id() -> WrongId:
        """Reply with the id of no request."""
        return WrongId()

    @staticmethod
    def status(status: int, *, retry_after: float | None = None) -> Status:
        """Answer with a status of HTTP, and ``Retry-After`` in whole seconds; the request is not executed."""
        if retry_after is not None and not (retry_after >= 0 and float(retry_after).is_integer()):
            raise ValueError(f"retry_after takes whole seconds, as Retry-After does, not {retry_after!r}")
        return Status(status, {} if retry_after is None else {"Retry-After": f"{retry_after:.0f}"})

    @staticmethod
    def gzip_bomb(size: int = 64 * 2**20) -> GzipBomb:
        """Answer with ``size`` zero bytes, compressed."""
        return GzipBomb(size)

    @staticmethod
    def slow(p50: float, p99: float) -> Slow:
        """Answer every request late from now on: half after ``p50`` seconds, one of a hundred after ``p99``."""
        return Slow(p50, p99)

    @staticmethod
    def flap(period: float) -> Flap:
        """Refuse all connections for ``period`` seconds, accept them for as long, and so on."""
        return Flap(period)

    @staticmethod
    def stderr_flood(size: int = 1_000_000) -> StderrFlood:
        """Write ``size`` bytes to standard error with every request; for programs."""
        return StderrFlood(size)

    @staticmethod
    def exit(code: int = 1, *, after: int = 0) -> Exit:
        """End after ``after`` more answers: a program exits, an HTTP server refuses connections."""
        return Exit(code, after)

    @staticmethod
    def ignore_sigterm() -> IgnoreSigterm:
        """Go on after SIGTERM and after the end of standard input; for programs, before they start."""
        return IgnoreSigterm()

    @staticmethod
    def rug_pull(tool: str, description: str) -> RugPull:
        """Change the description of a tool after clients have read it."""
        return RugPull(tool, description)

    @staticmethod
    def input_required(message: str = "Who?", schema: dict[str, Any] | None = None) -> InputRequired:
        """Ask the client for input before the tool is executed."""
        return InputRequired(message) if schema is None else InputRequired(message, schema)

    @staticmethod
    def list_changed_storm(rate: float = 1000.0, count: int = 100) -> ListChangedStorm:
        """Send ``count`` notifications that the tools have changed, ``rate`` per second, and then reply."""
        return ListChangedStorm(rate, count)
