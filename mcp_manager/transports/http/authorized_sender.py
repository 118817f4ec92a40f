"""Sends requests with the current token, and again with what a 401 or 403 challenge asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from yarl import URL

from mcp_manager._core.http_message import STOPPED, Exchange, WireError, WireReply
from mcp_manager._core.jsonrpc import Message
from mcp_manager.auth import Challenge, parse_challenge
from mcp_manager.auth.base import Authorization
from mcp_manager.config.redaction import Secrets
from mcp_manager.errors import AuthError, ConnectionLostError, Delivery
from mcp_manager.transports.http.request_headers import field_lines
from mcp_manager.transports.http.waits import Waits

__all__ = ["AuthorizedSender"]

T = TypeVar("T")

# Per request: a nonce, a new token, and more scopes.
_MAX_CHALLENGES: Final = 3


class AuthorizedSender:
    """Send the requests of one transport with credentials that an :class:`Authorization` obtains.

    Parameters
    ----------
    server_id
        Names the server in errors.
    authorization
        Obtains the credentials.
    waits
        Bounds the wait for credentials by the request's deadline.
    secrets
        Is given every credential that is sent, to mask it.
    on_headers
        ``on_headers(fields)`` sets the header fields with credentials for all further requests.

    ``close`` ends the subscription to new tokens.
    """

    def __init__(
        self,
        server_id: str,
        authorization: Authorization,
        waits: Waits,
        secrets: Secrets,
        on_headers: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._server_id = server_id
        self._authorization = authorization
        self._waits = waits
        self._secrets = secrets
        self._on_headers = on_headers
        self._token_generation = 0
        self._channel_generation = 0
        self.close: Callable[[], None] = authorization.subscribe(self.take_token)

    def take_token(self) -> None:
        """Send the current token with every request from now on."""
        headers = self._authorization.headers()
        self._token_generation = self._authorization.generation
        for name, value in headers.items():
            self._secrets.add(value, name)
        self._on_headers(headers)

    def channel_made(self) -> None:
        """Note that requests go over a channel from now on, with the current token."""
        self._channel_generation = self._token_generation

    def proof(self, verb: str, url: URL) -> bytes | None:
        """Return the credentials of one request alone (DPoP proof), ``None`` if all requests have the same."""
        if not self._authorization.per_request:
            return None
        fields = self._authorization.fields(verb, str(url))
        self._secrets.add(fields.get("Authorization", ""))
        return field_lines(fields)

    async def send(
        self,
        verb: str,
        url: URL,
        exchange: Exchange,
        send: Callable[[], Awaitable[WireReply | Message]],
        refusal: WireReply | None = None,
    ) -> WireReply | Message:
        """Send a request, and again after a 401 or 403 challenge, which means that nothing was executed.

        Parameters
        ----------
        verb, url
            The HTTP method and the URL, which a DPoP proof covers.
        exchange
            The request.
        send
            Sends it once.
        refusal
            The response if the request was already sent over the channel and refused.

        Returns
        -------
        WireReply or Message
            The last response, a refusal included, or the reply from an event stream.

        Raises
        ------
        AuthError
            The authorization failed or was not completed within the deadline.
        ConnectionLostError
            The transport was stopped.
        """
        authorization = self._authorization
        own_fields = exchange.fields
        # A request over the channel may have carried an earlier token than the current one.
        generation = self._token_generation if self._token_generation == self._channel_generation else -1
        is_renewed = False
        if refusal is None:
            await self._obtained(exchange, authorization.make_ready())
        for attempt in range(_MAX_CHALLENGES + 1):
            if refusal is None:
                generation = authorization.generation
                proof = self.proof(verb, url)
                if proof is not None:
                    exchange.fields = (own_fields or b"") + proof
                reply = await send()
                if type(reply) is not WireReply:
                    return reply
                authorization.take_nonce(reply.header("dpop-nonce") or "")
                if reply.status not in (401, 403):
                    return reply
                refusal = reply
            challenge = _challenge_of(refusal, dpop=authorization.per_request)
            is_current = refusal.status == 401 and challenge.error != "use_dpop_nonce"
            is_current = is_current and generation == authorization.generation
            # Only one new token: a second one would mean asking the user again, and would be refused as well.
            if attempt == _MAX_CHALLENGES or (is_current and is_renewed):
                break
            is_renewed = is_renewed or is_current
            if not await self._obtained(exchange, authorization.challenged(challenge, generation)):
                return refusal
            refusal, exchange.sent = None, False
        assert refusal is not None
        if refusal.status == 401:
            authorization.refused_again()
        return refusal

    async def _obtained(self, exchange: Exchange, wanted: Awaitable[T]) -> T:
        """Wait for an authorization within the exchange's deadline; when that passes, the authorization goes on."""
        delivery: Delivery = "rejected" if exchange.sent else "not_sent"
        try:
            async with self._waits.bounded(exchange):
                return await wanted
        except WireError as error:
            if error.kind == STOPPED:
                raise ConnectionLostError(
                    "the server was stopped during the call", server_id=self._server_id, delivery="not_sent"
                ) from None
            raise AuthError(
                "the authorization was not completed within the deadline",
                server_id=self._server_id,
                delivery=delivery,
                retryable=True,
                hint=self._authorization.pending_hint,
            ) from None
        except AuthError as error:
            raise error.for_caller(delivery) from None


def _challenge_of(reply: WireReply, *, dpop: bool) -> Challenge:
    """Parse all ``WWW-Authenticate`` fields: each scheme may have a field of its own."""
    return parse_challenge(reply.status, reply.header_values("www-authenticate"), dpop=dpop)
