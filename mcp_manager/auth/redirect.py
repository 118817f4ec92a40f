"""A ready redirect handler for programs on the user's own machine (RFC 8252, section 7.3)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from mcp_manager.runtime.forks import keep_from_children

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["LoopbackRedirect", "RedirectHandler"]

RedirectHandler = Callable[[str], Awaitable[str | Mapping[str, str]]]
"""``await handler(authorization_url)`` brings a user there, and returns the URL they are sent back to, or its parameters."""

_LONGEST_HEAD: Final = 16_384
_PAGE: Final = b"Authorization received. You can close this window.\n"
_NOT_FOUND: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_OK: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_PAGE), _PAGE)
)


class LoopbackRedirect:
    """Show the user where to agree, and wait on ``auth.redirect_uri`` for their browser to come back.

    Parameters
    ----------
    show
        Called with the authorization URL: :func:`print`, or :func:`webbrowser.open`, which opens a browser.

    One request at a time: servers that share a redirect URI wait for each other.

    Raises
    ------
    OSError
        The port is in use.
    ValueError
        The redirect URI is not on this machine's loopback interface.
    """

    def __init__(self, show: Callable[[str], object] = print) -> None:
        self._show = show
        self._turn = asyncio.Lock()

    async def __call__(self, authorization_url: str) -> str:
        """Return the URL that the browser was sent back to."""
        from yarl import URL  # noqa: PLC0415 - an import of the package does without

        redirect = URL(URL(authorization_url).query["redirect_uri"])
        if redirect.scheme != "http" or redirect.host not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError("the redirect URI is not on loopback")
        family, host = (socket.AF_INET6, "::1") if redirect.host == "::1" else (socket.AF_INET, "127.0.0.1")
        state = URL(authorization_url).query.get("state", "")
        async with self._turn:
            returned: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            connections: set[asyncio.StreamWriter] = set()

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                connections.add(writer)
                try:
                    await _answer(reader, writer, redirect, state, returned)
                finally:
                    connections.discard(writer)

            with socket.create_server((host, redirect.port or 80), family=family) as listening:
                # A child that lives on would hold the port, and take browsers in.
                keep_from_children(listening)
                server = await asyncio.start_server(serve, sock=listening, limit=_LONGEST_HEAD)
                try:
                    self._show(authorization_url)
                    return await returned
                finally:
                    server.close()
                    # Browsers connect in advance, too, and say nothing: what ends the connection ends its reading.
                    for writer in tuple(connections):
                        writer.transport.abort()


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    redirect: URL,
    state: str,
    returned: asyncio.Future[str],
) -> None:
    from yarl import URL  # noqa: PLC0415 - see above

    try:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split(b" ", 2)[1].decode("ascii")
        came = redirect.join(URL(target, encoded=True)) if target.startswith("/") else None
        # Anything on the machine can connect: only who knows the request's state ends the wait.
        is_it = came is not None and came.raw_path == redirect.raw_path and came.query.get("state") == state
        writer.write(_OK if is_it else _NOT_FOUND)
        await writer.drain()
        if is_it and not returned.done():
            returned.set_result(str(came))
    except (OSError, ValueError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        # Not a browser that was sent here.
        pass
    finally:
        writer.close()
