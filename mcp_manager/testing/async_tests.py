"""Fixtures on the event loop of a test, whichever plugin runs it: pytest-asyncio in any mode, or anyio."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from mcp_manager.testing.leaks import LeakCheck

if TYPE_CHECKING:
    from mcp_manager.config import ManagerConfig
    from mcp_manager.manager import McpManager

__all__ = ["loop_fixture"]

_SCOPES: Final = ("function", "class", "module", "package", "session")
_NAME: Final = "mcp_manager.testing fixtures for {}"
# The iterations of a loop in which closed connections are notified; a task that needs more was not awaited.
_CLOSING_PASSES: Final = 20

_Framework = Literal["asyncio", "anyio"]


async def _mcp_fleet(mcp_fleet_config: ManagerConfig | None) -> AsyncIterator[McpManager]:
    from mcp_manager.manager import McpManager  # noqa: PLC0415 - for this fixture alone

    async with McpManager(mcp_fleet_config) as manager:
        yield manager


async def _task_watch(_leak_check: LeakCheck) -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left: set[asyncio.Task[Any]] = set()
    for _ in range(_CLOSING_PASSES):
        mine = {asyncio.current_task()}
        left = {task for task in asyncio.all_tasks() - before - mine if not _is_of_a_runner(task)}
        if not left:
            return
        await asyncio.sleep(0)
    _leak_check.note_tasks([f"a task is still pending: {task!r}" for task in left])


def _is_of_a_runner(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task is of anyio's own: it has one for each step of a test."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")


async def _loop_begun() -> str:
    """Have the loop made, and return what the names of its executor's threads begin with."""
    if hasattr(asyncio.get_running_loop(), "_default_executor"):
        return "asyncio_"
    # uvloop gives them no name of their own: one of them tells.
    return (await asyncio.to_thread(threading.current_thread)).name.rpartition("_")[0] + "_"


def loop_fixture(request: pytest.FixtureRequest, name: str) -> str | None:
    """Return the fixture of this name on the loop of a test.

    Parameters
    ----------
    request
        Of the fixture that asks.
    name
        ``mcp_fleet``, ``task_watch`` or ``loop_begun``.

    Returns
    -------
    The name under which ``getfixturevalue`` finds it; ``None`` for a test that runs on no loop of asyncio.
    """
    framework = _framework(request)
    if framework is None:
        return None
    plugins = request.config.pluginmanager
    plugin = _NAME.format(framework)
    if not plugins.has_plugin(plugin):
        plugins.register(_on_asyncio() if framework == "asyncio" else _on_anyio(), plugin)
    scope = _loop_scope(request) if framework == "asyncio" else "function"
    return f"_{name}_on_{framework}_{scope}"


def _framework(request: pytest.FixtureRequest) -> _Framework | None:
    if request.config.pluginmanager.has_plugin("asyncio"):
        from pytest_asyncio import is_async_test  # noqa: PLC0415 - if it is installed

        if is_async_test(request.node):
            return "asyncio"
    if "anyio_backend" in request.fixturenames and inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        backend = request.getfixturevalue("anyio_backend")
        return "anyio" if (backend if isinstance(backend, str) else backend[0]) == "asyncio" else None
    return None


def _loop_scope(request: pytest.FixtureRequest) -> str:
    marker = request.node.get_closest_marker("asyncio")
    asked = (marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")) if marker is not None else None
    if asked is not None:
        return str(asked)
    try:
        return str(request.config.getini("asyncio_default_test_loop_scope") or "function")
    except (KeyError, ValueError):
        return "function"


_FUNCTIONS: Final[dict[str, Any]] = {"mcp_fleet": _mcp_fleet, "task_watch": _task_watch, "loop_begun": _loop_begun}


def _on_asyncio() -> ModuleType:
    import pytest_asyncio  # noqa: PLC0415 - if it is installed

    if not hasattr(pytest_asyncio.plugin, "pytest_fixture_setup"):
        # Older ones look for async fixtures when they collect tests, and never again.
        pytest.fail("the fixtures of mcp_manager.testing need pytest-asyncio 1.1 or newer", pytrace=False)
    holder = ModuleType("mcp_manager_fixtures_on_asyncio")
    for scope in _SCOPES:
        for name, function in _FUNCTIONS.items():
            own = f"_{name}_on_asyncio_{scope}"
            setattr(holder, own, pytest_asyncio.fixture(name=own, loop_scope=scope)(_copy(function)))
    return holder


def _on_anyio() -> ModuleType:
    holder = ModuleType("mcp_manager_fixtures_on_anyio")
    for name, function in _FUNCTIONS.items():
        own = f"_{name}_on_anyio_function"
        setattr(holder, own, pytest.fixture(name=own)(_copy(function)))
    return holder


def _copy(function: FunctionType) -> Callable[..., Any]:
    """Return a function of its own, since a fixture leaves its mark on what it is made of."""
    copy = FunctionType(function.__code__, function.__globals__, function.__name__)
    copy.__annotations__ = dict(function.__annotations__)
    return copy
