"""The interface of redirect handlers, and one for programs on the user's own machine."""

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
"""``await handler(authorization_url)`` sends the user there; it returns the URL of the redirect, or its parameters."""

_LONGEST_HEAD: Final = 16_384
_PAGE: Final = b"Authorization received. You can close this window.\n"
_NOT_FOUND: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_OK: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_PAGE), _PAGE)
)


class LoopbackRedirect:
    """Show the user the authorization URL, and listen on ``auth.redirect_uri`` for the redirect.

    One authorization is handled at a time; others wait (RFC 8252, section 7.3).

    Parameters
    ----------
    show
        Called with the authorization URL: :func:`print`, or :func:`webbrowser.open`, which opens a browser.
    """

    def __init__(self, show: Callable[[str], object] = print) -> None:
        self._show = show
        self._turn = asyncio.Lock()

    async def __call__(self, authorization_url: str) -> str:
        """Return the URL that the browser was redirected to.

        Raises
        ------
        OSError
            The port is in use.
        ValueError
            The redirect URI is not on this machine's loopback interface.
        """
        from yarl import URL  # noqa: PLC0415 - importing the package must not load it

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
                # A child process that inherits the socket would keep the port open.
                keep_from_children(listening)
                server = await asyncio.start_server(serve, sock=listening, limit=_LONGEST_HEAD)
                try:
                    self._show(authorization_url)
                    return await returned
                finally:
                    server.close()
                    # Browsers also open connections in advance and send nothing on them: end those.
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
        # Any program on the machine can connect; only the right state ends the wait.
        is_it = came is not None and came.raw_path == redirect.raw_path and came.query.get("state") == state
        writer.write(_OK if is_it else _NOT_FOUND)
        await writer.drain()
        if is_it and not returned.done():
            returned.set_result(str(came))
    except (OSError, ValueError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        # Not a redirected browser.
        pass
    finally:
        writer.close()
