"""Tasks that nobody may be left to await: what they fail of is read, what is a bug is told, and endings are not cut short."""

from __future__ import annotations

import asyncio
import logging

import pytest
from support.contained import containment

from mcp_manager.errors import ConnectError
from mcp_manager.runtime.background import read_failure, to_its_end


async def fails(error: BaseException) -> None:
    raise error


async def ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})
    # Its callbacks come with the next pass.
    await asyncio.sleep(0)


async def test_what_somebody_else_was_told_is_read_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    for callback in (read_failure, containment().read_failure):
        task = asyncio.create_task(fails(ConnectError("down")))
        task.add_done_callback(callback)
        await ended(task)
        # Unread, the end of the test would report it.
        del task
    assert caplog.records == []


async def test_a_bug_is_logged_with_where_it_came_from(caplog: pytest.LogCaptureFixture) -> None:
    task = asyncio.create_task(fails(KeyError("x")))
    task.add_done_callback(containment().read_failure)
    await ended(task)
    [record] = caplog.records
    assert record.levelno == logging.ERROR and "server 'a'" in record.getMessage()
    assert "in fails" in record.getMessage() and "KeyError" in record.getMessage()


async def test_a_cancelled_one_failed_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    task = asyncio.create_task(asyncio.sleep(3600))
    task.add_done_callback(read_failure)
    task.add_done_callback(containment().read_failure)
    task.cancel()
    await ended(task)
    assert caplog.records == []


async def test_an_ending_is_done_however_often_whoever_waits_is_cancelled() -> None:
    steps: list[int] = []
    go_on = asyncio.Event()

    async def ending() -> str:
        steps.append(1)
        await go_on.wait()
        steps.append(2)
        return "done"

    waiting = asyncio.create_task(to_its_end(ending()))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert steps == [1] and not waiting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert steps == [1, 2]
    assert await to_its_end(ending()) == "done"
    with pytest.raises(ConnectError):
        await to_its_end(fails(ConnectError("down")))
