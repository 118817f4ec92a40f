"""The pytest plugin of ``mcp_manager.testing``: its fixtures, each of which imports what it needs when it is used.

pytest imports it at every start: for a test-suite that uses none of its fixtures, nothing else of the package is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp_manager import ManagerConfig, McpManager, PyMcpManager
    from mcp_manager.testing import FaultProxyFactory, FaultyServerFactory, LeakCheck, VirtualClock

__all__ = [
    "fault_proxy",
    "faulty_server",
    "leaks",
    "mcp_fleet",
    "mcp_fleet_config",
    "virtual_clock",
]


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Have pytest rewrite no ``assert`` of this package: it would compile all of it anew, which takes seconds.

    pytest marks every package that comes with a plugin for that, and has no public way to say otherwise.
    """
    marked = getattr(getattr(pluginmanager, "rewrite_hook", None), "_must_rewrite", None)
    if isinstance(marked, set):
        marked.discard("mcp_manager")


@pytest.fixture
def faulty_server(leaks: LeakCheck) -> Iterator[FaultyServerFactory]:
    """Start MCP servers that fail as the test tells them to: ``faulty_server(era=…, tools=…, transport=…)``."""
    from mcp_manager.testing.factories import faulty_servers

    with faulty_servers() as factory:
        yield factory


@pytest.fixture
def fault_proxy(leaks: LeakCheck) -> Iterator[FaultProxyFactory]:
    """Start proxies that spoil connections: ``fault_proxy(url, latency_s=…)``."""
    from mcp_manager.testing.factories import fault_proxies

    with fault_proxies() as factory:
        yield factory


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """Run coroutines in virtual time: ``virtual_clock.run(coroutine)``."""
    from mcp_manager.testing import VirtualClock

    return VirtualClock()


@pytest.fixture
def mcp_fleet_config() -> ManagerConfig | None:
    """The configuration of ``mcp_fleet``; a test-suite overrides this fixture to have one."""
    return None


@pytest.fixture
def mcp_fleet(
    request: pytest.FixtureRequest, leaks: LeakCheck, mcp_fleet_config: ManagerConfig | None
) -> Iterator[McpManager | PyMcpManager]:
    """A manager that runs, and is stopped after the test: an McpManager in an async test, a PyMcpManager in any other."""
    from mcp_manager.testing.async_tests import loop_fixture

    name = loop_fixture(request, "mcp_fleet")
    if name is not None:
        yield request.getfixturevalue(name)
        return
    from mcp_manager.testing.sync_tests import started

    with started(mcp_fleet_config) as manager:
        yield manager


@pytest.fixture
def leaks(request: pytest.FixtureRequest, _leak_check: LeakCheck) -> LeakCheck:
    """Fail the test if it leaves a task, thread, child process, socket or pipe behind, or an error of an event loop."""
    from mcp_manager.testing.async_tests import loop_fixture

    # It ends before the check does, and tells it of tasks.
    name = loop_fixture(request, "task_watch")
    if name is not None:
        request.getfixturevalue(name)
    return _leak_check


@pytest.fixture
def _leak_check(request: pytest.FixtureRequest) -> Iterator[LeakCheck]:
    from mcp_manager.testing.async_tests import loop_fixture
    from mcp_manager.testing.leaks import LeakCheck

    # The loop ends after the check, and has sockets and threads of its own: it is made before the check begins.
    name = loop_fixture(request, "loop_begun")
    check = LeakCheck(executor=None if name is None else request.getfixturevalue(name))
    yield check
    left = check.close()
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)
