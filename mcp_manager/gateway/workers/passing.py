"""``Passing``: the requests of clients that a worker does not answer itself, because a sibling has what they need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from aiohttp import web

from mcp_manager._core.jsonrpc import Message
from mcp_manager.gateway.channels import Incoming
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.sessions.ids import SessionIds
from mcp_manager.gateway.workers.placement import concerns_all, home_of_messages, home_of_stream, worker_named
from mcp_manager.gateway.workers.siblings import Siblings

__all__ = ["Passing"]


class Passing:
    """Pass requests to the sibling that they belong to; only a gateway with siblings has one of these.

    What comes from a sibling is never passed on: it was placed already.

    Parameters
    ----------
    siblings
        The other workers.
    ids
        Open the ids of sessions.
    worker_of
        Returns the worker in which the call waits that a request of the stateless era continues, if there is one.
    stateful
        The ids of servers that remember something between calls.
    """

    def __init__(
        self,
        siblings: Siblings,
        ids: SessionIds,
        worker_of: Callable[[Message], int | None],
        stateful: Collection[str] = (),
    ) -> None:
        self._siblings = siblings
        self._ids = ids
        self._worker_of = worker_of
        self._stateful = frozenset(stateful)

    @property
    def number(self) -> int:
        """The number of this worker."""
        return self._siblings.number

    def place_of(
        self,
        incoming: Incoming,
        messages: Sequence[Message],
        endpoint: Endpoint,
        session_id: str | None,
        principal: str,
    ) -> int | None:
        """Return the sibling that a POST belongs to; ``None``: it is answered here.

        What concerns all workers is told to the siblings, and answered here.

        Parameters
        ----------
        incoming, messages
            The request, and its message or those of its batch.
        endpoint, principal
            Where, and for whom.
        session_id
            The id of the session that it names; ``None`` in the stateless era.
        """
        if session_id is None:
            worker = self._worker_of(messages[0])
            return worker if worker is not None and self._is_passed(worker, incoming) else None
        client = self._ids.find(session_id, endpoint.name, principal)
        if client is None:
            return None
        worker = home_of_messages(messages, client, endpoint, self._stateful)
        if worker is not None:
            return worker if self._is_passed(worker, incoming) else None
        if concerns_all(messages) and not self._siblings.trust.is_sibling(incoming):
            self._siblings.tell_all("POST", incoming.path, incoming.fields(), incoming.body, principal)
        return None

    def stays(self, incoming: Incoming) -> bool:
        """Return whether later calls of a client that sends this one are answered here as well."""
        return not self._stateful and not self._siblings.trust.is_sibling(incoming)

    async def forward(self, worker: int, incoming: Incoming, principal: str) -> None:
        """Let a sibling answer a request."""
        await self._siblings.forward(worker, incoming, principal)

    def place_of_stream(
        self, incoming: Incoming, endpoint: Endpoint, session_id: str | None, last_event_id: str | None, principal: str
    ) -> int | None:
        """Return the sibling that has the stream of a GET; ``None``: it is opened here."""
        client = None if session_id is None else self._ids.find(session_id, endpoint.name, principal)
        if client is None:
            return None
        worker = home_of_stream(last_event_id, client)
        return worker if self._is_passed(worker, incoming) else None

    async def named(self, request: web.Request, name: str, principal: str) -> web.StreamResponse | None:
        """Pass on a POST for a stream of HTTP+SSE if its name says that a sibling has it; ``None`` if none has."""
        worker = worker_named(name)
        if worker is None or not self._is_other(worker) or self._siblings.trust.shows_secret(request):
            return None
        return await self._siblings.relay(worker, request, principal)

    def is_own(self, incoming: Incoming) -> bool:
        """Tell whether a sibling makes a request itself, for a program that runs here: see :meth:`Trust.is_own`."""
        return self._siblings.trust.is_own(incoming)

    def is_counted(self, incoming: Incoming) -> bool:
        """Tell whether a sibling has counted and recorded a request already."""
        return self._siblings.trust.is_counted(incoming)

    def client_of(self, incoming: Incoming) -> object:
        """Return the address of the client that a request comes from, also if a sibling passes it on."""
        trust = self._siblings.trust
        return (trust.client_of(incoming) if trust.is_sibling(incoming) else "") or incoming.peer

    def agrees(self, incoming: Incoming, principal: str) -> bool:
        """Tell whether a request is made for whom its sender said, if a sibling sent it: both authenticate the client."""
        trust = self._siblings.trust
        return not trust.is_sibling(incoming) or trust.principal_of(incoming) == principal

    def session_ended(self, incoming: Incoming, principal: str) -> None:
        """Tell the siblings that a client ended its session (DELETE), so that its id is invalid for all of them."""
        if not self._siblings.trust.is_sibling(incoming):
            self._siblings.tell_all("DELETE", incoming.path, incoming.fields(), b"", principal)

    def _is_passed(self, worker: int, incoming: Incoming) -> bool:
        return self._is_other(worker) and not self._siblings.trust.is_sibling(incoming)

    def _is_other(self, worker: int) -> bool:
        return worker != self._siblings.number and worker < self._siblings.count
