"""The log under a storm of events: bounded, never silent about what it left out, and right about the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mcp_manager import ChildExited, ServerState, ServerStateChanged, ServerUndeployed
from mcp_manager.events.feed import EventFeed
from mcp_manager.testing.virtual_time import run_in_virtual_time

HEALTHY, UNHEALTHY = ServerState.HEALTHY, ServerState.UNHEALTHY


def down(server_id: str) -> ServerStateChanged:
    return ServerStateChanged(server_id=server_id, previous=HEALTHY, state=UNHEALTHY, reasons=("not connected",))


def up(server_id: str) -> ServerStateChanged:
    return ServerStateChanged(server_id=server_id, previous=UNHEALTHY, state=HEALTHY, outage_s=1.0)


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.name == "mcp_manager.events"]


@pytest.fixture
def run(caplog: pytest.LogCaptureFixture) -> Callable[[Callable[[EventFeed], Coroutine[Any, Any, None]]], None]:
    caplog.set_level(logging.INFO, "mcp_manager")

    def in_virtual_time(work: Callable[[EventFeed], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            await work(EventFeed())

        run_in_virtual_time(whole())

    return in_virtual_time


Run = Callable[[Callable[[EventFeed], Coroutine[Any, Any, None]]], None]


def test_a_server_that_changes_all_the_time_gets_few_lines_and_each_tells_what_is_missing(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    changes = 6_000

    async def work(feed: EventFeed) -> None:
        for number in range(changes):
            feed.tell(down("a") if number % 2 == 0 else up("a"), logging.WARNING if number % 2 == 0 else logging.INFO)
            await asyncio.sleep(0.1)
        await asyncio.sleep(120)
        records = logged(caplog)
        # Ten a minute, and one a minute for what was left out.
        assert len(records) <= 11 * 11
        left_out = sum(getattr(each, "left_out", 0) for each in records)
        assert len(records) + left_out == changes
        assert records[-1].getMessage().startswith("server 'a' is Healthy again after 1.0 s (")

    run(work)


def test_the_last_line_tells_the_present_state_however_many_were_held_back(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(feed: EventFeed) -> None:
        for _ in range(20):
            feed.tell(down("a"), logging.WARNING)
            feed.tell(up("a"), logging.INFO)
        assert len(logged(caplog)) == 10
        await asyncio.sleep(61)
        *_, last = logged(caplog)
        # Some of what it stands for are warnings.
        assert (last.state, last.left_out, last.levelname) == ("Healthy", 29, "WARNING")  # type: ignore[attr-defined]
        await asyncio.sleep(600)
        assert len(logged(caplog)) == 11
        feed.tell(down("a"), logging.WARNING)
        assert len(logged(caplog)) == 12

    run(work)


def test_a_log_of_warnings_ends_with_the_present_state_too(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def work(feed: EventFeed) -> None:
        logging.getLogger("mcp_manager").setLevel(logging.WARNING)
        for _ in range(12):
            assert feed.is_heard(logging.WARNING)
            feed.tell(down("a"), logging.WARNING)
        assert feed.is_heard(logging.DEBUG), "it may make obsolete what was held back"
        feed.tell(up("a"), logging.INFO)
        feed.tell(up("b"), logging.INFO)
        await asyncio.sleep(61)
        assert [each.state for each in logged(caplog)] == [*["Unhealthy"] * 10, "Healthy"]  # type: ignore[attr-defined]
        assert not feed.is_heard(logging.DEBUG)

    run(work)


def test_a_summary_that_is_due_sooner_is_written_sooner(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def work(feed: EventFeed) -> None:
        for _ in range(20):
            feed.tell(down("a"), logging.WARNING)
        await asyncio.sleep(11)
        for number in range(100):
            feed.tell(down(f"s{number}"), logging.WARNING)
        await asyncio.sleep(11)
        assert logged(caplog)[-1].servers == 50  # type: ignore[attr-defined]
        await asyncio.sleep(40)
        assert (logged(caplog)[-1].server_id, logged(caplog)[-1].left_out) == ("a", 9)  # type: ignore[attr-defined]

    run(work)


def test_ten_thousand_servers_that_fail_at_once_get_some_lines_and_a_summary(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(feed: EventFeed) -> None:
        for number in range(10_000):
            feed.tell(down(f"s{number}"), logging.WARNING)
        assert len(logged(caplog)) == 50
        await asyncio.sleep(11)
        records = logged(caplog)
        assert len(records) == 51
        summary = records[-1]
        assert summary.getMessage() == (
            "9950 more servers changed their state: 9950 Unhealthy (such as 's50', 's51', 's52', 's53', 's54')"
        )
        assert (summary.servers, summary.left_out) == (9950, 9950)  # type: ignore[attr-defined]
        assert (summary.event, summary.levelname) == ("server_state", "WARNING")  # type: ignore[attr-defined]
        for number in range(10_000):
            feed.tell(up(f"s{number}"), logging.INFO)
        await asyncio.sleep(11)
        assert len(logged(caplog)) == 102

    run(work)


def test_other_events_of_many_servers_get_a_summary_too(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def work(feed: EventFeed) -> None:
        for number in range(100):
            exited = ChildExited(server_id=f"s{number}", instance=0, pid=7, reason="it exited")
            feed.tell(exited, logging.WARNING)
        await asyncio.sleep(11)
        assert logged(caplog)[-1].getMessage() == (
            "50 more servers lost their programs (such as 's50', 's51', 's52', 's53', 's54')"
        )

    run(work)


def test_a_few_that_were_held_back_get_a_line_each(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def work(feed: EventFeed) -> None:
        for number in range(55):
            feed.tell(down(f"s{number}"), logging.WARNING)
        await asyncio.sleep(11)
        assert [each.server_id for each in logged(caplog)] == [f"s{number}" for number in range(55)]  # type: ignore[attr-defined]

    run(work)


def test_kinds_of_events_do_not_take_each_other_s_lines(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def work(feed: EventFeed) -> None:
        for number in range(100):
            feed.tell(down(f"s{number}"), logging.WARNING)
        feed.tell(ChildExited(server_id="a", instance=0, pid=7, reason="it exited"), logging.WARNING)
        assert logged(caplog)[-1].event == "child_exited"  # type: ignore[attr-defined]

    run(work)


def test_nothing_that_was_held_back_is_lost_at_the_end(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def work(feed: EventFeed) -> None:
        for _ in range(10):
            feed.tell(down("a"), logging.WARNING)
            feed.tell(up("a"), logging.INFO)
        await feed.aclose()
        assert (logged(caplog)[-1].state, logged(caplog)[-1].left_out) == ("Healthy", 9)  # type: ignore[attr-defined]
        for _ in range(10):
            feed.tell(down("b"), logging.WARNING)
            feed.tell(up("b"), logging.INFO)
        feed.tell(ServerUndeployed(server_id="b"))
        *_, told, last = logged(caplog)
        assert (told.getMessage(), last.left_out) == ("server 'b' undeployed", 9)  # type: ignore[attr-defined]
        assert not feed._lines._own
        assert not feed._lines._held
        await feed.aclose()
        await feed.aclose()

    run(work)


def test_nothing_is_made_where_nobody_listens(run: Run) -> None:
    async def work(feed: EventFeed) -> None:
        logging.getLogger("mcp_manager").setLevel(logging.ERROR)
        assert not feed.is_heard(logging.WARNING)
        feed.tell(down("a"), logging.WARNING)
        assert not feed._lines._own

    run(work)
