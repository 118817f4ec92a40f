"""A scripted server that admits requests by their credentials, and records which came with which session."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any, Final

from support.era_server import EraServer, Response

from mcp_manager import Caller, McpManager
from mcp_manager.testing.scripted import Request

__all__ = ["ALICE", "BOB", "OWN", "TOKENS", "GuardedServer", "is_apart", "who"]

OWN: Final[dict[str, Any]] = {"auth": {"type": "bearer", "token": "own-token"}}
"""Settings of a server whose own credential is one of :data:`TOKENS`."""
TOKENS: Final = {"Bearer own-token", "Bearer alice", "Bearer bob"}
ALICE, BOB = Caller("alice", auth="alice"), Caller("bob", auth="bob")


class GuardedServer(EraServer):
    """Refuse every request whose credential is not among :attr:`valid`, with 401 and a challenge.

    ``seen`` has the credentials that each session was used with; the results of ``tools/call`` say who called, in the
    member ``caller`` of ``_meta``.

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


async def who(manager: McpManager, caller: Caller | None, **options: Any) -> str:
    """Call a tool and return the credential that the server saw."""
    calls: Any = manager if caller is None else manager.for_caller(caller)
    result = await calls.call_tool("a", "echo", {"text": "x"}, **options)
    seen: str = result.meta["caller"]
    return seen


def is_apart(server: GuardedServer) -> bool:
    """Whether no session was used with two credentials."""
    return all(len(credentials) == 1 for credentials in server.seen.values())
