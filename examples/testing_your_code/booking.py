"""Book seats with the tools of an MCP server: the code that is tested here."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any, Final

from mcp_manager import CallError, McpManager, McpManagerError, PyMcpManager, RpcError, ToolError

SETTINGS: Final[dict[str, Any]] = {
    # To cancel a booking twice does no harm, so the manager may repeat it whatever happened.
    "retry": {"attempts": 2, "tools": {"cancel_booking": "safe"}},
}
"""How the server is deployed, besides its address."""

_LONGEST_PAUSE_S: Final = 600.0


class NotBookedError(Exception):
    """The seat is not booked."""


class UncertainBookingError(Exception):
    """Nobody knows whether the seat is booked: a person, or a job that runs later, cancels ``booking_id``."""

    def __init__(self, booking_id: str) -> None:
        super().__init__(f"The booking {booking_id} may exist")
        self.booking_id = booking_id


@dataclass(frozen=True)
class Confirmation:
    """What the server returns."""

    code: str


@dataclass(frozen=True, kw_only=True)
class Booking:
    """A booked seat."""

    id: str
    seat: int
    code: str


class Desk:
    """Book seats.

    Parameters
    ----------
    manager
        The fleet.
    server_id
        The server whose tools ``book_seat`` and ``cancel_booking`` are called.
    attempts
        How often a booking that was not executed is tried. The manager's own retries, which bridge a second, are
        part of each attempt.
    pause_s
        Seconds before the second attempt, unless the server says when to come again; they double each time.
    timeout_s
        Seconds for each call.
    """

    def __init__(
        self,
        manager: McpManager,
        server_id: str = "travel",
        *,
        attempts: int = 3,
        pause_s: float = 1.0,
        timeout_s: float = 5.0,
    ) -> None:
        self._manager = manager
        self._server_id = server_id
        self._attempts = attempts
        self._pause_s = pause_s
        self._timeout_s = timeout_s

    async def book(self, seat: int, passenger: str) -> Booking:
        """Book a seat once: a call that may have been executed is not repeated, but undone.

        Raises
        ------
        NotBookedError
            The server refused, or could not be reached, or what it may have done was undone.
        UncertainBookingError
            What it may have done could not be undone.
        """
        # One id for all attempts: by it, the server knows that they are the same booking.
        booking_id = str(uuid.uuid4())
        pause_s = self._pause_s
        for attempts_left in reversed(range(self._attempts)):
            try:
                return await self._book(booking_id, seat, passenger)
            except (ToolError, RpcError) as error:
                raise NotBookedError(f"The server refused: {error}") from error
            except CallError as error:
                if error.delivery not in ("not_sent", "rejected"):
                    await self._undo(booking_id)
                    raise NotBookedError("The call failed, and what it may have done is undone") from error
                if not error.retryable or not attempts_left:
                    raise NotBookedError("The server cannot be reached, or is too busy") from error
                wait_s = pause_s if error.retry_after_s is None else error.retry_after_s
            except asyncio.CancelledError:
                await self._undo(booking_id)
                raise
            await asyncio.sleep(min(wait_s, _LONGEST_PAUSE_S))
            pause_s *= 2
        raise ValueError("attempts must be at least 1")

    async def _book(self, booking_id: str, seat: int, passenger: str) -> Booking:
        arguments = {"booking_id": booking_id, "seat": seat, "passenger": passenger}
        result = await self._manager.call_tool(
            self._server_id, "book_seat", arguments, into=Confirmation, timeout=self._timeout_s
        )
        return Booking(id=booking_id, seat=seat, code=result.data.code)

    async def _undo(self, booking_id: str) -> None:
        try:
            result = await self._manager.call_tool(
                self._server_id, "cancel_booking", {"booking_id": booking_id}, timeout=self._timeout_s
            )
            result.raise_for_error()
        except McpManagerError as error:
            # Also if the manager was stopped, or the server undeployed, in the meantime.
            raise UncertainBookingError(booking_id) from error


def cancel(manager: PyMcpManager, booking_id: str, server_id: str = "travel") -> None:
    """Cancel a booking, from a thread: for the job that looks after uncertain bookings."""
    manager.call_tool(server_id, "cancel_booking", {"booking_id": booking_id}).raise_for_error()
