"""Streams of events: in order, bounded, for threads and loops, and without a trace once nobody reads them."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.forking import in_child

from mcp_manager import ChildStarted, ConfigApplied, Event, EventsMissed, EventStream, NotRunningError, ToolsChanged
from mcp_manager.events.feed import EventFeed

LIMIT_S = 20.0


def changed(server_id: str) -> ToolsChanged:
    return ToolsChanged(server_id=server_id)


def names(events: list[Event]) -> list[str]:
    """The servers of events; what is missing is shown as its number."""
    return [each.server_id if isinstance(each, ToolsChanged) else str(getattr(each, "count", each)) for each in events]


def tell(feed: EventFeed, *server_ids: str) -> None:
    for server_id in server_ids:
        feed.tell(changed(server_id), 0)


def listen(feed: EventFeed, *, buffer: int = 100, home: asyncio.AbstractEventLoop | None = None) -> EventStream:
    return feed.listen(None, (), buffer, home)


def elsewhere(read: Callable[[], list[Event]]) -> asyncio.Future[list[Event]]:
    """Begin to read on a thread of its own."""
    future = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def run() -> None:
        found = read()
        loop.call_soon_threadsafe(future.set_result, found)

    threading.Thread(target=run).start()
    return future


async def ended(feed: EventFeed) -> None:
    await feed.aclose()


@pytest.mark.both_loops
async def test_every_listener_gets_what_happens_from_now_on_in_order() -> None:
    feed = EventFeed()
    early = listen(feed)
    tell(feed, "a", "b")
    late = listen(feed)
    tell(feed, "c")
    await ended(feed)
    assert names([each async for each in early]) == ["a", "b", "c"]
    assert names([each async for each in late]) == ["c"]


@pytest.mark.both_loops
async def test_one_that_waits_is_woken_and_ends_with_the_feed() -> None:
    feed = EventFeed()
    stream, seen = listen(feed), []

    async def consume() -> None:
        async for event in stream:
            seen.append(event)
            told.set()

    told = asyncio.Event()
    consumer = asyncio.create_task(consume())
    for name in ("a", "b"):
        tell(feed, name)
        async with asyncio.timeout(LIMIT_S):
            await told.wait()
        told.clear()
    await ended(feed)
    async with asyncio.timeout(LIMIT_S):
        await consumer
    assert names(seen) == ["a", "b"]


async def test_the_oldest_of_a_slow_listener_are_dropped_and_counted() -> None:
    feed = EventFeed()
    slow, fast = listen(feed, buffer=3), listen(feed)
    tell(feed, *"abcdefg")
    first = await anext(slow)
    assert isinstance(first, EventsMissed)
    assert first.count == 4
    assert names([await anext(slow), await anext(slow)]) == ["e", "f"]
    tell(feed, *"hijk")
    await ended(feed)
    assert names([each async for each in slow]) == ["2", "i", "j", "k"]
    assert names([each async for each in fast]) == list("abcdefghijk")


async def test_a_listener_gets_only_what_it_asked_for() -> None:
    feed = EventFeed()
    of_a = feed.listen("a", (), 10, None)
    kinds = feed.listen(None, (ChildStarted, ConfigApplied), 10, None)
    both = feed.listen("b", (ChildStarted,), 1, None)
    started = ChildStarted(server_id="b", instance=0, pid=1)
    for event in (changed("a"), started, ConfigApplied(), changed("b"), started):
        feed.tell(event, 0)
    await ended(feed)
    assert names([each async for each in of_a]) == ["a"]
    assert [type(each).__name__ async for each in kinds] == ["ChildStarted", "ConfigApplied", "ChildStarted"]
    assert [type(each).__name__ async for each in both] == ["EventsMissed", "ChildStarted"]


async def test_threads_read_with_for() -> None:
    feed = EventFeed()
    stream = listen(feed, home=asyncio.get_running_loop())
    reading = elsewhere(lambda: list(stream))
    for name in "abc":
        tell(feed, name)
        await asyncio.sleep(0)
    await ended(feed)
    async with asyncio.timeout(LIMIT_S):
        assert names(await reading) == ["a", "b", "c"]


async def test_other_loops_read_with_async_for() -> None:
    feed = EventFeed()
    stream = listen(feed, home=asyncio.get_running_loop())

    async def consume() -> list[Event]:
        return [each async for each in stream]

    reading = elsewhere(lambda: asyncio.run(consume()))
    for name in "abc":
        tell(feed, name)
        await asyncio.sleep(0.001)
    await ended(feed)
    async with asyncio.timeout(LIMIT_S):
        assert names(await reading) == ["a", "b", "c"]


@pytest.mark.parametrize("is_started", [True, False])
async def test_for_on_the_manager_s_own_loop_is_refused_instead_of_blocking_it(is_started: bool) -> None:
    stream = listen(EventFeed(), home=asyncio.get_running_loop() if is_started else None)
    with pytest.raises(NotRunningError, match="use async for instead"):
        next(stream)


def test_for_ends_when_the_manager_s_loop_was_closed() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert list(listen(EventFeed(), home=loop)) == []


async def test_a_closed_stream_ends_at_once_and_gets_nothing_more() -> None:
    feed = EventFeed()
    async with listen(feed) as stream:
        tell(feed, "a")
    tell(feed, "b")
    assert [each async for each in stream] == []
    with listen(feed) as other:
        assert feed.is_heard(0)
    assert list_of(other) == []
    tell(feed, "c")
    assert not feed.is_heard(0)


def list_of(stream: EventStream) -> list[Event]:
    """What a thread reads from a stream that is over."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(list, stream).result(LIMIT_S)  # type: ignore[arg-type]


async def test_closing_wakes_who_waits_on_another_thread() -> None:
    feed = EventFeed()
    stream = listen(feed)
    reading = elsewhere(lambda: list(stream))
    stream.close()
    async with asyncio.timeout(LIMIT_S):
        assert await reading == []


async def test_a_cancelled_consumer_loses_nothing() -> None:
    feed = EventFeed()
    stream = listen(feed)
    waiting = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    tell(feed, "a")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    tell(feed, "b")
    assert names([await anext(stream), await anext(stream)]) == ["a", "b"]
    assert stream._waiters == []


async def test_a_stream_that_nobody_holds_is_forgotten() -> None:
    feed = EventFeed()
    async for _ in told_once(feed):
        break
    gone = weakref.ref(listen(feed))
    gc.collect()
    assert gone() is None
    tell(feed, "b")
    assert not feed.is_heard(0)


def told_once(feed: EventFeed) -> EventStream:
    stream = listen(feed)
    tell(feed, "a")
    return stream


async def test_a_consumer_whose_task_nobody_holds_lives_until_the_end() -> None:
    feed = EventFeed()
    seen: list[str] = []
    over = asyncio.Event()

    async def consume(stream: EventStream) -> None:
        seen.extend([type(event).__name__ async for event in stream])
        over.set()

    asyncio.create_task(consume(listen(feed)))  # noqa: RUF006
    await asyncio.sleep(0)
    gc.collect()
    tell(feed, "a")
    await asyncio.sleep(0)
    gc.collect()
    await ended(feed)
    async with asyncio.timeout(LIMIT_S):
        await over.wait()
    assert seen == ["ToolsChanged"]


@pytest.mark.allow_leaks("loop_errors", reason="a task of a closed loop is what this test is about")
async def test_a_consumer_whose_loop_was_closed_is_forgotten() -> None:
    feed = EventFeed()
    stream = listen(feed)
    other = asyncio.new_event_loop()
    waiting = stream.__anext__()
    with pytest.raises(RuntimeError):
        # It begins to wait, and its loop never goes on.
        await asyncio.to_thread(begin_on, other, waiting)
    other.close()
    assert stream._awaited
    tell(feed, "a")
    assert not stream._awaited
    assert names([await anext(stream)]) == ["a"]


def begin_on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Event]) -> None:
    """Begin some work on a loop that is stopped as soon as the work waits."""
    task = loop.create_task(work)
    loop.call_later(0.01, loop.stop)
    loop.run_until_complete(task)


async def test_who_takes_many_events_lets_others_run_meanwhile() -> None:
    feed = EventFeed()
    stream = listen(feed, buffer=1_000)
    tell(feed, *map(str, range(1_000)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for _ in range(1_000):
        await anext(stream)
    counting.cancel()
    assert turns >= 1_000 // 64


async def test_a_forked_child_is_told_that_the_stream_is_its_parent_s() -> None:
    feed = EventFeed()
    stream = listen(feed, home=asyncio.get_running_loop())
    # Another thread may hold the lock at the moment of the fork.
    with stream._lock:
        assert "inherited by a fork" in in_child(lambda: stream._found())
        assert "inherited by a fork" in in_child(lambda: ThreadPoolExecutor(1).submit(next, stream).result(LIMIT_S))
    tell(feed, "a")
    assert names([await anext(stream)]) == ["a"]


async def test_two_that_share_a_stream_share_its_events() -> None:
    feed = EventFeed()
    stream = listen(feed)
    waiting = [asyncio.create_task(anext(stream)) for _ in range(2)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    tell(feed, "a", "b")
    assert sorted(names(list(await asyncio.gather(*waiting)))) == ["a", "b"]
