"""The deadline of an exchange stands still while a client answers the server."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from mcp_manager.calls import exchange_listener
from mcp_manager.calls.exchange_listener import ExchangeListener, ServerMessage
from mcp_manager.protocol.multi_round import MAX_ROUNDS
from mcp_manager.testing.virtual_time import VirtualClock
from mcp_manager.transports import exchange_timeout as timeouts
from mcp_manager.transports.base import Exchange

S = 10**9


class _LoopTime:
    """The clock of the running loop in place of the module ``time``."""

    def monotonic_ns(self) -> int:
        return round(asyncio.get_running_loop().time() * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    for module in (exchange_listener, timeouts):
        monkeypatch.setattr(module, "time", _LoopTime())
    return VirtualClock()


def now_ns() -> int:
    return _LoopTime().monotonic_ns()


def listener(answer_s: float) -> ExchangeListener:
    async def on_message(sent: ServerMessage) -> dict[str, Any]:
        await asyncio.sleep(answer_s)
        return {}

    return ExchangeListener(on_message, cast(Any, None))


def test_the_time_for_an_answer_does_not_count(clock: VirtualClock) -> None:
    async def run() -> None:
        asked = listener(30.0)
        deadline_ns = now_ns() + 5 * S
        await asyncio.sleep(2.0)
        assert asked.put_off(deadline_ns) == deadline_ns
        answering = asyncio.ensure_future(asked.answer("elicitation/create", {}))
        await asyncio.sleep(20.0)
        assert asked.put_off(deadline_ns) == pytest.approx(deadline_ns + 20 * S, abs=1000)
        await answering
        assert asked.put_off(deadline_ns) == pytest.approx(deadline_ns + 30 * S, abs=1000)
        await asyncio.sleep(1.0)
        assert asked.put_off(deadline_ns) == pytest.approx(deadline_ns + 30 * S, abs=1000)
        assert asked.put_off(0) == 0

    clock.run(run())


def test_answers_at_the_same_time_count_once(clock: VirtualClock) -> None:
    async def run() -> None:
        asked = listener(10.0)
        await asyncio.gather(*(asked.answer("roots/list", {}) for _ in range(3)))
        assert asked.put_off(S) == pytest.approx(11 * S, abs=1000)

    clock.run(run())


def test_a_server_that_asks_without_end_meets_its_deadline(clock: VirtualClock) -> None:
    async def run() -> None:
        asked = listener(1.0)
        for _ in range(MAX_ROUNDS + 5):
            await asked.answer("roots/list", {})
        assert asked.put_off(S) == pytest.approx((MAX_ROUNDS + 1) * S, abs=1000)

    clock.run(run())


def test_an_answer_that_is_given_up_ends_the_standstill(clock: VirtualClock) -> None:
    async def run() -> None:
        asked = listener(1000.0)
        answering = asyncio.ensure_future(asked.answer("roots/list", {}))
        await asyncio.sleep(3.0)
        answering.cancel()
        await asyncio.wait({answering})
        await asyncio.sleep(5.0)
        assert asked.put_off(S) == pytest.approx(4 * S, abs=1000)

    clock.run(run())


def test_a_deadline_of_the_caller_does_not_stand_still(clock: VirtualClock) -> None:
    async def run() -> None:
        asked = listener(10.0)
        asked.stands_still = False
        await asked.answer("roots/list", {})
        assert asked.put_off(S) == S

    clock.run(run())


def test_a_timeout_waits_on_while_a_question_is_open(clock: VirtualClock) -> None:
    async def run() -> tuple[float, float]:
        exchange = Exchange(b"{}", 1, now_ns() + 5 * S)
        exchange.listener = asked = listener(30.0)
        began_s = asyncio.get_running_loop().time()
        answered_s = 0.0
        with pytest.raises(TimeoutError), timeouts.exchange_timeout(exchange) as timeout:
            async with timeout:
                await asyncio.sleep(1.0)
                await asked.answer("roots/list", {})
                answered_s = asyncio.get_running_loop().time() - began_s
                await asyncio.sleep(1000.0)
        return answered_s, asyncio.get_running_loop().time() - began_s

    answered_s, ended_s = clock.run(run())
    assert answered_s == pytest.approx(31.0, abs=0.1)
    assert ended_s == pytest.approx(35.0, abs=0.1)


def test_a_timeout_without_a_listener_is_the_deadline() -> None:
    async def run() -> None:
        exchange = Exchange(b"{}", 1, time.monotonic_ns() - 1)
        with pytest.raises(TimeoutError), timeouts.exchange_timeout(exchange) as timeout:
            async with timeout:
                await asyncio.sleep(1000.0)

    asyncio.run(run())
