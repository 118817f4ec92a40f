"""The routes of the admin API, and what all of its requests have in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final

from aiohttp import web

from mcp_manager.errors import McpManagerError
from mcp_manager.gateway.admin.audit_entries import AdminEntry, deny, is_act
from mcp_manager.gateway.admin.authorization import Authorization
from mcp_manager.gateway.admin.current import FROM_SIBLING, PRINCIPAL, SERVER
from mcp_manager.gateway.admin.problems import Problem, Refusal, problem_of_error, problem_of_http
from mcp_manager.gateway.http.web_protocol import expected, serving
from mcp_manager.gateway.security.accounting import Accounting
from mcp_manager.gateway.workers.trust import Trust
from mcp_manager.runtime.background import background_task

__all__ = ["api_application", "nowhere", "page_application", "sibling_application"]

_log = logging.getLogger(__name__)

_FAULT: Final = Problem(
    title="Internal Server Error",
    status=500,
    detail="Internal error of the gateway; its log has the reason",
    delivery="unknown",
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Relay = Callable[[web.Request], Awaitable[web.Response | None]]
Answer = Callable[[Any, web.Request], Awaitable[web.StreamResponse]]


def api_application(
    routes: Iterable[web.RouteDef],
    authorization: Authorization,
    accounting: Accounting,
    is_draining: Callable[[], bool],
    relay: Relay,
    tasks: set[asyncio.Task[Any]],
) -> web.Application:
    """Return the application of the API, which belongs below ``/api/v1``.

    Parameters
    ----------
    routes
        The resources.
    authorization
        Decides who may use them.
    accounting
        Writes the audit log.
    is_draining
        Tells whether the gateway is about to end, so that connections end after their response.
    relay
        Lets another worker answer a request that belongs to it; returns ``None`` for all others.
    tasks
        Gets the acts under way: an act goes on if its client goes.
    """

    async def served(handler: Handler, request: web.Request) -> web.StreamResponse:
        if not is_act(request):
            return await _served(request, handler, relay)
        task = background_task(_served(request, handler, relay), "serve an administrator", among=tasks)
        await asyncio.wait({task})
        return task.result()

    async def answer(handler: Handler, request: web.Request) -> web.StreamResponse:
        with serving(request) as unreadable:
            response = unreadable or await _answered(request, partial(served, handler), authorization, accounting)
        if is_draining() and not response.prepared:
            response.force_close()
        return response

    return _application(routes, answer)


def sibling_application(routes: Iterable[web.RouteDef], trust: Trust) -> web.Application:
    """Return the application for other workers: it answers nobody else."""

    async def answer(handler: Handler, request: web.Request) -> web.StreamResponse:
        if not trust.shows_secret(request):
            return problem_of_http(web.HTTPNotFound())[0].response()
        FROM_SIBLING.set(True)
        SERVER.set([""])
        with serving(request):
            return await _served(request, handler, nowhere)

    return _application(routes, answer)


async def nowhere(request: web.Request) -> None:
    """Leave a request to this process."""


def page_application(routes: Iterable[web.RouteDef], authorization: Authorization) -> web.Application:
    """Return the application of the page, which belongs below ``/ui``: it needs no credentials."""

    async def answer(handler: Handler, request: web.Request) -> web.StreamResponse:
        with serving(request) as unreadable:
            return unreadable or await _page(request, handler, authorization)

    return _application(routes, answer)


def _application(routes: Iterable[web.RouteDef], answer: Answer) -> web.Application:
    """Return an application that answers each request by ``answer(handler, request)``.

    That is no middleware of aiohttp, which keeps handlers in a cache of the whole process.
    """
    app = web.Application()

    async def no_route(request: web.Request) -> web.StreamResponse:
        allowed: set[str] = set()
        for resource in known:
            allowed |= (await resource.resolve(request))[1]
        raise web.HTTPMethodNotAllowed(request.method, allowed) if allowed else web.HTTPNotFound

    for each in routes:
        more = {**each.kwargs, "expect_handler": expected}
        app.add_routes([web.RouteDef(each.method, each.path, partial(answer, each.handler), more)])
    known = list(app.router.resources())
    for path in ("", "/{path:.*}"):
        app.router.add_route("*", path, partial(answer, no_route), expect_handler=expected)
    return app


async def _page(request: web.Request, handler: Handler, authorization: Authorization) -> web.StreamResponse:
    try:
        authorization.check_source(request)
        return await handler(request)
    except Refusal as refusal:
        return refusal.problem.response(refusal.headers)
    except web.HTTPException as error:
        problem, headers = problem_of_http(error)
        return problem.response(headers)


async def _answered(
    request: web.Request, handler: Handler, authorization: Authorization, accounting: Accounting
) -> web.StreamResponse:
    try:
        authorization.check_source(request)
        principal = await authorization.admit(request)
        PRINCIPAL.set(principal)
        about = [request.match_info.get("id", "")]
        SERVER.set(about)
    except Refusal as refusal:
        deny(accounting, request, refusal.reason, refusal.principal)
        return refusal.problem.response(refusal.headers)
    if not is_act(request) or accounting.audit is None:
        return await handler(request)
    entry = AdminEntry(request, principal.name)
    status = 0
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        entry.ended(about[0], status)
        if accounting.audit is not None:
            accounting.audit.write(entry)


async def _served(request: web.Request, handler: Handler, relay: Relay) -> web.StreamResponse:
    try:
        return await relay(request) or await handler(request)
    except Refusal as refusal:
        return refusal.problem.response(refusal.headers)
    except McpManagerError as error:
        return problem_of_error(error).response()
    except web.HTTPException as error:
        problem, headers = problem_of_http(error)
        return problem.response(headers)
    except Exception:
        _log.exception("a request to the admin API failed", extra={"event": "admin_failed"})
        return _FAULT.response()
