"""The service: HTTP requests in, tool calls out, and log lines about both."""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiohttp import web
from opentelemetry import propagate, trace

from mcp_manager import (
    CallError,
    InvalidRequestError,
    McpManager,
    OverloadedError,
    PyHealthStatus,
    RpcError,
    ServerNotFoundError,
    ServerView,
    ToolError,
)

__all__ = ["application"]

_MANAGER: Final = web.AppKey("manager", McpManager)
_REQUEST_ID: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_tracer: Final = trace.get_tracer(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(manager: McpManager) -> web.Application:
    """Return the application; the manager must run as long as it does."""
    app = web.Application(middlewares=[_log_request])
    app[_MANAGER] = manager
    app.router.add_post("/servers/{server}/tools/{tool}", _call)
    app.router.add_get("/servers", _servers)
    app.router.add_get("/health", _health)
    return app


@web.middleware
async def _log_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Put the request's id and user on every line that is written meanwhile, and write one about the request."""
    given = request.headers.get("X-Request-Id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    context = {"request_id": request_id}
    # Whoever authenticates the users, such as a proxy in front of this service, sets this header.
    if user := request.headers.get("X-User", "")[:64]:
        context["user"] = user
    started = time.monotonic()
    status = 500
    with (
        structlog.contextvars.bound_contextvars(**context),
        _tracer.start_as_current_span(
            f"{request.method} {_route_of(request)}",
            propagate.extract(request.headers),
            trace.SpanKind.SERVER,
        ),
    ):
        try:
            response = await handler(request)
            status = response.status
            response.headers["X-Request-Id"] = request_id
            return response
        except web.HTTPException as refusal:
            status = refusal.status
            raise
        finally:
            took_ms = round((time.monotonic() - started) * 1000, 1)
            # Not decoded: a terminal obeys control characters.
            path = request.rel_url.raw_path
            _log.info("request", method=request.method, path=path, status=status, took_ms=took_ms)


def _route_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


async def _call(request: web.Request) -> web.Response:
    server_id, tool = request.match_info["server"], request.match_info["tool"]
    try:
        arguments: dict[str, Any] = json.loads(await request.read())
        timeout = float(request.query.get("timeout", 10))
    # The latter for what is nested thousands of levels deep.
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(text="the body must be JSON, and the timeout a number\n") from None
    try:
        result = await request.app[_MANAGER].call_tool(server_id, tool, arguments, timeout=timeout)
        return _json({"data": result.data})
    except ServerNotFoundError:
        return _json({"error": "no such server"}, 404)
    except InvalidRequestError as error:
        return _json({"error": error.message}, 400)
    except (ToolError, RpcError) as error:
        # The caller's mistake, most often: the server is well, and said what is wrong.
        _log.info("call refused", tool=tool, error=error)
        return _json({"error": error.message}, 422)
    except CallError as error:
        _log.warning("call failed", tool=tool, error=error)
        return _failure(error)


def _failure(error: CallError) -> web.Response:
    """Answer by what became of the call; the message, which may name hosts and files, is for the log alone."""
    said = {"error": "the server did not answer", "delivery": error.delivery}
    if error.delivery != "unknown" and (error.delivery == "not_sent" or isinstance(error, OverloadedError)):
        return _json(said, 503, {"Retry-After": str(math.ceil(error.retry_after_s or 1))})
    return _json(said, 504 if error.delivery == "unknown" else 502)


async def _servers(request: web.Request) -> web.Response:
    views: list[ServerView] = request.app[_MANAGER].servers()
    return _json(views)


async def _health(request: web.Request) -> web.Response:
    health: PyHealthStatus = request.app[_MANAGER].health()
    return _json(health, 200 if health.healthy_servers else 503)


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=json.dumps(body) + "\n", status=status, headers=headers, content_type="application/json")
