"""An HTTP transport without a session."""

from __future__ import annotations

from mcp_manager._core.jsonrpc import Message
from mcp_manager.auth import Authorization
from mcp_manager.errors import CallError
from mcp_manager.protocol.session_loss import Refusal
from mcp_manager.transports.base import CallListener, Exchange
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.options import HttpOptions
from mcp_manager.transports.http.transport import HttpTransport

__all__ = ["http_transport"]


class _NothingExpected:
    """A sink that fails the test if the server sends anything but replies."""

    def on_message(self, message: Message, listener: CallListener | None = None) -> None:
        raise AssertionError(message.frame)

    def on_given_up(self, exchange: Exchange, reason: str) -> None:
        raise AssertionError(reason)

    def on_fault(self, kind: str, detail: str) -> None:
        # Tests may close connections on purpose.
        if kind != "a connection that ended under a request":
            raise AssertionError(kind, detail)

    def on_closed(self, error: CallError) -> None:
        raise AssertionError(error)

    async def is_lost(self, refusal: Refusal) -> bool:
        raise AssertionError(refusal)


def http_transport(pool: HttpPool, url: str, authorization: Authorization | None = None) -> HttpTransport:
    """Make a transport that expects only replies to its requests."""
    options = HttpOptions(
        pool=pool,
        url=url,
        headers={},
        server_id="subject",
        connect_timeout_s=5.0,
        max_response_bytes=1 << 20,
        authorization=authorization,
    )
    return HttpTransport(options, _NothingExpected())
