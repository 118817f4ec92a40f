"""What both fixtures of the conformance suite check in every HTTP request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

__all__ = ["from_loopback"]

_HERE = ("localhost", "127.0.0.1", "::1")


@web.middleware
async def from_loopback(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse requests that a page of another site has made through a name of its own."""
    named = [f"//{request.headers.get('Host', '')}", request.headers.get("Origin", "http://localhost")]
    if any(urlsplit(each).hostname not in _HERE for each in named):
        return web.Response(status=403)
    return await handler(request)
