"""Work in a thread: its result and its failure come back, and a caller who gives up leaves no thread behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mcp_manager.runtime.threads import in_thread

pytestmark = pytest.mark.both_loops


async def test_the_result_comes_back_and_the_thread_ends() -> None:
    threads = await asyncio.gather(*(in_thread(threading.current_thread, f"work {each}") for each in range(5)))
    assert sorted(each.name for each in threads) == [f"work {each}" for each in range(5)]
    assert not any(each.is_alive() for each in threads)
    assert all(each.daemon for each in threads)


async def test_a_failure_comes_back() -> None:
    def fail() -> None:
        raise ZeroDivisionError("scripted")

    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="scripted"):
            await in_thread(fail, "work")


async def test_a_caller_who_gives_up_waits_for_the_end_of_the_work() -> None:
    began, may_end = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        may_end.wait(10)

    waiting = asyncio.create_task(in_thread(work, "work"))
    while not began.is_set():
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert "work" not in [each.name for each in threading.enumerate()]


@pytest.mark.slow
async def test_work_that_does_not_end_is_left_behind() -> None:
    may_end = threading.Event()
    waiting = asyncio.create_task(in_thread(lambda: may_end.wait(10), "work"))
    await asyncio.sleep(0)
    waiting.cancel()
    done, _ = await asyncio.wait({waiting}, timeout=10)
    assert done
    assert waiting.cancelled()
    may_end.set()
