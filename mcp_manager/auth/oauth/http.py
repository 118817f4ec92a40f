"""Requests to authorization servers: bounded in size, time and redirects; in the clear on loopback or the server's own origin."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import aiohttp
import msgspec
from yarl import URL

from mcp_manager.auth.base import UnreachableError
from mcp_manager.errors import AuthError

__all__ = ["HttpClient", "JsonReply", "OAuthHttp", "is_loopback", "same_origin"]

_LARGEST: Final = 1 << 18
_TIMEOUT_S: Final = 30.0
_MAX_REDIRECTS: Final = 3

_decoder = msgspec.json.Decoder(dict[str, Any])


class HttpClient(Protocol):
    """What requests are sent with: an aiohttp session, or what knows by which way to send them."""

    def request(
        self, verb: str, url: URL, *, headers: dict[str, str], data: aiohttp.Payload | None, allow_redirects: bool
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a request, with a response whose connection is given back in the end."""


class JsonReply(msgspec.Struct, frozen=True):
    """A response: its status, its body as an object (empty if it is none), and the nonce it gave for DPoP proofs."""

    status: int
    body: dict[str, Any]
    dpop_nonce: str


def same_origin(one: URL, other: URL) -> bool:
    """Tell whether two URLs have scheme, host and port in common, a default port named or not."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def is_loopback(url: URL) -> bool:
    """Tell whether a URL names this machine: what is sent there crosses no network."""
    host = url.host or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class OAuthHttp:
    """Speak HTTP with authorization servers over the manager's own connections.

    Parameters
    ----------
    client
        Gives what sends requests, whose connector blocks the addresses that nobody should be sent to.
    server_id
        Names the server in errors.
    resource
        The MCP server: one elsewhere must not send its clients to their own loopback interface.
    """

    def __init__(self, client: Callable[[], HttpClient], server_id: str, resource: URL) -> None:
        self._client = client
        self._server_id = server_id
        self._resource = resource

    def checked(self, text: object, what: str, *, trusted: bool = False) -> URL:
        """Return a URL that credentials may be sent to or metadata taken from.

        Raises
        ------
        AuthError
            It is no absolute URL, not https, or on loopback although the server is not. ``trusted`` ones, which stand
            in the configuration, may be on loopback.
        """
        try:
            url = URL(text) if isinstance(text, str) else None
            valid = url is not None and url.scheme in ("http", "https") and bool(url.host) and url.user is None
        except ValueError:
            valid = False
        if not valid or url is None or url.fragment:
            raise self.error(f"{what} is not a usable URL")
        if same_origin(url, self._resource):
            return url
        if is_loopback(url):
            if trusted or is_loopback(self._resource):
                return url
            raise self.error(f"{what} is on this machine's loopback interface, and the server is not")
        if url.scheme != "https":
            raise self.error(f"{what} is not https: {url.origin()}")
        return url

    async def get(self, url: URL, what: str) -> JsonReply:
        """Fetch a JSON document, following at most three redirects to places that are as acceptable."""
        for _ in range(_MAX_REDIRECTS + 1):
            reply = await self._request("GET", url, what)
            if not isinstance(reply, str):
                return reply
            try:
                target = str(url.join(URL(reply)))
            except ValueError:
                target = ""
            url = self.checked(target, f"where {what} redirects to")
        raise self.error(f"{what} redirects without end")

    async def post_form(self, url: URL, form: Mapping[str, str], headers: Mapping[str, str], what: str) -> JsonReply:
        """POST a form; a redirect is an error, since the form holds credentials."""
        return await self._post(url, what, headers, data=aiohttp.FormData(dict(form))())

    async def post_json(self, url: URL, document: Mapping[str, Any], what: str) -> JsonReply:
        """POST a JSON document; a redirect is an error."""
        payload = aiohttp.BytesPayload(msgspec.json.encode(document), content_type="application/json")
        return await self._post(url, what, {}, data=payload)

    async def _post(self, url: URL, what: str, headers: Mapping[str, str], data: aiohttp.Payload) -> JsonReply:
        reply = await self._request("POST", url, what, headers, data)
        if isinstance(reply, str):
            raise self.error(f"{what} redirects, which is not followed")
        return reply

    async def _request(
        self,
        verb: str,
        url: URL,
        what: str,
        headers: Mapping[str, str] | None = None,
        data: aiohttp.Payload | None = None,
    ) -> JsonReply | str:
        """Return the reply, or the target of a redirect."""
        fields = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._client().request(verb, url, headers=fields, data=data, allow_redirects=False) as response,
            ):
                if response.status in (301, 302, 303, 307, 308):
                    return response.headers.get("Location", "")
                body = await self._body(response, what)
                return JsonReply(response.status, body, response.headers.get("DPoP-Nonce", ""))
        except TimeoutError:
            raise self.error(f"{what} at {url.origin()} did not answer in time", retryable=True) from None
        except UnreachableError as error:
            text = f"{what} at {url.origin()} cannot be reached: {error}"
            raise self.error(text, hint=error.hint, retryable=True) from None
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp's texts quote URLs with their queries.
            raise self.error(
                f"{what} at {url.origin()} cannot be reached ({type(error).__name__})", retryable=True
            ) from None

    async def _body(self, response: aiohttp.ClientResponse, what: str) -> dict[str, Any]:
        chunks = bytearray()
        async for chunk in response.content.iter_any():
            chunks += chunk
            if len(chunks) > _LARGEST:
                raise self.error(f"{what} at {response.url.origin()} answers with more than {_LARGEST} bytes")
        try:
            return _decoder.decode(chunks)
        except (msgspec.DecodeError, RecursionError):
            return {}

    def error(self, message: str, *, hint: str = "", retryable: bool = False) -> AuthError:
        """Make the error of an authorization that failed."""
        return AuthError(f"authorization failed: {message}", server_id=self._server_id, hint=hint, retryable=retryable)
