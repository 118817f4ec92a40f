"""Where the requests of one transport go, and the header fields they carry, rendered before a request is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from yarl import URL

from mcp_manager._core.call_path import Channel
from mcp_manager.config.header_fields import without
from mcp_manager.transports.base import MessageTaker
from mcp_manager.transports.http.connections.user_agent import with_user_agent
from mcp_manager.transports.http.cookie_keeper import CookieKeeper
from mcp_manager.transports.http.options import HttpOptions
from mcp_manager.transports.http.session_ids import SESSION_HEADER
from mcp_manager.transports.http.urls import exact_url

__all__ = ["RequestHeaders", "field_lines", "render_head"]

_ACCEPT_EVENTS: Final = "text/event-stream"
_ACCEPT: Final = f"application/json, {_ACCEPT_EVENTS}"
_VERSION_HEADER: Final = "MCP-Protocol-Version"


class RequestHeaders:
    """Keep the endpoint and the header fields of one transport, and render the heads of its requests.

    Parameters
    ----------
    options
        The endpoint, the configured fields and the cookie jar.
    sink
        Counts malformed cookies.

    ``endpoint`` is the URL that requests go to, ``post_head`` the rendered head of a POST. ``channel``, once set,
    always has the same head.
    """

    __slots__ = ("_configured", "_credentials", "_fields", "channel", "cookies", "endpoint", "post_head")

    def __init__(self, options: HttpOptions, sink: MessageTaker) -> None:
        self.endpoint: URL = exact_url(options.url)
        # The configured fields that credentials may replace, and the names of the credentials sent now.
        self._configured = with_user_agent(options.headers, options.pool.clients.user_agent)
        self._credentials: tuple[str, ...] = ()
        self._fields = {**self._configured, "Accept": _ACCEPT, "Accept-Encoding": "identity"}
        self.cookies: CookieKeeper = CookieKeeper(options, self.endpoint, self._fields, sink, self._render)
        self.channel: Channel | None = None
        self.post_head: bytes = render_head("POST", self.endpoint, self._fields)

    @property
    def session_id(self) -> str | None:
        """The session id that requests carry, ``None`` without one."""
        return self._fields.get(SESSION_HEADER)

    def set(self, name: str, value: str) -> None:
        """Send a header field with every request from now on."""
        self._fields[name] = value
        self._render()

    def set_credentials(self, fields: Mapping[str, str]) -> None:
        """Send credentials with every request from now on, in place of earlier ones and of configured fields."""
        for name in (*self._credentials, *self._configured):
            self._fields.pop(name, None)
        self._credentials = tuple(fields)
        sent = {**without(self._configured, fields), **fields}
        own = [sent.pop(name) for name in tuple(sent) if name.lower() == "cookie"]
        self._fields.update(sent)
        self.cookies.set_own("; ".join(own))
        self._render()

    def set_revision(self, revision: str | None) -> None:
        """Send ``MCP-Protocol-Version`` from now on; ``None`` drops it, and the session id with it."""
        self._fields.pop(_VERSION_HEADER, None)
        if revision is None:
            self._fields.pop(SESSION_HEADER, None)
        else:
            self._fields[_VERSION_HEADER] = revision
        self._render()

    def move_to(self, endpoint: URL) -> None:
        """Send everything to another URL of the same origin from now on."""
        self.endpoint = endpoint
        self.cookies.move_to(endpoint)

    def get_head(self) -> bytes:
        """Render the head of a GET for an event stream."""
        return render_head("GET", self.endpoint, self._fields_of("GET"))

    def delete_head(self) -> bytes:
        """Render the head of a DELETE without a session id."""
        fields = {name: value for name, value in self._fields.items() if name != SESSION_HEADER}
        return render_head("DELETE", self.endpoint, fields)

    def fields_for(self, verb: str, url: URL) -> Mapping[str, str]:
        """Return the header fields of a request to a URL of the same origin, with the cookies for that URL."""
        return self.cookies.on(url, self._fields_of(verb))

    def _fields_of(self, verb: str) -> Mapping[str, str]:
        return self._fields if verb != "GET" else {**self._fields, "Accept": _ACCEPT_EVENTS}

    def _render(self) -> None:
        self.post_head = render_head("POST", self.endpoint, self._fields)
        if self.channel is not None:
            self.channel.head = self.post_head


def render_head(verb: str, url: URL, headers: Mapping[str, str]) -> bytes:
    """Render the head of a request up to where the length of its body belongs (RFC 9112, section 3)."""
    lines = [f"{verb} {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if verb == "POST":
        lines.append("Content-Type: application/json")
    lines.append("Content-Length: ")
    return "\r\n".join(lines).encode("latin-1")


def field_lines(fields: Mapping[str, str]) -> bytes:
    """Render header fields, each with its line end."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode("latin-1")
