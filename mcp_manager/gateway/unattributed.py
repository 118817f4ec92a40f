"""What servers send that belongs to no call: to the session of the client it is meant for, or to nobody."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Protocol

import msgspec

from mcp_manager.auth.caller import Caller, current_caller
from mcp_manager.errors import RpcError
from mcp_manager.gateway.callers import is_told, principal_of, session_of
from mcp_manager.gateway.declared import check_declared
from mcp_manager.gateway.sessions.known_tasks import TASK_STATUS, KnownTasks
from mcp_manager.protocol.error_codes import INVALID_REQUEST
from mcp_manager.protocol.methods import ELICIT, ELICITATION_COMPLETE, LIST_ROOTS, LOG_MESSAGE, SAMPLE
from mcp_manager.session.handlers import Handler

__all__ = ["Sessions", "Unattributed"]

_QUESTIONS: Final = (ELICIT, SAMPLE, LIST_ROOTS)
_NEWS: Final = (LOG_MESSAGE, ELICITATION_COMPLETE)


class Sessions(Protocol):
    """The sessions of clients."""

    def tell(self, session: str, method: str, params: bytes) -> bool:
        """Send a notification on the standing stream of a session; return whether anybody listens."""

    def shows(self, session: str, server_id: str) -> bool:
        """Return whether the client of a session may see anything of a server."""

    async def ask(self, session: str, method: str, params: bytes) -> bytes:
        """Send a request on the standing stream of a session, and return the result as JSON; may raise RpcError."""


class Unattributed:
    """Pass on what belongs to no call, from the sessions that servers keep for one client.

    A server that shares one session among clients, as a program does, can mean any of them: its questions are refused
    and its log messages are dropped. The state of a task is that of the client that has made it.

    Parameters
    ----------
    sessions
        The sessions of clients.
    tasks
        Whose the tasks are that servers have news of.
    """

    def __init__(self, sessions: Sessions, tasks: KnownTasks) -> None:
        self._sessions = sessions
        self._tasks = tasks

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers for the manager, by method."""
        asking: dict[str, Handler] = {method: partial(self._ask, method) for method in _QUESTIONS}
        telling: dict[str, Handler] = {method: partial(self._tell, method) for method in _NEWS}
        return {**asking, **telling, TASK_STATUS: self._tell_of_task}

    async def _ask(self, method: str, server_id: str, params: Any) -> msgspec.Raw:
        """Ask the client that the session of the server was made for; raises :class:`RpcError` if there is none."""
        caller = current_caller()
        session = _session(caller)
        if caller is None or not session or not self._sessions.shows(session, server_id):
            raise RpcError(
                INVALID_REQUEST, f"{method} belongs to no request under way, so nobody can tell which client is meant"
            )
        check_declared(method, params, caller.capabilities or {})
        return msgspec.Raw(await self._sessions.ask(session, method, msgspec.json.encode(params)))

    def _tell(self, method: str, server_id: str, params: Any) -> None:
        session = _session(current_caller())
        if session and self._sessions.shows(session, server_id):
            self._sessions.tell(session, method, msgspec.json.encode(params))

    def _tell_of_task(self, server_id: str, params: Any) -> None:
        """Tell the session that has made a task of its state, whichever session of the server says so."""
        task_id = params.get("taskId") if isinstance(params, dict) else None
        caller = current_caller()
        for known in self._tasks.owners(server_id, task_id) if isinstance(task_id, str) else ():
            session = known.client.session
            is_meant = caller is None or is_told(caller.principal, principal_of(known.client))
            if is_meant and session and self._sessions.shows(session, server_id):
                told = msgspec.json.encode({**params, "taskId": known.client_id})
                self._sessions.tell(session, TASK_STATUS, told)


def _session(caller: Caller | None) -> str:
    return "" if caller is None else session_of(caller)
