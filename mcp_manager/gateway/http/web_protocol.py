"""The connections that aiohttp.web serves: refusals like those of the compiled code, and nothing about the software."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from mcp_manager.gateway.http import refusals
from mcp_manager.protocol.error_codes import INVALID_REQUEST

__all__ = ["WebProtocol", "unsigned"]

_BAD_REQUEST: Final = refusals.refusal(INVALID_REQUEST, "The HTTP request is malformed")


class WebProtocol(web.RequestHandler):
    """Serve a connection by aiohttp.web.

    aiohttp logs what a client does wrong with a traceback, and quotes it in a text. Both are for programs under
    development.
    """

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to what is no request, or to one whose handler has failed."""
        if status >= 500:
            # It is logged, and a response that was begun is broken off.
            super().handle_error(request, status, exc, message)
        body = refusals.internal_error(None) if status >= 500 else _BAD_REQUEST
        response = _Unsigned(status=status, body=body, content_type="application/json")
        response.force_close()
        return response


class _Unsigned(web.Response):
    """A response outside of the application, whose signals it does not get."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop("Server", None)


async def unsigned(request: web.Request, response: web.StreamResponse) -> None:
    """Take the header field off that tells clients the versions of Python and aiohttp; a signal of the application."""
    response.headers.pop("Server", None)
