"""The part of the HTTP side that aiohttp.web serves: streams, sessions that end, health, metrics; and POSTs as well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from mcp_manager.gateway.http import refusals
from mcp_manager.gateway.http.reception import Reception, cors_fields
from mcp_manager.gateway.http.web_protocol import expected, serving, unsigned
from mcp_manager.gateway.http.web_requests import WebRequest, parsed
from mcp_manager.gateway.security.authentication import Denial
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.protected_resource import WELL_KNOWN
from mcp_manager.gateway.workers.reports import Reports

__all__ = ["Condition", "Extra", "application"]

_JSON: Final = "application/json"
_NO_STORE: Final = {"Cache-Control": "no-store"}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Max-Age": "600",
}

Extra = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""Serves a request of another transport; ``None`` if it is none of it."""


class Condition(Protocol):
    """How the gateway is, for whoever asks over HTTP."""

    @property
    def is_draining(self) -> bool:
        """Whether the gateway is about to end."""

    @property
    def reports(self) -> Reports | None:
        """What all worker processes say, if there are several."""

    async def reasons(self) -> list[str]:
        """Return why the gateway is not ready; nothing if it is."""

    def description(self, principal: Principal) -> dict[str, Any]:
        """Return what is served to a principal, and where."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the page of metrics for an ``Accept`` header field, and its content type."""


class _Pages:
    """The handlers.

    Parameters
    ----------
    reception
        Takes POSTs.
    condition
        How the gateway is.
    extra
        Serves another transport; ``None`` without one.
    """

    def __init__(self, reception: Reception, condition: Condition, extra: Extra | None) -> None:
        self._reception = reception
        self._condition = condition
        self._extra = extra

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        with serving(request) as refused:
            try:
                response = await self._answered(request) if refused is None else refused
            except web.HTTPRequestEntityTooLarge:
                response = _refused(413, refusals.TOO_LARGE)
        if self._condition.is_draining and not response.prepared:
            response.force_close()
        return response

    async def _answered(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        reports = self._condition.reports
        if reports is not None and (report := await reports.answer(request, path)) is not None:
            return report
        if path == "/health" and request.method in ("GET", "HEAD"):
            return web.json_response({"status": "ok"}, headers=_NO_STORE)
        hosts = self._reception.hosts
        is_known_host = hosts.accepts_host(request.headers.get("Host", "").encode("utf-8", "surrogateescape") or None)
        if path == "/ready" and request.method in ("GET", "HEAD"):
            return await self._ready(request, is_known_host)
        if request.method == "POST" and self._extra is None:
            return await self._post(request)
        origin_text = request.headers.get("Origin")
        origin = None if origin_text is None else origin_text.encode("utf-8", "surrogateescape")
        accounting = self._reception.security.accounting
        if not is_known_host:
            accounting.deny(WebRequest(request, b""), "host")
            return _refused(403, refusals.BAD_HOST)
        if not hosts.accepts_origin(origin):
            accounting.deny(WebRequest(request, b""), "origin")
            return _refused(403, refusals.BAD_ORIGIN)
        fields = CIMultiDict[str]() if origin is None else parsed(cors_fields(origin))
        if path.startswith(WELL_KNOWN) and request.method in ("GET", "HEAD"):
            return self._metadata(request, path, fields)
        if self._extra is not None:
            served = await self._extra(request)
            if served is not None:
                return served
            if request.method == "POST":
                return await self._post(request)
        if request.method == "OPTIONS" and (path.startswith(WELL_KNOWN) or self._reception.answers_preflight(path)):
            # It comes without credentials, and tells nothing of what there is.
            asked = request.headers.get("Access-Control-Request-Headers", "")
            allowed = {"Access-Control-Allow-Headers": asked} if asked.isascii() and asked.isprintable() else {}
            return web.Response(status=204, headers={**fields, **_PREFLIGHT, **allowed, "Allow": refusals.ALLOWED})
        if request.method in ("GET", "DELETE") and self._reception.endpoints.is_endpoint(
            path.encode("latin-1", "replace")
        ):
            incoming = WebRequest(request, b"")
            self._reception.take_session_request(incoming)
            return await incoming.serve()
        return await self._page(request, path, fields)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        incoming = WebRequest(request, await request.read())
        self._reception.take(incoming)
        return await incoming.serve()

    async def _page(self, request: web.Request, path: str, fields: CIMultiDict[str]) -> web.StreamResponse:
        reception = self._reception
        found = await reception.security.identify(WebRequest(request, b""))
        if isinstance(found, Denial):
            reception.security.accounting.deny(WebRequest(request, b""), found.cause)
            reception.traffic.count("", "", found.status)
            return _refused(found.status, found.body, CIMultiDict({**parsed(found.fields), **fields}))
        if reception.endpoints.find(path, found.grant) is not None:
            return _refused(405, refusals.NO_METHOD, {**fields, "Allow": refusals.ALLOWED})
        if path not in ("/", "/metrics") or request.method not in ("GET", "HEAD"):
            reception.traffic.count("", "", 404)
            return _refused(404, refusals.NOT_FOUND, fields)
        if path == "/":
            text = msgspec.json.format(msgspec.json.encode(self._condition.description(found)), indent=2)
            return web.Response(body=text + b"\n", content_type=_JSON, headers={**fields, **_NO_STORE})
        if not reception.security.is_operator(found):
            reception.security.accounting.deny(WebRequest(request, b""), "rule", found.name)
            reception.traffic.count("", "", 403)
            return _refused(403, refusals.NO_OPERATOR, fields)
        body, content_type = await self._condition.metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={**_NO_STORE, "Content-Type": content_type})

    def _metadata(self, request: web.Request, path: str, fields: CIMultiDict[str]) -> web.Response:
        """Tell where clients get tokens (RFC 9728, section 3): they have none yet."""
        host = request.headers.get("Host", "").encode("utf-8", "surrogateescape")
        document = self._reception.security.authentication.metadata.document(path, host)
        if document is None:
            return _refused(404, refusals.NOT_FOUND, fields)
        return web.Response(body=document, content_type=_JSON, headers=fields)

    async def _ready(self, request: web.Request, is_known_host: bool) -> web.Response:
        reasons = await self._condition.reasons()
        shown: dict[str, Any] = {"ready": not reasons}
        if reasons and is_known_host:
            security = self._reception.security
            found = await security.identify(WebRequest(request, b""))
            # The names of servers are not for everybody.
            if not isinstance(found, Denial) and security.is_operator(found):
                shown["reasons"] = reasons
        return web.json_response(shown, status=503 if reasons else 200, headers=_NO_STORE)


def application(
    reception: Reception,
    condition: Condition,
    max_request_bytes: int,
    extra: Extra | None = None,
    mounts: Sequence[tuple[str, web.Application]] = (),
) -> web.Application:
    """Return the application of a gateway.

    Parameters
    ----------
    reception
        Takes POSTs.
    condition
        How the gateway is.
    max_request_bytes
        The most bytes in a body.
    extra
        Serves another transport, if it knows the path.
    mounts
        Further applications, each with the beginning of the paths that it serves.
    """
    app = web.Application(client_max_size=max_request_bytes)
    app.on_response_prepare.append(unsigned)
    for prefix, mounted in mounts:
        app.add_subapp(prefix, mounted)
    app.router.add_route("*", "/{path:.*}", _Pages(reception, condition, extra).handle, expect_handler=expected)
    return app


def _refused(status: int, body: bytes, fields: Any = None) -> web.Response:
    return web.Response(status=status, body=body, headers={**(fields or {}), "Content-Type": _JSON})
