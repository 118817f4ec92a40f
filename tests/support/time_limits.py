"""A plugin of pytest: a test that takes too long ends, whatever it waits for, and says where it waits.

pytest-timeout raises an exception in the handler of a signal. That alone ends no test on uvloop, and on asyncio's loop only
one that waits for the network: loops pass exceptions of callbacks to their exception handler and go on. And when a test has
failed, neither pytest-timeout nor pytest's own limit watches how its fixtures end.
"""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import Callable, Generator
from importlib import import_module
from typing import Any, Final

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

__all__ = ["ENDING_S", "ending_with_test"]

ENDING_S: float = 60.0
"""Seconds that a test may take to end after its time limit, fixtures included; then its process ends."""

_IS_LIMITED: Final = pytest.StashKey[bool]()


def ending_with_test(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return a factory of loops that stop when a test has failed inside a callback, such as at its time limit."""

    def new() -> asyncio.AbstractEventLoop:
        loop = new_loop()
        loop.set_exception_handler(_report)
        return loop

    return new


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    loop.default_exception_handler(context)
    if isinstance(context.get("exception"), pytest.fail.Exception) and loop.is_running():
        loop.stop()


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """Limit the whole test, too; pytest-timeout sets its own timer afterwards."""
    if not import_module("pytest_timeout").is_debugging():
        item.stash[_IS_LIMITED] = True
        _end_process_after(item, settings.timeout + ENDING_S)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Lift the limit when a test is over."""
    try:
        return (yield)
    finally:
        if _IS_LIMITED in item.stash:
            faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: Any) -> None:
    """Limit what is left of a test that has failed: pytest lifts all limits then, because a debugger may follow."""
    if _IS_LIMITED in node.stash and not node.config.getoption("usepdb"):
        _end_process_after(node, ENDING_S)


def _end_process_after(item: pytest.Item, seconds: float) -> None:
    # Its thread needs no lock of the interpreter, so that compiled code which never ends is ended, too.
    faulthandler.dump_traceback_later(seconds, file=item.config.stash[fault_handler_stderr_fd_key], exit=True)
