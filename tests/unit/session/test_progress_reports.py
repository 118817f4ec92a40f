"""Progress callbacks: plain ones run at once, async ones in order beside the call, and none after its end."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import time
import warnings
from typing import Any

import pytest
from support.contained import containment

from mcp_manager.session import ProgressReports
from mcp_manager.testing.virtual_time import run_in_virtual_time

LONG_NS = 10**12


def later(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


def test_a_plain_callback_is_called_at_once_and_without_a_loop() -> None:
    seen: list[Any] = []
    ProgressReports(lambda *report: seen.append(report), containment())(1.0, None, "m")
    assert seen == [(1.0, None, "m")]


class Awaitable:
    """A callable object whose ``__call__`` is a coroutine function."""

    def __init__(self, seen: list[float]) -> None:
        self.seen = seen

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        await asyncio.sleep(0)
        self.seen.append(progress)


async def test_async_callbacks_of_every_kind_are_awaited_in_order() -> None:
    async def function(seen: list[float], progress: float, total: float | None, message: str | None) -> None:
        await asyncio.sleep(0 if progress % 2 else 0.001)
        seen.append(progress)

    first: list[float] = []
    second: list[float] = []
    future_seen: list[float] = []

    def returning_a_task(progress: float, total: float | None, message: str | None) -> Any:
        return asyncio.ensure_future(function(future_seen, progress, total, message))

    for callback, seen in (
        (functools.partial(function, first), first),
        (Awaitable(second), second),
        (returning_a_task, future_seen),
    ):
        reports = ProgressReports(callback, containment())
        for number in range(20):
            reports(float(number), None, None)
        await reports.finish(later(10))
        await reports.aclose()
        assert sorted(seen) == [float(number) for number in range(20)]
        if callback is not returning_a_task:
            assert seen == sorted(seen)


async def test_a_slow_callback_keeps_nobody_and_only_old_news_are_dropped() -> None:
    gate, seen = asyncio.Event(), []

    async def slow(progress: float, total: float | None, message: str | None) -> None:
        await gate.wait()
        seen.append(progress)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reports = ProgressReports(slow, containment())
        for number in range(1000):
            reports(float(number), None, None)
        await asyncio.sleep(0)
        for number in range(1000, 1002):
            reports(float(number), None, None)
        gate.set()
        await reports.finish(later(10))
        await reports.aclose()
        gc.collect()
    assert seen == [float(number) for number in (744, *range(746, 1002))]


async def test_a_failing_callback_is_logged_and_the_next_report_delivered(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[float] = []

    async def failing(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)
        raise ValueError("a user's fault")

    reports = ProgressReports(failing, containment())
    reports(1.0, None, None)
    reports(2.0, None, None)
    await reports.finish(later(10))
    await reports.aclose()

    def failing_at_once(*_: object) -> None:
        raise ValueError("a user's fault")

    ProgressReports(failing_at_once, containment())(3.0, None, None)
    assert seen == [1.0, 2.0]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3


def test_the_deadline_bounds_the_wait_and_what_is_late_is_cancelled() -> None:
    async def scenario() -> list[str]:
        told = []

        async def endless(progress: float, total: float | None, message: str | None) -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                told.append("cancelled")
                raise

        reports = ProgressReports(endless, containment())
        reports(1.0, None, None)
        reports(2.0, None, None)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await reports.finish(later(5))
        told.append(f"{loop.time() - started:.0f} s")
        await reports.aclose()
        reports(3.0, None, None)
        assert len(asyncio.all_tasks()) == 1
        return told

    assert run_in_virtual_time(scenario()) == ["5 s", "cancelled"]


def test_a_callback_that_resists_its_end_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        over = asyncio.Event()

        async def stubborn(progress: float, total: float | None, message: str | None) -> None:
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    continue

        reports = ProgressReports(stubborn, containment())
        reports(1.0, None, None)
        await asyncio.sleep(0)
        await reports.aclose()
        over.set()
        await asyncio.sleep(0)

    run_in_virtual_time(scenario())
    assert "was cancelled, but has not ended" in caplog.text


async def test_reports_are_delivered_in_the_context_of_the_caller() -> None:
    who = contextvars.ContextVar("who", default="nobody")
    seen = []

    async def callback(progress: float, total: float | None, message: str | None) -> None:
        seen.append(who.get())

    who.set("caller")
    reports = ProgressReports(callback, containment())
    contextvars.Context().run(reports, 1.0, None, None)
    await reports.finish(later(10))
    await reports.aclose()
    assert seen == ["caller"]
