"""What all faults that are data have in common."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from mcp_manager.testing.scripted import Connection, Request, Unplayable

__all__ = ["JSON", "Coding", "Count", "FaultRecord", "Rate", "Seconds", "Size", "StatusCode", "needed", "reply_to"]

JSON: Final = {"Content-Type": "application/json"}

# What the members of faults may be, whether they are given in Python or in JSON.
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Rate: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**30)]
StatusCode: TypeAlias = Annotated[int, msgspec.Meta(ge=100, le=999)]
Coding: TypeAlias = Annotated[str, msgspec.Meta(pattern="^(?i:gzip|x-gzip|deflate)$")]


class FaultRecord(msgspec.Struct, frozen=True, tag_field="fault", forbid_unknown_fields=True):
    """A fault as data: it can be compared, printed, and sent to a server as JSON."""

    async def play(self, connection: Connection, request: Request | None) -> None:
        """Do this instead of answering; ``request`` is ``None`` on a new connection, before anything is read."""
        raise Unplayable(f"{type(self).__name__} is no fault of HTTP")


def needed(request: Request | None) -> Request:
    """Return a request; raises :class:`Unplayable` if nothing was read yet."""
    if request is None:
        raise Unplayable("this fault needs a request")
    return request


def reply_to(connection: Connection, request: Request | None) -> dict[str, Any]:
    """Execute a request, and return the proper reply; raises :class:`Unplayable` if the proper answer is a refusal."""
    status, _, reply = connection.server.answer(needed(request))
    if status != 200 or reply is None:
        raise Unplayable(f"this fault needs a request with a proper reply, and this one has HTTP status {status}")
    return reply
