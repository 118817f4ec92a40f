"""Configuration of all tests: hypothesis profiles, event loops, and the checks for leaks."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from _pytest.logging import caplog_records_key
from hypothesis import HealthCheck, settings
from pytest_asyncio import is_async_test
from support import time_limits
from support.leaks import KINDS, Snapshot
from support.published_install import install
from support.published_servers import DIRECTORY_VARIABLE, published_servers

from mcp_manager.testing.leaks import LoopErrors

try:
    from uvloop import new_event_loop as new_uvloop
except ImportError:
    new_uvloop = None  # type: ignore[assignment]

# For the benchmarks, which are not installed. Appended, so that an installed package comes first and is what is tested.
sys.path.append(str(Path(__file__).resolve().parents[1]))

settings.register_profile("default", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
# For further interpreters and loops: the full number of examples runs on the first one.
settings.register_profile("brief", settings.get_profile("ci"), max_examples=20, stateful_step_count=20)
settings.load_profile("ci" if os.environ.get("CI") else "default")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# Enough event-loop iterations for closed connections to be notified; a task that needs more was not awaited.
_CLOSING_PASSES = 20

_SLOW_LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-servers",
        action="store_true",
        help="install all servers of tests/support/published_servers.toml (2 GB), and test with all of them",
    )
    parser.addoption("--slow", action="store_true", help="run the tests that are marked slow, too")
    parser.addoption(
        "--loop",
        choices=("asyncio", "uvloop", "eager"),
        help="run only async tests, and only on this loop; eager is asyncio's loop with the eager task factory",
    )


def pytest_configure(config: pytest.Config) -> None:
    # If the package is not installed, or was before it had a plugin.
    plugin = import_module("mcp_manager.pytest_plugin")
    if not config.pluginmanager.is_registered(plugin):
        config.pluginmanager.register(plugin, "mcp_manager")
    config.pluginmanager.register(time_limits, "time_limits")
    if config.getoption("all_servers") and not hasattr(config, "workerinput"):
        directory = Path(os.environ.setdefault(DIRECTORY_VARIABLE, str(config.rootpath / "build" / "servers")))
        install(directory, list(published_servers()))
    loop = config.getoption("loop")
    if loop is not None and loop not in loops():
        raise pytest.UsageError(f"--loop {loop} is not available: {missing_loop(loop)}")
    config.addinivalue_line("markers", "slow: takes seconds; run by .ci/run and by pytest --slow")
    config.addinivalue_line("markers", "both_loops: run an async test on asyncio's loop and on uvloop's")
    config.addinivalue_line(
        "markers", f"allow_leaks(*kinds, reason): allow these kinds of leaks; kinds are {', '.join(KINDS)}"
    )
    # A shell ignores SIGINT in background jobs, and nohup SIGHUP; children that a test signals would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that are not async if a loop is selected, and slow tests unless they are asked for."""
    if config.getoption("loop") is not None:
        leave_out(config, items, lambda item: not is_async_test(item))
    if not config.getoption("slow"):
        config.stash[_SLOW_LEFT_OUT] = leave_out(config, items, lambda item: bool(item.get_closest_marker("slow")))


def leave_out(config: pytest.Config, items: list[pytest.Item], unwanted: Callable[[pytest.Item], bool]) -> int:
    """Deselect tests and return how many."""
    left_out = [item for item in items if unwanted(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not unwanted(item)]
    return len(left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that began the run what this worker of it left out."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["slow_left_out"] = session.config.stash.get(_SLOW_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # Every worker collects the same tests.
    node.config.stash[_SLOW_LEFT_OUT] = getattr(node, "workeroutput", {}).get("slow_left_out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left_out := config.stash.get(_SLOW_LEFT_OUT, 0):
        terminalreporter.write_line(f"slow tests left out: {left_out} (--slow runs them)")


def pytest_collection_finish() -> None:
    if new_uvloop is not None:
        # libuv opens a pipe for signals with its first loop and never closes it.
        new_uvloop().close()
    # Imported objects stay; freezing them spares the collections after every test from looking at them.
    gc.collect()
    gc.freeze()


def eager_loop() -> asyncio.AbstractEventLoop:
    """Make a loop whose tasks start inside ``create_task()``, before it returns."""
    loop = asyncio.SelectorEventLoop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


def loops() -> dict[str, LoopFactory]:
    """Return the available loops by name; asyncio's is the first."""
    found: dict[str, LoopFactory] = {"asyncio": asyncio.SelectorEventLoop}
    if new_uvloop is not None:
        found["uvloop"] = new_uvloop
    if sys.version_info >= (3, 12):
        found["eager"] = eager_loop
    return found


def missing_loop(name: str) -> str:
    """Return why a loop is not available."""
    return "uvloop is not installed" if name == "uvloop" else "eager tasks need Python 3.12"


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Run a test on the selected loop; without a selection, on asyncio's, and with ``both_loops`` also on uvloop's."""
    asked = config.getoption("loop")
    if asked is not None:
        names = [asked]
    elif item.get_closest_marker("both_loops") is not None:
        names = ["asyncio", "uvloop"]
    else:
        names = ["asyncio"]
    return {name: time_limits.ending_with_test(factory) for name, factory in loops().items() if name in names}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in a test's log output, which cannot be sent between processes."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_report_header(config: pytest.Config) -> str:
    """Show which loops are tested, and which package is missing for the others."""
    asked = config.getoption("loop")
    if asked is not None:
        return f"loop: {asked}"
    return "loops: asyncio" + (", uvloop" if new_uvloop is not None else " (uvloop is not installed)")


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread, a child process, a socket, an object or an unhandled error of a loop behind."""
    on_loop = is_async_test(request.node)
    before, failed_before = Snapshot(objects=on_loop), request.session.testsfailed
    with LoopErrors() as errors:
        yield
        if on_loop:
            # Drop the values of fixtures and the log records, so that the collection below frees all unused objects:
            # destroyed tasks and unretrieved exceptions are reported only then.
            request.node.funcargs.clear()
            for records in request.node.stash.get(caplog_records_key, {}).values():
                records.clear()
            gc.collect()
        # A fixture may have marked the test meanwhile.
        watched = watched_kinds(request.node)
        left: list[str] = []
        if "threads" in watched:
            left += before.new_threads()
        if "children" in watched:
            left += before.new_children()
        if "descriptors" in watched:
            left += before.new_descriptors()
        # The traceback of a failed test keeps all of its objects alive.
        if "objects" in watched and on_loop and request.session.testsfailed == failed_before:
            left += before.new_objects()
            if not left:
                # What is still there is pytest's and stays: later collections need not look at it.
                gc.freeze()
    if "loop_errors" in watched:
        left += [f"an event loop reported: {report}" for report in errors.reports]
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def no_task_left_behind(nothing_left_behind: None, request: pytest.FixtureRequest) -> None:
    """Check the tasks of an async test; set up first, so that every other fixture has ended before the check."""
    if is_async_test(request.node) and "tasks" in watched_kinds(request.node):
        request.getfixturevalue("_watched_tasks")


@pytest.fixture
async def _watched_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    mine = {asyncio.current_task()}
    for _ in range(_CLOSING_PASSES):
        left = asyncio.all_tasks() - before - mine
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail("tasks are still pending:\n  " + "\n  ".join(sorted(map(repr, left))), pytrace=False)


def watched_kinds(item: pytest.Item) -> set[str]:
    """Return the kinds of leaks that a test is checked for."""
    watched = set(KINDS)
    for marker in item.iter_markers("allow_leaks"):
        unknown = set(marker.args) - set(KINDS)
        if unknown or not marker.args or not marker.kwargs.get("reason"):
            pytest.fail(f"allow_leaks needs kinds of {KINDS} and a reason, not {sorted(unknown)}", pytrace=False)
        watched -= set(marker.args)
    return watched
