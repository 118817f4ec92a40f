"""A scripted server that admits requests by their credentials, and records which came with which session."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

from support.era_server import EraServer, Response
from support.scripted import Request

__all__ = ["GuardedServer"]


class GuardedServer(EraServer):
    """Refuse every request whose credential is not among :attr:`valid`, with 401 and a challenge.

    A session belongs to the credential that it was made with, until :meth:`succeed` says that another took its place.

    Parameters
    ----------
    valid
        The values of ``header`` to admit.
    header
        The header field with the credential, in lower case.
    speaks
        As for :class:`EraServer`; the handshake revision by default.
    """

    def __init__(
        self, valid: Collection[str], *, header: str = "authorization", speaks: Collection[str] = ("2025-11-25",)
    ) -> None:
        super().__init__(*speaks)
        self.valid = set(valid)
        self.header = header
        self.seen: defaultdict[str, set[str]] = defaultdict(set)
        # Answers of tools/call tell who called.
        self.owner: dict[str, str] = {}

    def admitted(self) -> list[str]:
        """Return the credentials of all requests, in the order of their arrival, "" for none."""
        return [each.headers.get(self.header, "") for each in self.requests]

    def answer(self, request: Request) -> Response:
        """Refuse what has no valid credential, and note with which credentials each session is used."""
        given = request.headers.get(self.header, "")
        session_id = request.headers.get("mcp-session-id")
        if given not in self.valid:
            return 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}, None
        if session_id is not None:
            self.seen[session_id].add(given)
        status, headers, reply = super().answer(request)
        if "Mcp-Session-Id" in headers and request.method == "initialize":
            self.seen[headers["Mcp-Session-Id"]].add(given)
        if reply is not None and request.method == "tools/call" and "result" in reply:
            result: dict[str, Any] = dict(reply["result"])
            result["_meta"] = {"caller": given}
            reply = {**reply, "result": result}
        return status, headers, reply
