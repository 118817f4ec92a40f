"""What the package asks of event loops is what all of them have; tasks begin after whoever makes them has gone on."""

from __future__ import annotations

import ast
import asyncio
import gc
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

import pytest

import mcp_manager
from mcp_manager.runtime.background import background_task
from mcp_manager.testing.leaks import LoopErrors

SOURCE = Path(mcp_manager.__file__).parent
MAKERS = {"create_task", "ensure_future", "TaskGroup", "Task"}


def makes_tasks(path: Path) -> bool:
    """Whether a module calls what makes tasks of its own accord, which leaves it to the loop's task factory how."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return any(isinstance(func, ast.Attribute) and func.attr in MAKERS for func in calls)


def test_one_place_makes_tasks() -> None:
    # The command line and the servers of the fault kit run on loops of their own.
    ours = (path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).parts[0] not in ("cli", "testing"))
    assert [path.name for path in ours if makes_tasks(path)] == ["background.py"]


def test_no_handle_is_asked_when_it_is_due() -> None:
    # What uvloop's call_at() returns for a time that has passed cannot tell.
    assert [
        path.name for path in SOURCE.rglob("*.py*") if b".when()" in path.read_bytes() and path.suffix != ".pyc"
    ] == []


async def test_work_begins_after_its_maker_went_on() -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("began")

    task = background_task(work(), "test")
    steps.append("made")
    await task
    assert steps == ["made", "began"]


async def test_the_task_factory_of_the_loop_is_passed_by() -> None:
    made: list[Coroutine[Any, Any, Any]] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def work() -> int:
        return 1

    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        assert await background_task(work(), "test") == 1
    finally:
        loop.set_task_factory(before)
    assert made == []


async def test_a_task_is_kept_until_it_ends() -> None:
    kept: set[asyncio.Task[Any]] = set()
    going_on = asyncio.Event()
    task = background_task(going_on.wait(), "wait", among=kept)
    assert kept == {task} and task.get_name() == "wait"
    going_on.set()
    await task
    # Callbacks of a task run in the turn after its end.
    await asyncio.sleep(0)
    assert kept == set()


async def test_work_runs_in_the_context_it_is_given() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="outer")
    context = copy_context()
    context.run(variable.set, "inner")

    async def read() -> str:
        return variable.get()

    assert await background_task(read(), "read", context=context) == "inner"
    assert await background_task(read(), "read") == "outer"


@pytest.mark.allow_leaks("loop_errors", reason="it is what is looked at")
async def test_a_failure_that_nobody_looks_at_is_reported() -> None:
    async def fail() -> None:
        raise LookupError("nobody looks")

    with LoopErrors() as errors:
        background_task(fail(), "fail", among=set())
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
    assert "nobody looks" in str(errors.reports)
