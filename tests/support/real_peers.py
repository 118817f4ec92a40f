"""The real servers of the test matrix: how to start them, the names of their tools, and what they cannot do."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from support.node import NodeHttpServer, node_command
from support.processes import StdioCommand, fastmcp_http, fastmcp_stdio, sdk_http, sdk_stdio

LeftOut = Mapping[str | tuple[str, str], str]
"""Why a case is left out, by case, or by case and revision."""

__all__ = ["ANSWERS", "CASES", "HANDSHAKE", "PEERS", "ROOT", "STATELESS", "Call", "Peer", "Running"]

CASES: Final = ("list", "call", "progress", "cancel", "sampling", "elicitation", "roots", "expiry", "restart")
"""The tests of every server, over every transport and in every era that it has."""

HANDSHAKE: Final = "2025-11-25"
STATELESS: Final = "2026-07-28"

# An existing directory, which the filesystem server requires.
ROOT: Final = Path(tempfile.gettempdir()).resolve()
ANSWERS: Final[Mapping[str, dict[str, Any]]] = {
    "sampling/createMessage": {
        "role": "assistant",
        "content": {"type": "text", "text": "a model's words"},
        "model": "model",
    },
    "elicitation/create": {"action": "accept", "content": {"name": "Ada", "value": "Ada"}},
    "roots/list": {"roots": [{"uri": ROOT.as_uri(), "name": "root"}]},
}
"""The client's answers to requests of servers."""


class Restartable(Protocol):
    """A server that the test starts, not the manager."""

    def restart(self) -> None: ...


@dataclass(frozen=True)
class Running:
    """A server to deploy: its configuration, and its process unless the manager starts it."""

    config: dict[str, Any]
    process: Restartable | None = None


@dataclass(frozen=True)
class Call:
    """A tool call, and what the text of its result must contain."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    expected: str = ""


@dataclass(frozen=True)
class Peer:
    """One server over one transport.

    Parameters
    ----------
    start
        ``start(directory)`` starts it, or returns the configuration with which the manager does.
    transport
        The name of its transport.
    calls
        The tool call of each case.
    revisions
        The protocol revisions to test.
    left_out
        Why a case is left out, by case, or by case and revision.
    ledger
        Whether its tool ``ledger`` reports that a call was cancelled.
    needs_node
        Whether it needs Node.
    """

    name: str
    start: Callable[[Path], AbstractContextManager[Running]]
    transport: str
    calls: Mapping[str, Call]
    revisions: tuple[str, ...]
    left_out: LeftOut = field(default_factory=dict)
    ledger: bool = False
    needs_node: bool = False

    def reason(self, case: str, revision: str) -> str | None:
        """Return why a case is left out, ``None`` if it is not."""
        return self.left_out.get(case) or self.left_out.get((case, revision))


@contextlib.contextmanager
def _over_http(process: Any, **settings: Any) -> Iterator[Running]:
    with process:
        yield Running({"url": process.url, **settings}, process)


def _over_stdio(command: Callable[[Path], StdioCommand]) -> Callable[[Path], AbstractContextManager[Running]]:
    return lambda directory: contextlib.nullcontext(Running(command(directory).config()))


def _node_stdio(package: str, *arguments: str) -> StdioCommand:
    return StdioCommand(*node_command(f"@modelcontextprotocol/{package}"), *arguments)


_OURS: Final = {
    "call": Call("echo", {"text": "said"}, "said"),
    "progress": Call("progress", {"steps": 3}, "3 steps"),
    "cancel": Call("hold"),
    "sampling": Call("sample", {}, "a model's words"),
    "elicitation": Call("elicit", {}, "Ada"),
    "roots": Call("roots", {}, ROOT.as_uri()),
    "expiry": Call("session_id"),
}
_OURS_OF_FASTMCP: Final = {case: call for case, call in _OURS.items() if case not in ("sampling", "roots")}
_EVERYTHING: Final = {
    "call": Call("echo", {"message": "said"}, "said"),
    "progress": Call("trigger-long-running-operation", {"duration": 0.3, "steps": 3}, "completed"),
    "cancel": Call("trigger-long-running-operation", {"duration": 3, "steps": 30}),
    "sampling": Call("trigger-sampling-request", {"prompt": "What is it?"}, "a model's words"),
    "elicitation": Call("trigger-elicitation-request", {}, "Ada"),
    "roots": Call("get-roots-list", {}, ROOT.as_uri()),
}

_NO_SESSION: Final = "a session of this transport ends with its connection, which is what a restart does"
_STATELESS: Final[LeftOut] = {("expiry", STATELESS): "the revision has no sessions"}
_JSON: Final[LeftOut] = {"progress": "a reply that is JSON has no room for progress"}
_NO_STREAM: Final = "in the handshake era the server asks on a stream, and it has none"
_NEVER_ASKS: Final = "the server never asks that"
_HANDSHAKE_ALONE: Final = "in the stateless era fastmcp does not ask from within a tool"
_QUICK: Final = "no tool of the server takes its time"
_SECRET: Final = "the server tells nobody the id of a session, and forgets all of them in a restart"

_FASTMCP: Final[LeftOut] = {
    "sampling": _NEVER_ASKS,
    "roots": _NEVER_ASKS,
    ("elicitation", STATELESS): _HANDSHAKE_ALONE,
}
_PLAIN: Final[LeftOut] = {
    "progress": _QUICK,
    "cancel": _QUICK,
    "sampling": _NEVER_ASKS,
    "elicitation": _NEVER_ASKS,
    "expiry": _NO_SESSION,
}
_BOTH: Final = (HANDSHAKE, STATELESS)

PEERS: Final = (
    Peer(
        "sdk-stdio",
        _over_stdio(lambda _: sdk_stdio()),
        "stdio",
        _OURS,
        _BOTH,
        {"expiry": _NO_SESSION},
        ledger=True,
    ),
    Peer("sdk-http", lambda _: _over_http(sdk_http()), "http", _OURS, _BOTH, _STATELESS, ledger=True),
    Peer(
        "sdk-http-json",
        lambda _: _over_http(sdk_http(json_replies=True)),
        "http",
        _OURS,
        _BOTH,
        {
            **_STATELESS,
            **_JSON,
            ("cancel", STATELESS): "the SDK does not watch the connection while it makes a reply that is JSON",
            ("sampling", HANDSHAKE): _NO_STREAM,
            ("elicitation", HANDSHAKE): _NO_STREAM,
            ("roots", HANDSHAKE): _NO_STREAM,
        },
        ledger=True,
    ),
    Peer(
        "sdk-http-sessionless",
        lambda _: _over_http(sdk_http(stateless=True)),
        "http",
        _OURS,
        (HANDSHAKE,),
        {
            "expiry": "the server keeps no sessions",
            "cancel": "a server without sessions does not find the call that is to be cancelled",
            "sampling": _NO_STREAM,
            "elicitation": _NO_STREAM,
            "roots": _NO_STREAM,
        },
    ),
    Peer(
        "sdk-sse",
        lambda _: _over_http(sdk_http(sse=True), transport="sse"),
        "sse",
        _OURS,
        (HANDSHAKE,),
        {"expiry": _NO_SESSION},
        ledger=True,
    ),
    Peer(
        "fastmcp-stdio",
        _over_stdio(lambda _: fastmcp_stdio()),
        "stdio",
        _OURS_OF_FASTMCP,
        _BOTH,
        {**_FASTMCP, "expiry": _NO_SESSION},
        ledger=True,
    ),
    Peer(
        "fastmcp-http",
        lambda _: _over_http(fastmcp_http()),
        "http",
        _OURS_OF_FASTMCP,
        _BOTH,
        {**_FASTMCP, **_STATELESS},
        ledger=True,
    ),
    Peer(
        "everything-stdio",
        _over_stdio(lambda _: _node_stdio("server-everything", "stdio")),
        "stdio",
        _EVERYTHING,
        (HANDSHAKE,),
        {"expiry": _NO_SESSION},
        needs_node=True,
    ),
    Peer(
        "everything-http",
        lambda _: _over_http(NodeHttpServer("@modelcontextprotocol/server-everything", "/mcp", "streamableHttp")),
        "http",
        _EVERYTHING,
        (HANDSHAKE,),
        {"expiry": _SECRET},
        needs_node=True,
    ),
    Peer(
        "everything-sse",
        lambda _: _over_http(NodeHttpServer("@modelcontextprotocol/server-everything", "/sse", "sse"), transport="sse"),
        "sse",
        _EVERYTHING,
        (HANDSHAKE,),
        {"expiry": _NO_SESSION},
        needs_node=True,
    ),
    Peer(
        "filesystem",
        _over_stdio(lambda directory: _node_stdio("server-filesystem", str(directory))),
        "stdio",
        {
            "call": Call("list_allowed_directories", {}, "Allowed"),
            "roots": Call("list_allowed_directories", {}, str(ROOT)),
        },
        (HANDSHAKE,),
        _PLAIN,
        needs_node=True,
    ),
    Peer(
        "memory",
        _over_stdio(lambda _: _node_stdio("server-memory")),
        "stdio",
        {"call": Call("search_nodes", {"query": "nobody"}, "entities")},
        (HANDSHAKE,),
        {**_PLAIN, "roots": _NEVER_ASKS},
        needs_node=True,
    ),
)
