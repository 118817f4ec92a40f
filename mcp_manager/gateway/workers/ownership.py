"""Which worker runs which program, so that each program runs once however many workers there are."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final
from urllib.parse import quote

import msgspec

from mcp_manager.config import BreakerConfig, ManagerConfig, RetryConfig, ServerConfig
from mcp_manager.config.changes import EFFECTS
from mcp_manager.gateway.workers.assignment import Assignment, socket_path
from mcp_manager.gateway.workers.trust import Trust

__all__ = ["divided", "is_elsewhere", "owner_of"]

_HOST: Final = "http://localhost"
# What the worker sees to that runs the program: the others would do it a second time.
_OF_THE_PROGRAM: Final = frozenset(
    {
        "url",
        "command",
        "args",
        "env",
        "cwd",
        "inherit_env",
        "transport",
        "protocol_version",
        "auth",
        "headers",
        "headers_command",
        "tls",
        "proxy",
        "unix_socket",
        "instances",
        "max_instances",
        "connect",
        "restart",
        "discovery",
        "balancing",
        "hedge",
        "limits",
        "breaker",
    }
)
# The owner has the circuit of the program. One for the way there would only tell that the owner has died, and would
# refuse calls for seconds after its successor serves.
_NO_BREAKER: Final = BreakerConfig(enabled=False)
# The successor of an owner that has died does not know the sessions of its siblings, and refuses a call unexecuted: it
# is sent again even if retries are turned off.
_LEAST_ATTEMPTS: Final = 3


def owner_of(server_id: str, count: int) -> int:
    """Return the number of the worker that runs a server's program.

    It is chosen by rendezvous hashing: all workers agree without asking each other, and each runs about as many.
    """

    def weight(number: int) -> bytes:
        return blake2b(f"{number}/{server_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()

    return max(range(count), key=weight)


def is_elsewhere(server_id: str, server: ServerConfig, assignment: Assignment) -> bool:
    """Return whether a sibling runs a server's program."""
    return server.transport == "stdio" and owner_of(server_id, assignment.count) != assignment.number


def divided(config: ManagerConfig, assignment: Assignment) -> ManagerConfig:
    """Return the configuration for one worker.

    A program that a sibling runs becomes a server over HTTP at the sibling's unix socket, under ``/servers/{id}/mcp``:
    between workers there is ordinary MCP, with sessions, streams and cancellation. Its instances, restarts, limits
    and circuits are those of the sibling, whose death opens no circuit: calls wait for its successor. Servers over HTTP
    are connected by every worker, so their limits, circuits and sessions are per worker: ``max_concurrent = 10`` allows
    10 calls in each of them.

    Parameters
    ----------
    config
        The configuration of the whole fleet, as the file has it. Changes of the file need nothing more than this.
    assignment
        What the worker is.
    """
    fields = dict(Trust(assignment.secret).fields())
    servers: dict[str, Any] = {
        server_id: _of_sibling(server_id, server, assignment, fields)
        if is_elsewhere(server_id, server, assignment)
        else server
        for server_id, server in config.servers.items()
    }
    return msgspec.structs.replace(config, servers=servers)


def _of_sibling(server_id: str, server: ServerConfig, assignment: Assignment, headers: dict[str, str]) -> ServerConfig:
    kept = {name: getattr(server, name) for name in EFFECTS if name not in _OF_THE_PROGRAM and name != "server"}
    return ServerConfig(
        url=f"{_HOST}/servers/{quote(server_id, safe='')}/mcp",
        unix_socket=socket_path(assignment.directory, owner_of(server_id, assignment.count)),
        headers=headers,
        # The sibling may not serve yet. Once all do, this worker connects: see :class:`~mcp_manager.gateway.workers.worker.Worker`.
        connect="lazy",
        # A first call may wait for the program to start.
        **{
            **kept,
            "connect_timeout_s": max(server.connect_timeout_s, server.start_timeout_s),
            "breaker": _NO_BREAKER,
            "retry": _retry_of(server.retry),
        },
    )


def _retry_of(retry: RetryConfig) -> RetryConfig:
    if retry.attempts >= _LEAST_ATTEMPTS:
        return retry
    tools = {} if retry.attempts == 1 else retry.tools
    is_trusting = retry.attempts > 1 and retry.trust_annotations
    return msgspec.structs.replace(retry, attempts=_LEAST_ATTEMPTS, tools=tools, trust_annotations=is_trusting)
