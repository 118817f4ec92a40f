"""Every public record as plain data: for ``json``, msgspec, orjson, pydantic and FastAPI, and back again."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import json
import pickle
from datetime import UTC, datetime
from typing import Any, get_args, get_type_hints, is_typeddict

import fastapi
import fastmcp
import jsonschema_rs
import msgspec
import orjson
import pydantic
import pytest

import mcp_manager
from mcp_manager import (
    Applied,
    AuthConfig,
    CallToolResult,
    ChildExited,
    ConfigProblem,
    FleetTool,
    ManagerConfig,
    PyHealthStatus,
    PyServerInfo,
    ServerConfig,
    ServerState,
    ServerView,
    TelemetryConfig,
    TextContent,
    Tool,
    ToolCatalog,
    ToolsConfig,
    UnknownContent,
)
from mcp_manager.serialization import ImmutableDict, View

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HEALTH = PyHealthStatus(
    total_servers=3, healthy_servers=1, degraded_servers=1, unhealthy_servers=1, avg_response_time_ms=7
)
INFO = PyServerInfo(id="a", name="A", server_type="mcp", state="Healthy", priority=3)
VIEW = ServerView(
    id="a",
    name="A",
    server_type="mcp",
    state=ServerState.DEGRADED,
    reasons=("slow",),
    priority=3,
    tags=("x", "y"),
    transport="http",
    circuit="Closed",
    desired=1,
    ready=1,
    draining=0,
    protocol_version=None,
    identity=None,
    faults={"odd": 2},
    last_error=None,
    pids=(1, 2),
    restarts={"exit": 1},
    tools=ToolsConfig(allow=("a*",)),
    last_exit=ChildExited(at=AT, monotonic_ns=3, server_id="a", instance=0, pid=4, reason="exit 3"),
)
VIEWS: list[Any] = [HEALTH, INFO, VIEW]

# Public classes that are no values: what acts, what raises, constants, and what holds functions and credentials.
NO_RECORDS = {
    *("CallError", "Caller", "CredentialProvider", "EventStream", "ExpositionStream", "FileTokenStore", "FleetChange"),
    *("ForCaller", "Handlers", "LoopbackRedirect", "McpManager", "MemoryTokenStore", "MetricsCollector", "PyForCaller"),
    *("PyMcpManager", "RedirectHandler", "ServerObject", "StderrLines", "TokenStore"),
}
RECORDS = [
    kind
    for name in mcp_manager.__all__
    if inspect.isclass(kind := getattr(mcp_manager, name))
    and name not in NO_RECORDS
    and not is_typeddict(kind)
    and not issubclass(kind, Exception | str | int)
]


def sample(kind: type[Any]) -> Any:
    """A record of a class, with a value in every field that needs one."""
    for view in VIEWS:
        if type(view) is kind:
            return view
    hints = get_type_hints(kind)
    if kind is ConfigProblem:
        return ConfigProblem("f.toml", 1, 2, "wrong")
    if kind is mcp_manager.Selector:
        return kind(tag="x")
    fields = msgspec.structs.fields(kind)
    needed = [
        each for each in fields if each.default is msgspec.NODEFAULT and each.default_factory is msgspec.NODEFAULT
    ]
    return kind(**{each.name: _value_of(hints[each.name]) for each in needed})


def _value_of(hint: Any) -> Any:
    simple = {str: "é", int: 3, float: 1.5, bool: True, bytes: b"x", datetime: AT, Tool: Tool(name="t"), Any: 1}
    if hint in simple:
        return simple[hint]
    if type(None) in get_args(hint):
        return None
    if isinstance(hint, type) and issubclass(hint, ServerState):
        return ServerState.HEALTHY
    if hint in RECORDS:
        return sample(hint)
    if "ContentBlock" in str(hint) or "TextContent" in str(hint):
        return TextContent(text="x")
    for literal in ("working", "ready", "not_sent"):
        if literal in str(hint):
            return literal
    empty: dict[str, Any] = {"tuple": (), "list": [], "dict": {}}
    return empty.get(str(hint).partition("[")[0], "é")


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_every_record_is_plain_data(kind: type[Any]) -> None:
    record = sample(kind)
    plain = record.to_dict()
    assert type(plain) is dict
    # Whatever json makes of it is the same: no tuples, no dates, no enumerations.
    assert json.loads(json.dumps(plain)) == plain
    assert orjson.loads(record.to_json()) == plain
    assert isinstance(record.to_json(), bytes)


@pytest.mark.parametrize(
    "kind", [each for each in RECORDS if each is not ConfigProblem], ids=lambda kind: kind.__name__
)
def test_every_record_goes_through_pydantic_and_comes_back(kind: type[Any]) -> None:
    record = sample(kind)
    adapter = pydantic.TypeAdapter(kind)
    assert adapter.validate_python(record) is record
    text = adapter.dump_json(record)
    assert json.loads(text) == adapter.dump_python(record) == record.to_dict()
    assert adapter.validate_json(text) == record == kind.from_dict(record.to_dict())
    for mode in ("validation", "serialization"):
        schema = adapter.json_schema(mode=mode)
        assert schema["title"] == kind.__name__
        assert jsonschema_rs.validator_for(schema).is_valid(record.to_dict())
        assert not jsonschema_rs.validator_for(schema).is_valid(3)
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_python(3)


def test_records_are_fields_of_models() -> None:
    class Status(pydantic.BaseModel):
        health: PyHealthStatus
        servers: list[ServerView]
        result: CallToolResult | None = None

    result = CallToolResult(content=[TextContent(text="x"), UnknownContent.from_dict({"type": "video", "n": 1})])
    status = Status(health=HEALTH, servers=[VIEW], result=result)
    assert status.health is HEALTH and status.servers[0] is VIEW
    again = Status.model_validate_json(status.model_dump_json())
    assert again == status
    assert again.servers[0].last_exit == VIEW.last_exit
    assert again.result is not None and again.result.to_dict() == result.to_dict()
    schema = Status.model_json_schema()
    assert schema["properties"]["health"] == {"$ref": "#/$defs/PyHealthStatus"}
    assert schema["$defs"]["PyHealthStatus"]["properties"]["total_servers"] == {"type": "integer"}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_views_are_dicts_for_whatever_encodes_dicts(view: Any) -> None:
    plain = view.to_dict()
    assert json.loads(json.dumps(view)) == json.loads(json.dumps(view, indent=1)) == plain
    assert orjson.loads(orjson.dumps(view)) == msgspec.json.decode(msgspec.json.encode(view)) == plain
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(view)) == plain
    assert list(view) == list(plain) == [name for name in get_type_hints(type(view)) if not name.startswith("_")]
    assert pydantic.TypeAdapter(dict[str, Any]).validate_python(dict(view)) == dict(view)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_views_are_values(view: Any) -> None:
    kind = type(view)
    for twin in (
        copy.copy(view),
        copy.deepcopy(view),
        pickle.loads(pickle.dumps(view)),
        kind._of({name: getattr(view, name) for name in view}),
    ):
        assert type(twin) is kind and twin == view and hash(twin) == hash(view) and repr(twin) == repr(view)
        assert all(getattr(twin, name) == getattr(view, name) for name in view)
    assert kind(**{name: getattr(view, name) for name in reversed(list(view))}) == view
    with pytest.raises(AttributeError):
        view.name = 3
    with pytest.raises(AttributeError):
        view.other = 3
    for change in (
        lambda: view.update(id=1),
        lambda: view.clear(),
        lambda: view.pop("id"),
        lambda: view.__setitem__("id", 3),
        lambda: view.__ior__({"id": 3}),
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    for copied in (view, pickle.loads(pickle.dumps(view)), kind.from_dict(view.to_dict())):
        for value in filter(lambda each: isinstance(each, dict), map(copied.get, copied)):
            with pytest.raises(TypeError, match="cannot be changed"):
                value["x"] = 1
    with pytest.raises(TypeError, match="no field 'colour'"):
        kind(colour=1)
    with pytest.raises(TypeError, match="missing"):
        kind()


def test_attributes_have_the_values_and_items_the_plain_data() -> None:
    assert repr(HEALTH) == (
        "PyHealthStatus(total_servers=3, healthy_servers=1, degraded_servers=1, unhealthy_servers=1, "
        "avg_response_time_ms=7, loop_lag_ms=0)"
    )
    assert VIEW.state is ServerState.DEGRADED and VIEW["state"] == "Degraded"
    assert VIEW.tools == ToolsConfig(allow=("a*",)) and VIEW["tools"] == {"allow": ["a*"]}
    assert isinstance(VIEW.last_exit, ChildExited) and VIEW["last_exit"]["reason"] == "exit 3"
    assert VIEW.identity is None and VIEW["identity"] is None
    match VIEW:
        case ServerView(state=ServerState.DEGRADED, tags=(first, *_)):
            assert first == "x"
        case _:
            pytest.fail("it does not match")
    assert isinstance(HEALTH, View) and isinstance(HEALTH, ImmutableDict)


def test_equal_views_have_equal_hashes() -> None:
    given = {name: getattr(VIEW, name) for name in VIEW}
    assert VIEW.state is ServerState.DEGRADED
    twin = ServerView(**{**given, "state": "Degraded"})
    assert twin == VIEW and hash(twin) == hash(VIEW) and len({twin, VIEW}) == 1
    other = ServerView(**{**given, "state": "Healthy"})
    assert other != VIEW and hash(other) != hash(VIEW)


def test_values_of_a_view_can_be_replaced_in_a_new_one() -> None:
    other = VIEW.__replace__(ready=9, tools=None)
    assert (other.ready, other.tools, other["tools"], other.last_exit) == (9, None, None, VIEW.last_exit)
    assert VIEW.ready == 1 and VIEW.tools is not None
    with pytest.raises(TypeError, match="no field 'redy'"):
        VIEW.__replace__(redy=9)


class NotedServer(ServerView, structs=("note",)):
    """A view with a field more."""

    __slots__ = ()

    comment: str
    note: ToolsConfig | None = None
    ready: int = 7


def test_a_view_may_be_extended() -> None:
    given = {name: getattr(VIEW, name) for name in VIEW if name != "ready"}
    view = NotedServer(**given, comment="c", note=ToolsConfig(allow=("a",)))
    assert (view.id, view.comment, view.ready, view.tools) == (VIEW.id, "c", 7, VIEW.tools)
    assert view.note == ToolsConfig(allow=("a",)) and view["note"] == {"allow": ["a"]}
    assert list(view) == [*VIEW, "comment", "note"]
    for twin in (NotedServer.from_dict(view.to_dict()), pickle.loads(pickle.dumps(view)), copy.deepcopy(view)):
        assert type(twin) is NotedServer and twin == view and twin.last_exit == VIEW.last_exit
    assert {"id", "comment", "note"} <= pydantic.TypeAdapter(NotedServer).json_schema()["properties"].keys()
    assert list(ServerView._fields) == list(VIEW)


def test_what_is_no_plain_data_is_no_record() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"x": deep}
    for odd in ({"structuredContent": object()}, {"structuredContent": deep}, {3j: 1}, 3):
        with pytest.raises(ValueError, match=r"."):
            CallToolResult.from_dict(odd)
        with pytest.raises(pydantic.ValidationError):
            pydantic.TypeAdapter(CallToolResult).validate_python(odd)


def test_configurations_show_no_secret_unless_asked() -> None:
    secret = "s3cr3t-0123456789"
    server = ServerConfig(
        url=f"https://u:{secret}@h/mcp?token={secret}",
        auth=AuthConfig(type="bearer", token=secret),
        headers={"X": secret},
        env={"K": secret},
        args=(f"--key={secret}",),
        tags=(f"tag {secret}",),
        hidden_texts=(secret,),
    )
    config = ManagerConfig(servers={"a": server})
    for masked in (server.to_json(), config.to_json(), pydantic.TypeAdapter(ServerConfig).dump_json(server)):
        assert secret.encode() not in masked
    assert server.to_dict()["headers"] == {"X": "***"} and server.to_dict()["auth"]["type"] == "bearer"
    whole = config.to_dict(reveal_secrets=True)
    assert whole["servers"]["a"]["auth"]["token"] == secret
    assert ManagerConfig.from_dict(whole) == config
    assert json.loads(config.to_json(reveal_secrets=True)) == whole
    oauth = AuthConfig(
        type="oauth",
        **dict.fromkeys(
            ("issuer", "authorization_endpoint", "token_endpoint", "idp_token_endpoint", "client_metadata_url"),
            f"https://u:{secret}@h/x?api_key={secret}",
        ),  # type: ignore[arg-type]
    )
    traced = ManagerConfig(telemetry=TelemetryConfig(endpoint=f"https://u:{secret}@h/?token={secret}"))
    for shown in (oauth, traced):
        assert secret not in repr(shown) and secret.encode() not in shown.to_json()
        assert secret.encode() in shown.to_json(reveal_secrets=True)
    assert oauth.to_dict()["token_endpoint"] == "https://***@h/x?api_key=***"
    # Only in the field that hides it.
    plain = ServerConfig(url="http://h", tags=("open",), env={"K": secret})
    assert plain.to_dict() == {"url": "http://h", "tags": ["open"], "env": {"K": "***"}, "instances": 1}


def test_tools_of_a_catalogue_keep_all_that_their_servers_sent() -> None:
    tool = Tool.from_dict({"name": "t", "inputSchema": {"type": "object"}, "price": 3})
    catalog = ToolCatalog(tools=(FleetTool(name="s__t", server_id="s", tool=tool),), missing={"x": "gone"})
    assert catalog.to_dict() == {
        "tools": [{"name": "s__t", "server_id": "s", "tool": tool.to_dict()}],
        "missing": {"x": "gone"},
    }
    assert tool.to_dict()["price"] == 3
    assert ToolCatalog.from_dict(json.loads(catalog.to_json())) == catalog


def web_app() -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/annotated")
    def annotated() -> PyHealthStatus:
        return HEALTH

    @app.get("/view")
    def view() -> ServerView:
        return VIEW

    @app.get("/list")
    async def several() -> list[PyServerInfo]:
        return [INFO]

    @app.get("/bare", response_model=None)
    def bare():  # type: ignore[no-untyped-def]
        return {"health": HEALTH, "view": VIEW, "result": RESULT, "applied": APPLIED}

    @app.get("/result")
    def result() -> CallToolResult:
        return RESULT

    @app.get("/unannotated")
    def unannotated():  # type: ignore[no-untyped-def]
        return RESULT

    return app


RESULT = CallToolResult.from_dict({"content": [{"type": "text", "text": "é", "odd": 1}], "cost": 3})
APPLIED = Applied(deployed=("a",), redeployed=(), undeployed=(), failed={})


async def get(app: fastapi.FastAPI, path: str) -> Any:
    """The JSON that an application answers a request with."""
    body = bytearray()
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        body.extend(message.get("body", b""))

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "headers": [], "scheme": "http", "server": ("h", 80)}
    await app(scope, receive, send)
    assert status == 200, bytes(body)
    return json.loads(bytes(body))


def test_fastapi_answers_with_records_and_describes_them() -> None:
    async def ask() -> dict[str, Any]:
        paths = ("annotated", "view", "list", "bare", "result", "unannotated", "openapi.json")
        return {path: await get(app, f"/{path}") for path in paths}

    app = web_app()
    answers = asyncio.run(ask())
    assert answers["annotated"] == HEALTH.to_dict()
    assert answers["view"] == VIEW.to_dict()
    assert answers["list"] == [INFO.to_dict()]
    assert answers["result"] == answers["unannotated"] == RESULT.to_dict()
    assert answers["bare"] == {
        "health": HEALTH.to_dict(),
        "view": VIEW.to_dict(),
        "result": RESULT.to_dict(),
        "applied": APPLIED.to_dict(),
    }
    schemas = answers["openapi.json"]["components"]["schemas"]
    assert {"PyHealthStatus", "ServerView", "PyServerInfo", "CallToolResult"} <= set(schemas)
    assert schemas["PyServerInfo"]["properties"]["priority"] == {"type": "integer"}
    assert set(schemas["PyServerInfo"]["required"]) == set(INFO)
    content = answers["openapi.json"]["paths"]["/annotated"]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/PyHealthStatus"}


@pytest.mark.parametrize("framework", ["django", "flask"])
def test_other_frameworks_answer_with_views(framework: str) -> None:
    pytest.importorskip(framework)
    if framework == "django":
        from django.conf import settings  # noqa: PLC0415
        from django.http import JsonResponse  # noqa: PLC0415

        settings.configure()
        assert json.loads(JsonResponse(VIEW).content) == VIEW.to_dict()
        return
    from flask import Flask  # noqa: PLC0415

    app = Flask(__name__)
    app.get("/")(lambda: VIEW)
    assert app.test_client().get("/").json == VIEW.to_dict()


def test_dataclasses_of_users_may_hold_records() -> None:
    @dataclasses.dataclass
    class Report:
        health: PyHealthStatus

    assert dataclasses.asdict(Report(HEALTH)) == {"health": HEALTH}
    assert ServerView(VIEW.items()) == VIEW and ServerView(VIEW.items()).last_exit == VIEW.last_exit  # type: ignore[call-arg]


def test_a_server_in_memory_is_shown_by_its_type() -> None:
    config = ServerConfig(server=fastmcp.FastMCP("s"))
    assert config.to_dict()["server"] == config.to_dict(reveal_secrets=True)["server"] == "FastMCP"


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_every_record_is_a_value(kind: type[Any]) -> None:
    record = sample(kind)
    assert pickle.loads(pickle.dumps(record)) == copy.deepcopy(record) == record
    assert repr(record).startswith(f"{kind.__name__}(")
    name = next(iter(inspect.signature(kind).parameters if kind not in map(type, VIEWS) else record))
    with pytest.raises(AttributeError):
        setattr(record, name, None)
