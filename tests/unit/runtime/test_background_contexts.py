"""Work in another context, as a part of the task that waits for it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from mcp_manager.runtime.background import bare_context, within

kept: ContextVar[str] = ContextVar("kept", default="")
other: ContextVar[str] = ContextVar("other", default="")


async def test_only_the_named_variables_are_seen_and_nothing_comes_back() -> None:
    kept.set("k")
    other.set("o")

    async def work() -> tuple[str, str]:
        await asyncio.sleep(0)
        seen = kept.get(), other.get()
        kept.set("changed")
        await asyncio.sleep(0)
        return seen

    assert await within(bare_context(kept), work()) == ("k", "")
    assert (kept.get(), other.get()) == ("k", "o")


async def test_an_exception_comes_through_with_its_traceback_and_keeps_nothing() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await within(bare_context(), work())


async def test_a_cancellation_reaches_the_work_in_its_context() -> None:
    ended: list[str] = []
    waits = asyncio.Event()

    async def work() -> None:
        kept.set("inside")
        try:
            waits.set()
            await asyncio.Event().wait()
        finally:
            ended.append(kept.get())

    async def whole() -> None:
        await within(bare_context(), work())

    task = asyncio.get_running_loop().create_task(whole())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["inside"]


async def test_what_was_cancelled_may_go_on() -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "went on"
        return "never"

    assert await within(bare_context(), work()) == "went on"
