"""The ids that clients get for tasks: sealed, so that each works for one principal at one endpoint."""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_manager.gateway.sessions.sealing import Sealer

__all__ = ["TaskIds"]

_PURPOSE: Final = b"taskId"
_LONGEST: Final = 64 * 1024


class _Task(msgspec.Struct, frozen=True, array_like=True):
    principal: str
    endpoint: str
    server_id: str
    task_id: str


_decoder = msgspec.msgpack.Decoder(_Task)


class TaskIds:
    """Give tasks ids that name their owner and their server (2025-11-25, tasks, security; SEP-2663).

    Nothing is kept: every process with the same session keys opens them, also after a restart.

    Parameters
    ----------
    sealer
        Seals and opens.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal(self, principal: str, endpoint: str, server_id: str, task_id: str) -> str:
        """Return the id that a client gets for a task of a server: always the same for the same task."""
        plain = msgspec.msgpack.encode(_Task(principal, endpoint, server_id, task_id))
        return self._sealer.seal_name(_PURPOSE, plain)

    def open(self, principal: str, endpoint: str, sealed: str) -> tuple[str, str] | None:
        """Return the server of a task and its id there; ``None`` if the gateway has not given this id to the client."""
        plain = self._sealer.open(_PURPOSE, sealed) if len(sealed) <= _LONGEST else None
        if plain is None:
            return None
        try:
            task = _decoder.decode(plain)
        except msgspec.DecodeError:
            return None
        return (task.server_id, task.task_id) if (task.principal, task.endpoint) == (principal, endpoint) else None
