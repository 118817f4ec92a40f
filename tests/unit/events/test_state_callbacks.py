"""The callback for changed states: told everything in order, and never in the way."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable

import pytest

from mcp_manager import ServerState, ServerStateChanged
from mcp_manager.events.callback import OnStateChange
from mcp_manager.events.feed import EventFeed

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")


def change(server_id: str) -> ServerStateChanged:
    return ServerStateChanged(server_id=server_id, previous=ServerState.INITIALIZING, state=ServerState.HEALTHY)


def feed_to(callback: OnStateChange) -> EventFeed:
    return EventFeed(callback)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def callback_of(kind: str, take: Callable[[str], None]) -> OnStateChange:
    async def later(event: ServerStateChanged) -> None:
        await asyncio.sleep(0)
        take(event.server_id)

    return later if kind == "async" else lambda event: take(event.server_id)


@pytest.mark.both_loops
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_it_is_told_every_change_in_order(kind: str) -> None:
    seen: list[str] = []
    feed = feed_to(callback_of(kind, seen.append))
    for server_id in "abc":
        feed.tell(change(server_id))
    assert seen == []
    await turns(10)
    assert seen == ["a", "b", "c"]
    feed.tell(change("d"))
    await feed.aclose()
    assert seen == ["a", "b", "c", "d"]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("failure", [ValueError("oh"), asyncio.CancelledError()])
async def test_one_that_raises_is_logged_and_told_the_next(
    kind: str, failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def take(server_id: str) -> None:
        if server_id == "a":
            raise failure
        seen.append(server_id)

    feed = feed_to(callback_of(kind, take))
    feed.tell(change("a"))
    feed.tell(change("b"))
    await turns(10)
    assert seen == ["b"]
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage() == "on_state_change failed for server 'a'"
    assert record.exc_info is not None
    assert record.exc_info[1] is failure
    assert (record.event, record.server_id) == ("callback", "a")  # type: ignore[attr-defined]
    await feed.aclose()


async def test_what_it_causes_itself_comes_after_what_was_before() -> None:
    seen: list[str] = []

    def take(event: ServerStateChanged) -> None:
        seen.append(event.server_id)
        if event.server_id == "a":
            feed.tell(change("c"))

    feed = feed_to(take)
    stream = feed.listen(None, (), 10, None)
    feed.tell(change("a"))
    feed.tell(change("b"))
    await turns()
    assert seen == ["a", "b", "c"]
    await feed.aclose()
    assert [getattr(each, "server_id", "") async for each in stream] == ["a", "b", "c"]


async def test_it_runs_in_the_context_in_which_the_manager_was_made() -> None:
    seen: list[str] = []
    name.set("maker")
    feed = feed_to(lambda _: seen.append(name.get()))
    other = feed_to(callback_of("async", lambda _: seen.append(name.get())))
    name.set("caller")
    feed.tell(change("a"))
    other.tell(change("a"))
    await turns()
    assert seen == ["maker", "maker"]
    feed.tell(change("b"))
    await feed.aclose()
    await other.aclose()
    assert seen == ["maker"] * 3


async def test_a_slow_one_loses_the_oldest_and_ends_with_the_manager(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_manager.events.callback._LAST_S", 0.01)
    begun: list[str] = []

    async def take(event: ServerStateChanged) -> None:
        begun.append(event.server_id)
        await asyncio.Event().wait()

    feed = feed_to(take)
    for number in range(1_002):
        feed.tell(change(str(number)))
        await turns(2)
    assert begun == ["0"]
    assert "a change of server '1' was not told" in caplog.text
    await feed.aclose()
    assert begun == ["0"]
    feed.tell(change("late"))
    await turns()
    assert begun == ["0"]


async def test_one_that_ignores_its_cancellation_does_not_keep_the_manager(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_manager.events.callback._LAST_S", 0.01)
    release = asyncio.Event()

    async def take(event: ServerStateChanged) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    feed = feed_to(take)
    feed.tell(change("a"))
    await turns()
    await feed.aclose()
    assert "on_state_change was cancelled, but has not ended" in caplog.text
    release.set()
    await turns(10)
