"""HTTP requests to authorization servers: bounded in size, time and redirects, and restricted in their addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import aiohttp
import msgspec
from yarl import URL

from mcp_manager.auth.addresses import AddressRule, Reach, address_rule, literal_address, reach_of
from mcp_manager.auth.base import UnreachableError
from mcp_manager.auth.oauth.documents import read_object, shown_text
from mcp_manager.config import AuthConfig
from mcp_manager.errors import AuthError

__all__ = ["HttpClient", "JsonReply", "OAuthHttp", "is_loopback", "same_origin"]

_LARGEST: Final = 1 << 18
_TIMEOUT_S: Final = 30.0
_MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = (301, 302, 303, 307, 308)


class HttpClient(Protocol):
    """The part of an aiohttp session that is used here."""

    def request(
        self, verb: str, url: URL, *, headers: dict[str, str], data: aiohttp.Payload | None, allow_redirects: bool
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a request; leaving the context releases the connection."""


class JsonReply(msgspec.Struct, frozen=True):
    """A response.

    Parameters
    ----------
    status
        Its HTTP status.
    body
        Its body as an object, empty if it is something else.
    dpop_nonce, content_type, location
        Its header fields ``DPoP-Nonce``, ``Content-Type`` (without parameters, in lower case) and ``Location``, or "".
    """

    status: int
    body: dict[str, Any]
    dpop_nonce: str = ""
    content_type: str = ""
    location: str = ""

    @property
    def is_redirect(self) -> bool:
        """Whether the response is a redirect."""
        return self.status in _REDIRECTS

    @property
    def is_transient(self) -> bool:
        """Whether the status means a temporary failure, after which the request may be sent again."""
        return self.status >= 500 or self.status in (408, 425, 429)


def same_origin(one: URL, other: URL) -> bool:
    """Tell whether two URLs have the same scheme, host and port (explicit or default)."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def is_loopback(url: URL) -> bool:
    """Tell whether a URL points to this machine, so that its traffic crosses no network."""
    address = literal_address(url.host or "")
    return address is not None and reach_of(address) is Reach.LOOPBACK


async def _reach_of_host(url: URL) -> Reach:
    """Return the widest reach among a host's addresses; public for a name that does not resolve."""
    host = url.host or ""
    literal = literal_address(host)
    if literal is not None:
        return reach_of(literal)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, url.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return Reach.PUBLIC
    return max((reach_of(str(where[0])) for *_, where in found), default=Reach.PUBLIC)


class OAuthHttp:
    """Send requests to authorization servers over the manager's connections.

    Parameters
    ----------
    client
        Returns what sends requests; its connector blocks link-local and multicast addresses.
    server_id
        The server's id, for errors.
    resource
        The URL of the MCP server. A remote one must not direct its clients to their own loopback interface, and a
        public one not into a private network (2026-07-28, security best practices, server-side request forgery).
    config
        Its URLs are trusted; ``allow_private_addresses`` lifts the restriction on private networks.
    trusted
        Further URLs of the configuration.
    """

    def __init__(
        self,
        client: Callable[[], HttpClient],
        server_id: str,
        resource: URL,
        config: AuthConfig | None = None,
        trusted: Iterable[str | None] = (),
    ) -> None:
        config = config or AuthConfig()
        self._client = client
        self._server_id = server_id
        self._resource = resource
        self._allows_private = config.allow_private_addresses
        own = (
            config.issuer,
            config.authorization_endpoint,
            config.token_endpoint,
            config.idp_token_endpoint,
            *trusted,
        )
        self._trusted = frozenset(URL(each).origin() for each in own if each is not None)
        self._own_reach: Reach | None = None

    def checked(self, text: object, what: str, *, trusted: bool = False) -> URL:
        """Return a URL after checking that credentials may be sent to it and metadata taken from it.

        Parameters
        ----------
        text
            The URL.
        what
            What it is, for errors.
        trusted
            Whether it comes from the configuration; then it may be on loopback.

        Raises
        ------
        AuthError
            It is not an absolute URL, not https, or on loopback while the server is not.
        """
        try:
            url = URL(text) if isinstance(text, str) else None
            valid = url is not None and url.scheme in ("http", "https") and bool(url.host) and url.user is None
        except ValueError:
            valid = False
        if not valid or url is None or url.fragment:
            raise self.error(f"{what} is not an absolute http or https URL without user and fragment")
        if same_origin(url, self._resource):
            return url
        if is_loopback(url):
            if trusted or url.origin() in self._trusted or is_loopback(self._resource):
                return url
            raise self.error(
                f"{what} is on this machine's loopback interface, and the server is not: {url.origin()}",
                hint="to trust it, name it in auth.issuer or an endpoint of auth",
            )
        if url.scheme != "https":
            raise self.error(f"{what} is not https: {url.origin()}")
        return url

    async def get(self, url: URL, what: str) -> JsonReply:
        """Fetch a JSON document, following at most three redirects, whose targets are checked too."""
        for _ in range(_MAX_REDIRECTS + 1):
            reply = await self._request("GET", url, what)
            if not reply.is_redirect:
                return reply
            try:
                target = str(url.join(URL(reply.location)))
            except ValueError:
                target = ""
            url = self.checked(target, f"the redirect target of {what}")
        raise self.error(f"{what} at {self.shown(url)} redirects too often")

    async def post_form(self, url: URL, form: Mapping[str, str], headers: Mapping[str, str], what: str) -> JsonReply:
        """POST a form; a redirect is returned and not followed, because the form holds credentials."""
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
        rule = await self._rule_for(url)
        token = address_rule.set(rule)
        # Not kept alive: other requests, under a stricter address rule, must not reuse the connection.
        fields = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close", **(headers or {})}
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
        except UnreachableError as error:
            if rule is not None and rule.refused:
                raise self._out_of_bounds(what, url, rule.refused) from None
            text = f"{what} at {self.shown(url)} cannot be reached: {error}"
            raise self.error(text, hint=error.hint, retryable=True) from None
        except (aiohttp.ClientError, OSError) as error:
            if rule is not None and rule.refused:
                raise self._out_of_bounds(what, url, rule.refused) from None
            # The texts of aiohttp's errors quote URLs with their queries.
            raise self.error(
                f"{what} at {self.shown(url)} cannot be reached ({type(error).__name__})", retryable=True
            ) from None
        finally:
            address_rule.reset(token)

    def _out_of_bounds(self, what: str, url: URL, address: str) -> AuthError:
        is_private = reach_of(address) is Reach.PRIVATE
        by_setting = ", or set auth.allow_private_addresses = true" if is_private else ""
        return self.error(
            f"{what} at {self.shown(url)} is at {address}, on a network that the server is not on",
            hint=f"to trust it, name it in auth.issuer or an endpoint of auth{by_setting}",
        )

    async def _rule_for(self, url: URL) -> AddressRule | None:
        """Return the rule for the addresses of a URL: no less reach than the MCP server; ``None`` allows all."""
        if same_origin(url, self._resource) or url.origin() in self._trusted:
            return None
        if self._own_reach is None:
            self._own_reach = await _reach_of_host(self._resource)
        return AddressRule(min(self._own_reach, Reach.PRIVATE) if self._allows_private else self._own_reach)

    async def _body(self, response: aiohttp.ClientResponse, what: str) -> bytes:
        chunks = bytearray()
        async for chunk in response.content.iter_any():
            chunks += chunk
            if len(chunks) > _LARGEST:
                raise self.error(f"{what} at {self.shown(response.url)} sent more than {_LARGEST} bytes")
        return bytes(chunks)

    def shown(self, url: URL | str) -> str:
        """Return a URL for errors: without its query and without the MCP server's path, which may be secret."""
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
        """Make the error of a failed authorization."""
        return AuthError(f"authorization failed: {message}", server_id=self._server_id, hint=hint, retryable=retryable)
