"""Which worker a request of a client belongs to: most are served wherever they arrive."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from mcp_manager._core.jsonrpc import Message
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.endpoints.owned_tasks import asks_for_task
from mcp_manager.protocol.methods import CANCELLED, SET_LOG_LEVEL, SUBSCRIBE, UNSUBSCRIBE

__all__ = ["concerns_all", "home_of_messages", "home_of_stream", "worker_named"]

# What they change is kept where the standing stream of the session is.
_AT_HOME: Final = frozenset({SUBSCRIBE, UNSUBSCRIBE})
# They concern calls, which are served anywhere.
_EVERYWHERE: Final = frozenset({CANCELLED, SET_LOG_LEVEL})
_TASKS: Final = "tasks/"
_DIGITS: Final = 3


def home_of_messages(
    messages: Sequence[Message], client: Client, endpoint: Endpoint, stateful: Collection[str] = ()
) -> int | None:
    """Return the worker that messages within a session belong to; ``None``: any worker can take them.

    The worker that began a session is its home. Its standing stream is there, and what it has subscribed to. If servers
    can ask the client, everything is there: its calls, the questions within them, and the answers. If a server keeps
    something for the session, its calls are there too, so that they take the same session with that server; so are calls
    that become tasks (2025-11-25), and what concerns tasks. The others' calls are served wherever they arrive.

    Parameters
    ----------
    messages
        The message of a POST, or those of a batch.
    client, endpoint
        Whose session, and where.
    stateful
        The ids of servers that remember something between calls.
    """
    if client.can_be_asked or (stateful and not _has_none_of(endpoint, stateful)):
        return client.worker
    for message in messages:
        method = message.method
        if method is None or method in _AT_HOME or method.startswith(_TASKS) or asks_for_task(message):
            return client.worker
    return None


def concerns_all(messages: Sequence[Message]) -> bool:
    """Return whether messages that have no home concern all workers: they cancel calls, or set the level of their logs."""
    return any(message.method in _EVERYWHERE for message in messages)


def home_of_stream(last_event_id: str | None, client: Client) -> int:
    """Return the worker that has a stream which a client resumes, or else its standing stream.

    Parameters
    ----------
    last_event_id
        The id of an event, ``{worker}.{stream}.{number}``; ``None`` if the client resumes nothing.
    client
        Whose session.
    """
    named = worker_named(last_event_id) if last_event_id else None
    return client.worker if named is None else named


def worker_named(name: str) -> int | None:
    """Return the number of the worker that a name begins with, as in ``{worker}.{rest}``; ``None`` if there is none."""
    worker = name.partition(".")[0]
    return int(worker) if worker.isascii() and worker.isdigit() and len(worker) <= _DIGITS else None


def _has_none_of(endpoint: Endpoint, stateful: Collection[str]) -> bool:
    """Return whether an endpoint shows no server that remembers something."""
    return not any(server_id in stateful for server_id in endpoint.servers())
