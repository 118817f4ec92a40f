"""Requests to authorization servers: bounded in size, time and redirects; in the clear on loopback or the server's own origin."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
import msgspec
from yarl import URL

from mcp_manager.auth.oauth.documents import read_object, shown_text
from mcp_manager.errors import AuthError

__all__ = ["JsonReply", "OAuthHttp", "is_loopback", "same_origin"]

_LARGEST: Final = 1 << 18
_TIMEOUT_S: Final = 30.0
_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = (301, 302, 303, 307, 308)


class JsonReply(msgspec.Struct, frozen=True):
    """A response: its status, its body as an object (empty if it is none), and what counts of its header.

    ``dpop_nonce`` is the nonce for DPoP proofs, ``content_type`` what the body is said to be, ``location`` where it
    redirects to: each "" if there is none.
    """

    status: int
    body: dict[str, Any]
    dpop_nonce: str = ""
    content_type: str = ""
    location: str = ""

    @property
    def is_redirect(self) -> bool:
        """Whether what was asked for is said to be elsewhere."""
        return self.status in _REDIRECTS

    @property
    def is_transient(self) -> bool:
        """Whether the status says nothing of the request, but that it may be sent again later."""
        return self.status >= 500 or self.status in (408, 425, 429)


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
        Gives the aiohttp session, whose connector blocks the addresses that nobody should be sent to.
    server_id
        Names the server in errors.
    resource
        The MCP server: one elsewhere must not send its clients to their own loopback interface.
    """

    def __init__(self, client: Callable[[], aiohttp.ClientSession], server_id: str, resource: URL) -> None:
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
            raise self.error(f"{what} is not a usable URL, which is absolute, http or https, without user or fragment")
        if same_origin(url, self._resource):
            return url
        if is_loopback(url):
            if trusted or is_loopback(self._resource):
                return url
            raise self.error(f"{what} is on this machine's loopback interface, and the server is not: {url.origin()}")
        if url.scheme != "https":
            raise self.error(f"{what} is not https: {url.origin()}")
        return url

    async def get(self, url: URL, what: str) -> JsonReply:
        """Fetch a JSON document, following at most three redirects to places that are as acceptable."""
        for _ in range(_MAX_REDIRECTS + 1):
            reply = await self._request("GET", url, what)
            if not reply.is_redirect:
                return reply
            try:
                target = str(url.join(URL(reply.location)))
            except ValueError:
                target = ""
            url = self.checked(target, f"where {what} redirects to")
        raise self.error(f"{what} at {self.shown(url)} redirects without end")

    async def post_form(self, url: URL, form: Mapping[str, str], headers: Mapping[str, str], what: str) -> JsonReply:
        """POST a form; a redirect is returned and not followed, since the form holds credentials."""
        return await self._request("POST", url, what, headers, aiohttp.FormData(dict(form))())

    async def post_json(self, url: URL, document: Mapping[str, Any], what: str) -> JsonReply:
        """POST a JSON document; a redirect is returned and not followed."""
        payload = aiohttp.BytesPayload(msgspec.json.encode(document), content_type="application/json")
        return await self._request("POST", url, what, data=payload)

    async def _request(
        self,
        verb: str,
        url: URL,
        what: str,
        headers: Mapping[str, str] | None = None,
        data: aiohttp.Payload | None = None,
    ) -> JsonReply:
        fields = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._client().request(verb, url, headers=fields, data=data, allow_redirects=False) as response,
            ):
                nonce = response.headers.get("DPoP-Nonce", "")
                location = response.headers.get("Location", "")
                content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
                body: dict[str, Any] = {}
                if response.status not in _REDIRECTS:
                    body = read_object(await self._body(response, what), content_type)
                return JsonReply(response.status, body, nonce, content_type, location)
        except TimeoutError:
            raise self.error(f"{what} at {self.shown(url)} did not answer in time", retryable=True) from None
        except (aiohttp.ClientError, OSError) as error:
            # aiohttp's texts quote URLs with their queries.
            raise self.error(
                f"{what} at {self.shown(url)} cannot be reached ({type(error).__name__})", retryable=True
            ) from None

    async def _body(self, response: aiohttp.ClientResponse, what: str) -> bytes:
        chunks = bytearray()
        async for chunk in response.content.iter_any():
            chunks += chunk
            if len(chunks) > _LARGEST:
                raise self.error(f"{what} at {self.shown(response.url)} answers with more than {_LARGEST} bytes")
        return bytes(chunks)

    def shown(self, url: URL | str) -> str:
        """Return a URL as errors show it: without a query, and without the path of the MCP server, which may be secret."""
        try:
            whole = URL(url)
            origin, path = str(whole.origin()), whole.raw_path.rstrip("/")
        except ValueError:
            return "an unusable URL"
        own = self._resource.raw_path.strip("/")
        if own and same_origin(whole, self._resource):
            path = path.replace(own, "...")
        return shown_text(origin + path)

    def error(self, message: str, *, hint: str = "", retryable: bool = False) -> AuthError:
        """Make the error of an authorization that failed."""
        return AuthError(f"authorization failed: {message}", server_id=self._server_id, hint=hint, retryable=retryable)
