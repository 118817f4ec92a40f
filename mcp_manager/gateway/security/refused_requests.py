"""``RefusedRequest``: what the audit log says of a request that was refused before it was a message."""

from __future__ import annotations

import time
from typing import Protocol

from mcp_manager.gateway.security import audit_lines
from mcp_manager.gateway.security.audit_lines import AuditLine

__all__ = ["Party", "RefusedRequest"]


class Party(Protocol):
    """Who is at the other end of an HTTP request."""

    @property
    def peer(self) -> object:
        """The address, as sockets name it."""

    @property
    def method(self) -> str:
        """The method of HTTP."""

    @property
    def path(self) -> str:
        """The path of the URL."""

    def header(self, name: bytes) -> bytes | None:
        """Return a header field."""


class RefusedRequest:
    """A request that was refused before it was a message.

    Parameters
    ----------
    party
        The request.
    reason
        Why, one of :data:`~mcp_manager.gateway.security.accounting.REASONS`.
    principal
        Whom the client acts for; "" if nobody knows.
    client
        The address of the client.
    """

    __slots__ = ("_at_ns", "_client", "_method", "_path", "_principal", "_reason")

    def __init__(self, party: Party, reason: str, principal: str, client: object) -> None:
        self._at_ns = time.time_ns()
        self._client = client
        self._method = party.method
        self._path = party.path
        self._reason = reason
        self._principal = principal

    def line(self) -> bytes:
        """Return its line of the audit log."""
        return audit_lines.encoded(
            AuditLine(
                time=audit_lines.rfc3339(self._at_ns),
                principal=self._principal,
                client=audit_lines.address_of(self._client),
                endpoint=self._path[: audit_lines.LONGEST],
                method=self._method,
                outcome="refused",
                reason=self._reason,
                delivery="not_sent",
            )
        )
