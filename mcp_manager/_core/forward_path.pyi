"""The compiled forward path: a client's ``tools/call`` that repeats what is known of it, on to a server and back.

The general path of the gateway takes the first call of each kind, and teaches this one what it has found out: who the
client is, which server has the tool, and under which name. All of it is checked again with each call, by identity. As
soon as anything else happens than a plain reply, the general path goes on with the call.
"""

from asyncio import Future
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Never, Self, final

from mcp_manager._core.call_path import CallPath, DirectCall
from mcp_manager._core.client_limits import RouteUse
from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.known_calls import ForwardRoute, KnownClient, KnownFields
from mcp_manager._core.recipients import Recipient
from mcp_manager._core.serving import ServedRequest

@final
class ForwardedCall(Recipient):
    """A call that was sent, until its reply is there or the general path goes on with it."""

    incoming: ServedRequest
    known: KnownClient
    route: ForwardRoute
    message: Message
    request: Message
    id_raw: bytes
    direct: DirectCall
    checkout: Any
    counted: RouteUse | None
    """What it counts in, until it is over; ``None`` if it is not counted, or by ``usage``."""
    usage: Any
    """What Python code counts it in; ``None`` if it is not counted, or by ``counted``."""
    came_ns: int
    """Nanoseconds since the epoch; 0 if it is not recorded."""
    started_ns: int
    deadline_ns: int
    waits_since: int

    def __init__(self, *args: Any, **kwargs: Any) -> Never: ...
    def __call__(self, future: Future[Any]) -> None:
        """Take the reply that has come, if a future had to wait for it."""
    def put_off(self, deadline_ns: int) -> int:
        """Return the deadline as it is: nothing puts it off."""
    def hand_over_use(self) -> RouteUse | None:
        """Return ``counted``, which whoever asks ends from now on."""
    def go_on(self) -> None:
        """Let the general path finish it. Idempotent."""
    def cancel(self) -> None:
        """Cancel it, on the general path."""
    def keep_alive(self) -> None:
        """Give the client a sign of life, on the general path."""

@final
class ForwardPath:
    """Take the POSTs of clients: call it with each.

    Parameters
    ----------
    calls
        Sends requests to servers, and takes their replies.
    clock
        Returns monotonic nanoseconds.
    take
        Takes a request that cannot be forwarded here; nothing was done with it.
    counted_calls
        Says what the calls of a route count in (``use_of_route``), goes on with what a call uses (``usage_of``), and
        counts calls that compiled code does not (``begin``). Asked only while ``accounting`` is on.
    go_on
        Goes on with a call on the general path, and returns what it has made of it.
    failed
        Is called with a call and the exception if a reply could not be handed over.
    adapt
        Returns a response in the terms of the client.
    context
        The context in which replies are handed over.
    owners
        By name, the registries of the gateway that are looked at, and those that a call is entered in while it is
        under way, each of which still belongs to its owner: ``servers``, ``paths``, ``granted_paths``, ``security``, ``accounting``,
        ``limits``, ``ended``, ``running``, ``counts``, ``count``, ``names``, ``parameters``, ``keep_alives``, ``quiet``, ``sent_requests`` and
        ``waiting``.

    Attributes
    ----------
    forwarded
        How many calls it has sent.
    """

    forwarded: int

    def __new__(
        cls,
        calls: CallPath,
        clock: Callable[[], int],
        *,
        take: Callable[[Any], None],
        counted_calls: Any,
        go_on: Callable[[ForwardedCall], Any],
        failed: Callable[[ForwardedCall, Exception], None],
        adapt: Callable[[ForwardedCall, Any, bytes], bytes],
        context: Context,
        owners: Mapping[str, Any],
    ) -> Self: ...
    def __call__(self, request: ServedRequest) -> None: ...
    def known_fields(self, request: ServedRequest) -> KnownFields | None:
        """Return what is known of the fields of a request, if its connection has sent the same before."""
    def learn_fields(self, request: ServedRequest, fields: KnownFields) -> None:
        """Keep what the fields of a request say for its connection."""
    def learn(
        self,
        fields: KnownFields,
        message: Message,
        client: Any,
        meta: bytes | None,
        route: ForwardRoute,
        sent: Any,
    ) -> bool:
        """Keep where a call of a client goes.

        Parameters
        ----------
        fields
            What is known of its header fields.
        message, client
            The call, and who has sent it.
        meta
            What servers of the handshake era get in place of ``_meta``: JSON, b"" for nothing; ``None``: the same.
        route
            Where it goes.
        sent
            The call as the server got it.

        Returns
        -------
        Whether it was kept: there was room, and the call is one of those that can be repeated.
        """
