"""The lines of the audit log for what administrators do."""

from __future__ import annotations

import time
from typing import Final

from aiohttp import web

from mcp_manager.gateway.http.web_requests import WebRequest
from mcp_manager.gateway.security import audit_lines
from mcp_manager.gateway.security.accounting import Accounting
from mcp_manager.gateway.security.audit_lines import AuditLine

__all__ = ["AdminEntry", "deny", "is_act"]

_ENDPOINT: Final = "admin"
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class AdminEntry:
    """One act of an administrator; see :class:`~mcp_manager.gateway.security.audit.Entry`.

    Parameters
    ----------
    request
        The request, when it comes.
    principal
        Whoever sends it.
    """

    __slots__ = ("_at_ns", "_began_ns", "_client", "_duration_ns", "_method", "_principal", "_server", "_status")

    def __init__(self, request: web.Request, principal: str) -> None:
        self._at_ns = time.time_ns()
        self._began_ns = time.monotonic_ns()
        self._client = WebRequest(request, b"").peer
        # The query has no secrets, but may be of any length.
        self._method = f"{request.method} {request.path_qs}"[: audit_lines.LONGEST]
        self._principal = principal
        self._server = ""
        self._status = 0
        self._duration_ns = 0

    def ended(self, server_id: str, status: int) -> None:
        """Take note of the server that it is about, and of the status of the response; 0 if the client has gone."""
        self._server = server_id[: audit_lines.LONGEST]
        self._status = status
        self._duration_ns = time.monotonic_ns() - self._began_ns

    def line(self) -> bytes:
        """Return the line."""
        outcome = "cancelled" if not self._status else "ok" if self._status < 400 else "error"
        return audit_lines.encoded(
            AuditLine(
                time=audit_lines.rfc3339(self._at_ns),
                principal=self._principal,
                client=audit_lines.address_of(self._client),
                endpoint=_ENDPOINT,
                method=_printable(self._method),
                server=_printable(self._server),
                outcome=outcome,
                code=self._status or None,
                duration_ms=self._duration_ns // 1000 / 1000,
            )
        )


def is_act(request: web.Request) -> bool:
    """Tell whether a request may change something."""
    return request.method not in _READING


def deny(accounting: Accounting, request: web.Request, reason: str, principal: str) -> None:
    """Take note that a request was refused before anything was done for it."""
    accounting.deny(WebRequest(request, b""), reason, principal)


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
