"""What the gateway knows of calls that clients repeat: their header fields, who sends them, and where they go."""

from collections.abc import Callable
from typing import Any, Self, final

from mcp_manager._core.client_limits import RouteUse
from mcp_manager._core.serving import ServedRequest

__pyx_capi__: dict[str, object]

@final
class KnownFields:
    """What the header fields of a request say, as long as the next requests of its connection repeat them.

    Parameters
    ----------
    request
        The request that they were learned from.
    endpoint, principal
        Where it goes, and whom it is made for.
    accepted
        The kinds of response that the client accepts; JSON among them.
    fields
        Header fields of every response to this client, as complete lines.
    era
        ``handshake`` or ``stateless``.
    """

    endpoint: Any
    principal: Any
    accepted: Any
    fields: bytes
    era: str
    sender: Any
    """What counts and records the calls of its connection; ``None`` until that is needed."""

    def __new__(
        cls, request: ServedRequest, endpoint: Any, accepted: Any, fields: bytes, era: str, principal: Any
    ) -> Self: ...
    def believe(self, until_ns: int, epoch: object) -> None:
        """Use them until a time of the monotonic clock, and as long as the rules are those of ``epoch``."""

@final
class KnownClient:
    """A client that sends such requests; of one connection there may be several in the stateless era."""

    client: Any
    fields: KnownFields

@final
class ForwardRoute:
    """Where the calls of a tool go.

    Parameters
    ----------
    server_id, supervisor
        The server.
    name
        The name that clients use.
    adapt
        Puts a response into the terms of the client; ``None`` if it is passed on as it is.
    routing
        The route holds as long as the endpoint's ``routing`` is this object.
    adapts_few
        Whether ``adapt`` changes nothing but URIs of resources, and notes tasks: most responses need not be shown to it.
    minds_tasks
        Whether the client has a session of its own as soon as the server keeps tasks.
    is_stateless
        Whether the server is one of 2026-07-28; then the client is, too.
    check_out
        Begins a call on the session that the client has for itself: returns a
        :class:`~mcp_manager.servers.caller_sessions.Checkout`, or ``None`` if that session is not open. ``None``: it
        shares the session.
    """

    server_id: str
    name: str
    supervisor: Any
    is_stateless: bool
    adapt: Callable[[bytes], bytes] | None
    use: RouteUse | None
    """What its calls count in; ``None`` until that is needed."""

    def __new__(
        cls,
        server_id: str,
        name: str,
        supervisor: object,
        adapt: Callable[[bytes], bytes] | None,
        routing: object,
        *,
        adapts_few: bool,
        minds_tasks: bool,
        is_stateless: bool = False,
        check_out: Callable[[], Any] | None = None,
    ) -> Self: ...
