"""Looks for the endpoint of a URL without a path, once, while a session is made."""

from __future__ import annotations

from typing import Final, Protocol

from yarl import URL

from mcp_manager._core.http_message import Exchange, WireReply
from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import AuthError, CallError
from mcp_manager.transports.http.bare_origin import BareOrigin
from mcp_manager.transports.http.reply import ReplyReader
from mcp_manager.transports.http.urls import exact_url

__all__ = ["EndpointSearch", "Movable"]

Answer = WireReply | Message

_NO_ENDPOINT: Final = frozenset({404, 405})


class Movable(Protocol):
    """A transport whose endpoint can change."""

    @property
    def endpoint(self) -> URL:
        """The URL that requests go to."""

    def go_to(self, endpoint: URL) -> None:
        """Send everything to another URL of the same origin from now on, with the credentials for it."""

    async def post_following(self, exchange: Exchange) -> Answer:
        """POST a request and follow redirects within the origin."""


class EndpointSearch:
    """Try the usual path of an origin if the URL without a path is no endpoint.

    Only the same origin is tried, because requests carry credentials.

    Parameters
    ----------
    origin
        What is known of the origin.
    reader
        Tells a refusal of HTTP from one of a server of MCP.
    """

    __slots__ = ("_is_over", "_origin", "_reader", "_status")

    def __init__(self, origin: BareOrigin, reader: ReplyReader) -> None:
        self._origin = origin
        self._reader = reader
        self._is_over = False
        # The status with which the configured URL refused the request.
        self._status = 0

    async def answer(self, reply: WireReply, exchange: Exchange, transport: Movable) -> Answer:
        """Return the response of the endpoint, which is another one than ``reply`` if that is found elsewhere.

        Parameters
        ----------
        reply
            The response of the URL in use.
        exchange
            The request.
        transport
            Sends the request again, and is left at the endpoint that was found.
        """
        if self._is_over or not self._is_nowhere(reply):
            return reply
        self._is_over = True
        if self._origin.found is not None:
            # The next session begins with the configured URL.
            self._origin.forget()
            return reply
        configured, self._status = transport.endpoint, reply.status
        transport.go_to(exact_url(self._origin.usual))
        exchange.sent = False
        try:
            answer = await transport.post_following(exchange)
        except AuthError:
            self._keep(transport.endpoint)
            raise
        except CallError:
            transport.go_to(configured)
            return reply
        if type(answer) is WireReply and (
            self._is_nowhere(answer) or 300 <= answer.status < 400 or _is_web_page(answer)
        ):
            transport.go_to(configured)
            return reply
        if type(answer) is not WireReply or answer.status < 500:
            self._keep(transport.endpoint)
        return answer

    def settle(self, endpoint: URL) -> None:
        """Note that a session was made at the URL in use."""
        if self._status and self._origin.found is None and endpoint.raw_path != "/":
            self._keep(endpoint)

    def _keep(self, endpoint: URL) -> None:
        self._origin.keep(endpoint.raw_path, self._status)

    def _is_nowhere(self, reply: WireReply) -> bool:
        return reply.status in _NO_ENDPOINT and not self._reader.is_json_rpc(reply)


def _is_web_page(reply: WireReply) -> bool:
    """Tell whether a site answers with a page, as some do for every path."""
    is_html = (reply.header("content-type") or "").lower().startswith("text/html")
    return is_html and reply.status == 200 and reply.body.lstrip().startswith(b"<")
