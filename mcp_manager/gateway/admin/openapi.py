"""The description of the admin API (OpenAPI 3.1); its schemas come from the structs that requests and responses are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_type_hints

import msgspec
from aiohttp import web

from mcp_manager._version import __version__
from mcp_manager.calls.call_log import FlightRecord
from mcp_manager.config import ManagerConfig, ServeConfig, ServerConfig, ViewConfig
from mcp_manager.events.child_output import StderrLine
from mcp_manager.gateway.admin.bodies import NewServer, Replacement, Scale
from mcp_manager.gateway.admin.configuration import ConfigurationChange, ReloadResult
from mcp_manager.gateway.admin.pages import LONGEST_CURSOR, MOST_ON_A_PAGE
from mcp_manager.gateway.admin.problems import CONTENT_TYPE, Problem
from mcp_manager.gateway.admin.records import GatewaySnapshot
from mcp_manager.gateway.admin.requests import json_response, take_query
from mcp_manager.gateway.admin.server_details import ShownTool
from mcp_manager.observe.views import ServerView
from mcp_manager.serialization.records import schema_of_own

__all__ = ["OPERATIONS", "Operation", "description", "routes"]

_JSON: Final = "application/json"
_REFERENCE: Final = "#/components/schemas/{name}"
_VIEW: Final = get_type_hints(ServerView)

ServerEntry: Any = msgspec.defstruct(
    "ServerEntry", [*_VIEW.items(), ("revision", str)], namespace={"__doc__": "One server, as lists show it."}
)
Server: Final = msgspec.defstruct(
    "Server",
    [*_VIEW.items(), ("revision", str), ("config", ServerConfig)],
    namespace={"__doc__": "One server, with its configuration without secrets."},
)

ServerList: Final = msgspec.defstruct(
    "ServerList",
    [("servers", list[ServerEntry]), ("next", str | None)],
    namespace={"__doc__": "A page of servers; `next` is the cursor of the next one, null on the last."},
)
ToolList: Final = msgspec.defstruct("ToolList", [("tools", list[ShownTool])])
FlightList: Final = msgspec.defstruct("FlightList", [("flights", list[FlightRecord])])
StderrList: Final = msgspec.defstruct("StderrList", [("lines", list[StderrLine])])
ViewList: Final = msgspec.defstruct("ViewList", [("views", dict[str, ViewConfig])])
_TABLES: Final[list[Any]] = [
    ("servers", dict[str, ServerConfig]),
    ("manager", ManagerConfig, ManagerConfig()),
    ("serve", ServeConfig, ServeConfig()),
    ("views", dict[str, ViewConfig], {}),
]
NewConfiguration: Final = msgspec.defstruct("NewConfiguration", _TABLES)
Configuration: Final = msgspec.defstruct(
    "Configuration", [*_TABLES, ("path", str | None, None), ("problem", str | None, None)]
)
"""What the responses are that have no struct of their own."""

_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    "description": "The id of the server",
}
_SECONDS: Final = {"type": "number", "minimum": 0, "maximum": 3600}
_COUNT: Final = {"type": "integer", "minimum": 1, "maximum": 10_000}
_PAGE: Final = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST_ON_A_PAGE, "default": MOST_ON_A_PAGE},
    "cursor": {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_CURSOR,
        "description": "`next` of the page before",
    },
}
_FLAG: Final = {"type": "boolean"}
_WAIT: Final = {"wait": {"const": "ready"}, "timeout_s": _SECONDS}
_MATCH: Final = ("If-Match",)
_ANY_TIME: Final = (400, 401, 403, 503)
"""What every request may be answered with."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one resource.

    Parameters
    ----------
    method, path
        Which.
    summary
        What it does.
    answers
        The struct of the body by status; ``None`` without a body.
    body
        The struct of the body of the request; ``None`` without one.
    query
        The schemas of its parameters by name.
    fields
        The header fields that it heeds.
    problems
        The statuses of its problems, beside those that every request may have.
    needs_body
        Whether the body must be there.
    """

    method: str
    path: str
    summary: str
    answers: Mapping[int, Any]
    body: Any = None
    query: Mapping[str, Any] = {}
    fields: tuple[str, ...] = ()
    problems: tuple[int, ...] = ()
    needs_body: bool = True


def _act(name: str, summary: str, **more: Any) -> Operation:
    settings = {"query": _WAIT, "problems": (404, 412, 502), **more}
    path = f"/servers/{{id}}/{name}"
    return Operation(
        method="post", path=path, summary=summary, answers={200: Server, 202: Server}, fields=_MATCH, **settings
    )


OPERATIONS: Final = (
    Operation(method="get", path="/openapi.json", summary="Describe this API", answers={200: dict[str, Any]}),
    Operation(method="get", path="/snapshot", summary="Show the fleet and the gateway", answers={200: GatewaySnapshot}),
    Operation(
        method="get",
        path="/servers",
        summary="List the servers in the order of their ids, page by page",
        answers={200: ServerList},
        query=_PAGE,
    ),
    Operation(
        method="post",
        path="/servers",
        summary="Deploy a server",
        answers={201: Server, 202: Server},
        body=NewServer,
        query=_WAIT,
        problems=(409, 413, 415, 422),
    ),
    Operation(
        method="get",
        path="/servers/{id}",
        summary="Show a server",
        answers={200: Server, 304: None},
        fields=("If-None-Match",),
        problems=(404,),
    ),
    Operation(
        method="put",
        path="/servers/{id}",
        summary="Replace the configuration of a server",
        answers={200: Server, 202: Server},
        body=ServerConfig,
        query=_WAIT,
        fields=_MATCH,
        problems=(404, 409, 412, 413, 415, 422),
    ),
    Operation(
        method="patch",
        path="/servers/{id}",
        summary="Change the configuration of a server by a merge patch (RFC 7396)",
        answers={200: Server, 202: Server},
        body=dict[str, Any],
        query=_WAIT,
        fields=_MATCH,
        problems=(404, 409, 412, 413, 415, 422),
    ),
    Operation(
        method="delete",
        path="/servers/{id}",
        summary="Remove a server, once its calls have ended",
        answers={204: None},
        query={"drain_timeout_s": _SECONDS},
        fields=_MATCH,
        problems=(404, 412),
    ),
    _act("scale", "Set how many instances a server has", body=Scale, problems=(404, 412, 413, 415, 422)),
    _act(
        "redeploy",
        "Replace the instances of a server by new ones",
        body=Replacement,
        needs_body=False,
        problems=(404, 409, 412, 413, 415, 422, 502),
    ),
    _act("suspend", "End all instances of a server, and remember how many there were", query={}),
    _act("resume", "Let a server serve that was suspended or drained", problems=(404, 412, 422, 502)),
    _act("drain", "Take a server out of traffic, and wait for its calls", query={"timeout_s": _SECONDS}),
    Operation(
        method="get",
        path="/servers/{id}/tools",
        summary="List the tools of a server, and how they compare with the pins",
        answers={200: ToolList},
        problems=(404, 502, 504),
    ),
    Operation(
        method="get",
        path="/servers/{id}/flights",
        summary="Show the latest calls of a server, newest first",
        answers={200: FlightList},
        query={"limit": _COUNT},
        problems=(404,),
    ),
    Operation(
        method="get",
        path="/servers/{id}/stderr",
        summary="Show the latest lines of the programs of a server, newest last",
        answers={200: StderrList},
        query={"limit": _COUNT},
        problems=(404, 422),
    ),
    Operation(method="get", path="/views", summary="Show the views", answers={200: ViewList}),
    Operation(method="get", path="/config", summary="Show the configuration in force", answers={200: Configuration}),
    Operation(
        method="put",
        path="/config",
        summary="Replace the configuration, or tell what that would change",
        answers={200: ConfigurationChange, 202: ConfigurationChange},
        body=NewConfiguration,
        query={"dry_run": _FLAG},
        fields=_MATCH,
        problems=(412, 413, 415, 422),
    ),
    Operation(
        method="post",
        path="/reload",
        summary="Read the file of the gateway again",
        answers={200: ReloadResult},
        problems=(409, 422),
    ),
    Operation(
        method="get",
        path="/events",
        summary="Follow what happens, as server-sent events",
        answers={200: "text/event-stream"},
        fields=("Last-Event-ID",),
    ),
)


def routes() -> list[web.RouteDef]:
    """Return the route of the description."""
    made: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        take_query(request)
        if not made:
            made.append(description())
        return json_response(made[0])

    return [web.get("/openapi.json", answer)]


def description() -> dict[str, Any]:
    """Return the description."""
    kinds: list[Any] = [Problem]
    for each in OPERATIONS:
        kinds += [kind for kind in (*each.answers.values(), each.body) if isinstance(kind, type)]
    structs = tuple(dict.fromkeys(kind for kind in kinds if issubclass(kind, msgspec.Struct)))
    _, schemas = msgspec.json.schema_components(structs, schema_hook=_schema_of, ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mcp-manager admin API", "version": __version__},
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {"Problem": {"description": "What went wrong", "content": _content(Problem, CONTENT_TYPE)}},
        },
    }


def _operation(each: Operation) -> dict[str, Any]:
    words = [word.strip("{}") for word in each.path.removesuffix(".json").strip("/").split("/")]
    parameters: list[dict[str, Any]] = [_ID] if "{id}" in each.path else []
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in each.query.items()]
    parameters += [{"name": name, "in": "header", "schema": {"type": "string"}} for name in each.fields]
    answers: dict[str, Any] = {str(status): _answer(kind) for status, kind in each.answers.items()}
    for status in sorted({*_ANY_TIME, *each.problems}):
        answers[str(status)] = {"$ref": "#/components/responses/Problem"}
    made: dict[str, Any] = {
        "operationId": "_".join([each.method, *words]),
        "summary": each.summary,
        "parameters": parameters,
        "responses": answers,
    }
    if each.body is not None:
        content = _content(each.body, "application/merge-patch+json" if each.method == "patch" else _JSON)
        made["requestBody"] = {"required": each.needs_body, "content": content}
    return made


def _answer(kind: Any) -> dict[str, Any]:
    if kind is None:
        return {"description": "No body"}
    if isinstance(kind, str):
        return {"description": "Events", "content": {kind: {"schema": {"type": "string"}}}}
    return {"description": "As asked for", "content": _content(kind, _JSON)}


def _content(kind: Any, media_type: str) -> dict[str, Any]:
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    schema = {"$ref": _REFERENCE.format(name=kind.__name__)} if is_struct else {"type": "object"}
    return {media_type: {"schema": schema}}


def _schema_of(kind: type) -> dict[str, Any]:
    return schema_of_own(kind) or {}
