"""Every argument of every public method, given what it is not: an error of ours, at once, and nothing was done."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import fractions
import inspect
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from support.calls import CALM

from mcp_manager import (
    Caller,
    ConfigError,
    Handlers,
    InvalidRequestError,
    ManagerConfig,
    McpManager,
    McpManagerError,
    NotReadyError,
    ProtocolError,
    PyMcpManager,
    RpcError,
    Selector,
    ToolNotFoundError,
)
from mcp_manager.auth.options import AuthOptions
from mcp_manager.calls.for_caller import ForCaller
from mcp_manager.fleet.rollout import Shift
from mcp_manager.testing.scripted import ScriptedServer

URL: Final = "http://127.0.0.1:9/mcp"

PLAUSIBLE: Final[dict[str, Any]] = {
    "server_id": "a",
    "config": {"url": URL, "connect": "lazy"},
    "config_json": '{"url": "http://127.0.0.1:9/mcp", "connect": "lazy"}',
    "request_json": '{"method":"ping"}',
    "request": b'{"method":"ping"}',
    "method": "ping",
    "instances": 1,
    "on": False,
    "name": "echo",
    "uri": "file:///x",
    "reference": {"type": "ref/prompt", "name": "p"},
    "argument": "a",
    "value": "v",
    "task_id": "1",
    "level": "info",
    "roots": [],
    "caller": Caller("alice"),
    "server_ids": ["a"],
    "path": "/no/such/fleet.toml",
}


class Odd:
    """An object of nobody's."""

    def __repr__(self) -> str:
        return "an odd thing"


WRONG_PARAMETERS: Final[list[tuple[dict[str, Any], type[Exception], str]]] = [
    ({"handler": {}}, TypeError, r"McpManager\(\) got an unexpected keyword argument 'handler'"),
    ({"handlers": 5}, ConfigError, "handlers must be a mapping"),
    ({"handlers": {"x/ask": 5}}, ConfigError, "functions by method name, which that of 'x/ask' is not"),
    ({"capabilities": 5}, ConfigError, "capabilities must be a mapping"),
    ({"trace_context": 5}, ConfigError, "trace_context must be a function"),
    ({"on_state_change": 5}, ConfigError, "on_state_change must be a function"),
]


@pytest.mark.parametrize("kind", [McpManager, PyMcpManager])
@pytest.mark.parametrize(("parameters", "error", "said"), WRONG_PARAMETERS)
def test_a_wrong_parameter_is_an_error_when_the_manager_is_made(
    kind: type, parameters: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        kind(**parameters)


def test_a_wrong_handler_is_an_error_when_the_handlers_are_made() -> None:
    wrong: Any = 5
    with pytest.raises(ConfigError, match="sampling must be a function"):
        Handlers(sampling=wrong)
    with pytest.raises(ConfigError, match="others must be functions by method name"):
        Handlers(others={"x/ask": wrong})


def test_a_manager_that_cannot_be_made_leaves_no_thread() -> None:
    provider: Any = {"a": 5}
    manager = PyMcpManager(credentials=provider)
    with pytest.raises(ConfigError, match="credentials must be functions by server id"):
        manager.start()
    # The check for leaks finds a thread that is left.


class Hostile:
    """One that cannot even be shown, compared or hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise ZeroDivisionError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError


ODD: Final[list[Any]] = [
    None,
    True,
    "",
    "5",
    "\ud800",
    "x" * 100_000,
    b"5",
    bytearray(b"5"),
    -1,
    0,
    1.5,
    -0.5,
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    -(10**400),
    decimal.Decimal("1"),
    decimal.Decimal("nan"),
    1j,
    [],
    [1],
    {},
    {1: 2},
    {"a": {1, 2}},
    {"\ud800": 1},
    (),
    {1, 2},
    object,
    Odd(),
    Hostile(),
    Selector(tag="x"),
    range(3),
    ...,
]
"""Values of every kind; what happens to be right for a parameter is taken."""

LONGEST: Final = 2_000

NEVER_ASKED: Final = {"stop", "stop_async", "start", "start_async"}


def methods(kind: type) -> list[str]:
    return [
        name
        for name, each in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and name not in NEVER_ASKED
    ]


def calls(method: Callable[..., Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Make a call for every parameter and odd value, the other parameters as they should be."""
    parameters = [each for each in inspect.signature(method).parameters.values() if each.kind is not each.VAR_KEYWORD]
    usual = {each.name: PLAUSIBLE[each.name] for each in parameters if each.default is each.empty}
    names = [each.name for each in parameters]
    if len(names) < len(inspect.signature(method).parameters):
        # Options that are declared together.
        names += Shift.__annotations__
    if "timeout" in names:
        usual["timeout"] = 0.01
    for name in names:
        for number, odd in enumerate(ODD):
            given = {**usual, name: odd}
            yield f"{method.__name__}({name}=ODD[{number}])", lambda given=given: method(**given)  # type: ignore[misc]


@pytest.mark.parametrize("name", methods(ForCaller))
async def test_calls_for_a_caller(name: str) -> None:
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig()) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "request_timeout_s": 0.2})
            surprises = []
            for told, call in calls(getattr(manager.for_caller(Caller("alice")), name)):
                try:
                    await asyncio.wait_for(call(), 2.0)
                except McpManagerError:
                    continue
                except BaseException as error:
                    surprises.append(f"{told}: {type(error).__name__}: {error}"[:300])
            assert not surprises, "\n".join(surprises)


@pytest.mark.parametrize("name", methods(McpManager))
async def test_a_manager_on_its_loop(name: str) -> None:
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig()) as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "request_timeout_s": 0.2})
            surprises = []
            for told, call in calls(getattr(manager, name)):
                if manager.health().total_servers != 1:
                    for each in manager.servers():
                        await manager.undeploy(each.id)
                    await manager.deploy("a", {"url": server.url, **CALM, "request_timeout_s": 0.2})
                try:
                    result = call()
                    if inspect.isawaitable(result):
                        await asyncio.wait_for(result, 2.0)
                except McpManagerError as error:
                    if len(str(error)) > LONGEST and not isinstance(error, RpcError):
                        surprises.append(f"{told}: a message of {len(str(error))} characters")
                except BaseException as error:
                    surprises.append(f"{told}: {type(error).__name__}: {error}"[:300])
            assert not surprises, "\n".join(surprises)


@pytest.mark.parametrize("name", [each for each in methods(PyMcpManager) if not each.endswith("_async")])
def test_the_documented_manager(name: str) -> None:
    with ScriptedServer() as server, PyMcpManager() as manager:
        config = json.dumps({"url": server.url, **CALM, "request_timeout_s": 0.2})
        manager.deploy_server("a", config)
        surprises = []
        for told, call in calls(getattr(manager, name)):
            if manager.get_health_status().total_servers != 1:
                for each in manager.list_servers():
                    manager.undeploy_server(each.id)
                manager.deploy_server("a", config)
            try:
                call()
            except McpManagerError as error:
                if len(str(error)) > LONGEST and not isinstance(error, RpcError):
                    surprises.append(f"{told}: a message of {len(str(error))} characters")
            except BaseException as error:
                surprises.append(f"{told}: {type(error).__name__}: {error}"[:300])
        assert not surprises, "\n".join(surprises)


@pytest.mark.parametrize("kind", [McpManager, PyMcpManager, Selector])
def test_nothing_is_made_of_what_it_is_not_made_of(kind: type) -> None:
    surprises = []
    parameters = inspect.signature(kind).parameters.values()
    names = {each.name for each in parameters}
    if "authorization" in names:
        names = names - {"authorization"} | AuthOptions.__annotations__.keys()
    for name in sorted(names):
        for number, odd in enumerate(ODD):
            try:
                kind(**{name: odd})
            except McpManagerError as error:
                assert any(each in str(error) for each in (name, "config", "needs a tag")), str(error)
            except BaseException as error:
                surprises.append(f"{kind.__name__}({name}=ODD[{number}]): {type(error).__name__}: {error}"[:300])
    assert not surprises, "\n".join(surprises)


# Too large for a float.
HUGE: Final = fractions.Fraction(10**400)
TIMED: Final = [
    name for name in methods(McpManager) if "timeout" in inspect.signature(getattr(McpManager, name)).parameters
]
NO_SECONDS: Final = ["5", b"5", True, -1, -0.001, math.nan, -math.inf, -HUGE, decimal.Decimal(5), [], 1j]


@pytest.mark.parametrize("name", TIMED)
async def test_one_check_of_timeouts_before_anything_is_sent(name: str) -> None:
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig()) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            before = len(server.requests)
            method = getattr(manager, name)
            wanted = {
                each: PLAUSIBLE[each]
                for each, parameter in inspect.signature(method).parameters.items()
                if parameter.default is inspect.Parameter.empty
            }
            if name == "execute_text":
                wanted["request"] = PLAUSIBLE["request_json"]
            targets: list[dict[str, Any]] = [{}]
            if "Selector" in str(inspect.signature(method).parameters.get("server_id", "")):
                targets.append({"server_id": Selector(server_type="generic")})
            for target in targets:
                for wrong in NO_SECONDS:
                    with pytest.raises(InvalidRequestError, match="timeout must be a number of seconds from 0, not "):
                        await method(**{**wanted, **target}, timeout=wrong)
            assert len(server.requests) == before
            for right in (math.inf, 10**400, HUGE, fractions.Fraction(5)):
                with contextlib.suppress(RpcError, ProtocolError, ToolNotFoundError):
                    await asyncio.wait_for(method(**wanted, timeout=right), 20)


async def test_text_is_no_number_and_a_number_no_text() -> None:
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig()) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            before = len(server.requests)
            calls: list[tuple[str, Any]] = [
                ("name must be a string, not 5", manager.call_tool("a", 5)),  # type: ignore[arg-type]
                ("arguments must be a mapping, not 'x'", manager.call_tool("a", "echo", "x")),  # type: ignore[arg-type]
                ("meta must be a mapping, not of type list", manager.call_tool("a", "echo", meta=[])),  # type: ignore[arg-type]
                ("key must be a string, not int", manager.call_tool("a", "echo", key=5)),  # type: ignore[arg-type]
                ("uri must be a string, not None", manager.read_resource("a", None)),  # type: ignore[arg-type]
                ("value must be a string", manager.complete("a", {"type": "ref/prompt"}, "x", 1)),  # type: ignore[arg-type]
                ("task_id must be a string", manager.get_task("a", 7)),  # type: ignore[arg-type]
                ("ttl_s must be a number", manager.start_task("a", "echo", ttl_s="60")),  # type: ignore[arg-type]
                ("must be bytes, not str", manager.execute_raw("a", '{"method":"ping"}')),  # type: ignore[arg-type]
                ("min must be an integer from 0, not -1", manager.wait_ready(-1)),
                ("server_ids must be a collection", manager.list_all_tools("a")),
                ("no log level 'loud'", manager.set_log_level("a", "loud")),  # type: ignore[arg-type]
                ("on must be true or false, not 'false'", manager.set_maintenance("a", "false")),  # type: ignore[arg-type]
            ]
            for match, call in calls:
                with pytest.raises(InvalidRequestError, match=match):
                    await call
            assert len(server.requests) == before
            assert manager.server_state("a") == "Healthy"


async def test_a_wait_that_is_over_says_who_was_not_ready_and_why() -> None:
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig()) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            for number in range(7):
                await manager.deploy(f"gone-{number}", {"url": URL, **CALM, "connect_timeout_s": 0.5})
            with pytest.raises(NotReadyError) as caught:
                await manager.wait_ready(timeout=0.05)
            assert isinstance(caught.value, TimeoutError)
            head, *lines = str(caught.value).split("\n")
            assert head == "1 of 8 servers ready after 0.05 s:"
            for number, line in enumerate(lines[:5]):
                assert line.startswith(f"  gone-{number} is Unhealthy (not connected): cannot connect to {URL[:-4]}: ")
            assert lines[5:] == ["  and 2 more", "(wait longer with timeout=, or for fewer servers with min=)"]
            assert list(caught.value.missing) == [f"gone-{number}" for number in range(7)]
            assert f"  gone-0 is {caught.value.missing['gone-0']}" == lines[0]
            assert caught.value.to_dict()["missing"] == caught.value.missing
            with pytest.raises(NotReadyError, match="1 of 3 servers ready"):
                await manager.wait_ready(3, timeout=0.0)
            await manager.undeploy("a")
            for number in range(1, 7):
                await manager.undeploy(f"gone-{number}")
            with pytest.raises(NotReadyError, match=r"^0 of 1 server ready after 0.05 s: gone-0 is Unhealthy"):
                await manager.wait_ready(timeout=0.05)
            await manager.undeploy("gone-0")
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.wait_ready(1, timeout=5)


async def test_a_manager_is_shown_with_its_phase_and_its_servers() -> None:
    manager = McpManager({"a": URL})
    shown = [repr(McpManager()), repr(manager)]
    async with manager:
        await manager.deploy("b", URL)
        shown.append(repr(manager))
    assert shown == [
        "<McpManager: not started, 0 servers>",
        "<McpManager: not started, 1 server>",
        "<McpManager: running, 2 servers>",
    ]
    assert repr(manager) == "<McpManager: stopped, 2 servers>"
    threaded = PyMcpManager({"a": URL})
    assert repr(threaded) == "<PyMcpManager: not started, 1 server>"
    async with threaded:
        assert repr(threaded) == "<PyMcpManager: running, 1 server>"
    assert repr(threaded) == "<PyMcpManager: stopped, 1 server>"
