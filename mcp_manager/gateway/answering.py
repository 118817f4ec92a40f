"""Answers one request of a client, of either era: by the endpoint itself, or by the server that it belongs to."""

from __future__ import annotations

from mcp_manager._core.jsonrpc import Message
from mcp_manager.calls.exchange_listener import OnMessage
from mcp_manager.errors import RpcError
from mcp_manager.gateway import failures, messages
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.forwarding import Forwarding

__all__ = ["Answering"]


class Answering:
    """Answer requests that both eras know.

    Parameters
    ----------
    forwarding
        Sends requests to servers.
    """

    def __init__(self, forwarding: Forwarding) -> None:
        self.forwarding: Forwarding = forwarding

    async def answer(
        self,
        endpoint: Endpoint,
        message: Message,
        client: Client,
        on_message: OnMessage | None = None,
        *,
        answers_input: bool = False,
    ) -> bytes:
        """Return the response to a request, as the server or the endpoint gives it: the era adapts the result."""
        id_raw = message.id_raw or messages.NO_ID
        try:
            own = await endpoint.own_result(message, client)
            if own is not None:
                return messages.response(id_raw, own)
            route = await endpoint.route(message, client)
        except RpcError as refusal:
            return failures.as_response(id_raw, refusal)
        return await self.forwarding.forward(route, id_raw, client, on_message, answers_input=answers_input)
