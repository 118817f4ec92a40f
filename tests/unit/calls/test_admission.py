"""Calls above a limit wait for their turn, in order, and not for ever; what is refused says by which limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.waiting import Floor

from mcp_manager._core.records import Lease
from mcp_manager.calls.admission import ToolRates, refusal
from mcp_manager.errors import CallError, DeadlineExceededError, OverloadedError
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.types import CallStatus, Rejection

SECOND = 10**9


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        run_in_virtual_time(test())

    run.__name__ = test.__name__
    return run


async def settled() -> None:
    """Let everything run that can without time."""
    for _ in range(5):
        await asyncio.sleep(0)


def entering(floor: Floor, *server_ids: str) -> list[asyncio.Task[Lease]]:
    return [asyncio.ensure_future(floor.enter(server_id)) for server_id in server_ids]


@in_virtual_time
async def test_calls_wait_in_the_order_in_which_they_came() -> None:
    floor = Floor({"a": {"max_concurrent": 1, "max_waiting": 3}})
    lease = await floor.enter("a")
    waiting = entering(floor, "a", "a", "a")
    await settled()
    assert [task.done() for task in waiting] == [False] * 3
    for place, task in enumerate(waiting):
        floor.end(lease)
        await settled()
        assert [each.done() for each in waiting] == [True] * (place + 1) + [False] * (2 - place)
        lease = task.result()
        assert not lease.rejection
    floor.end(lease)
    floor.assert_empty()
    assert floor.counts("a") == {CallStatus.SUCCESS: 4}


@in_virtual_time
async def test_nobody_overtakes_who_waits_though_a_slot_is_free_already() -> None:
    floor = Floor({"a": {"max_concurrent": 1, "max_waiting": 9}})
    lease = await floor.enter("a")
    (first,) = entering(floor, "a")
    await settled()
    floor.end(lease)
    assert floor.pick("a").rejection == Rejection.CONCURRENCY
    instance = lease.backend
    assert instance is not None
    assert floor.router.pick_on(instance, "ping", floor.clock()).rejection == Rejection.CONCURRENCY
    floor.end(await first)
    floor.assert_empty()
    assert not floor.pick("a").rejection


@in_virtual_time
async def test_as_many_may_wait_as_are_configured_or_as_may_be_under_way() -> None:
    floor = Floor({"a": {"max_concurrent": 2}, "b": {"max_concurrent": 1, "max_waiting": 0}})
    leases = [await floor.enter("a"), await floor.enter("a"), await floor.enter("b")]
    waiting = entering(floor, "a", "a")
    await settled()
    with pytest.raises(OverloadedError, match=r"concurrency limit of 2 .*; the queue is full") as refused:
        await floor.enter("a")
    # Two are ahead of it, two are served at a time, and each takes 0.2 s.
    assert refused.value.retry_after_s == pytest.approx(0.3)
    assert refused.value.limit == "limits.max_concurrent"
    assert (refused.value.delivery, refused.value.retryable) == ("not_sent", True)
    with pytest.raises(OverloadedError, match="concurrency limit of 1"):
        await floor.enter("b")
    for lease in leases:
        floor.end(lease)
    for task in waiting:
        floor.end(await task)
    floor.assert_empty()
    assert floor.counts("a") == {CallStatus.SUCCESS: 4, CallStatus.OVERLOADED: 1}


@in_virtual_time
async def test_a_wait_ends_when_it_has_been_too_long() -> None:
    floor = Floor({"a": {"max_concurrent": 1, "max_waiting": 9, "max_wait_s": 0.5}})
    lease = await floor.enter("a")
    came_ns = floor.clock()
    with pytest.raises(OverloadedError, match=r"no slot was free within 0\.5 s"):
        await floor.enter("a")
    assert floor.clock() - came_ns == pytest.approx(SECOND / 2, abs=1000)
    with pytest.raises(DeadlineExceededError, match="concurrency limit of 1") as late:
        await floor.enter("a", timeout_s=0.3)
    assert late.value.delivery == "not_sent"
    assert floor.clock() - came_ns == pytest.approx(SECOND * 0.8, abs=1000)
    floor.assert_empty()
    assert floor.counts("a") == {CallStatus.OVERLOADED: 1, CallStatus.TIMEOUT: 1}
    floor.end(lease)


@in_virtual_time
async def test_without_a_wait_a_call_is_refused_at_once() -> None:
    floor = Floor({"a": {"max_concurrent": 1, "max_wait_s": 0.0}})
    lease = await floor.enter("a")
    came_ns = floor.clock()
    with pytest.raises(OverloadedError):
        await floor.enter("a")
    assert floor.clock() == came_ns
    floor.end(lease)


@in_virtual_time
async def test_whoever_gives_up_leaves_their_place_to_the_next() -> None:
    floor = Floor({"a": {"max_concurrent": 1, "max_waiting": 9}})
    lease = await floor.enter("a")
    first, second, third = entering(floor, "a", "a", "a")
    await settled()
    first.cancel()
    await settled()
    assert floor.servers["a"].record.waiting == 2
    floor.end(lease)
    # Cancelled before the turn that it has now is given out.
    second.cancel()
    floor.end(await third)
    floor.assert_empty()
    assert floor.counts("a") == {CallStatus.SUCCESS: 2, CallStatus.CANCELLED: 2}


@in_virtual_time
async def test_a_turn_that_is_given_to_a_cancelled_call_goes_to_the_next() -> None:
    floor = Floor({"a": {"max_concurrent": 1, "max_waiting": 9}})
    lease = await floor.enter("a")
    given: list[Lease] = []

    def cancel(granted: Lease) -> None:
        # The turn is the call's, and its task has not run yet.
        given.append(granted)
        asyncio.get_running_loop().call_soon(first.cancel)

    first = asyncio.ensure_future(floor.enter("a", granted=cancel))
    (second,) = entering(floor, "a")
    await settled()
    floor.end(lease)
    await settled()
    assert given
    floor.end(await second)
    with pytest.raises(asyncio.CancelledError):
        await first
    floor.assert_empty()
    assert floor.router.inflight == 0
    assert floor.counts("a") == {CallStatus.SUCCESS: 2, CallStatus.CANCELLED: 1}


@in_virtual_time
async def test_an_adaptive_limit_makes_calls_wait_and_says_so() -> None:
    floor = Floor({"a": {"initial": 1, "max_waiting": 1}})
    floor.end(await floor.enter("a"), CallStatus.OVERLOADED)
    lease = await floor.enter("a")
    (waiting,) = entering(floor, "a")
    await settled()
    with pytest.raises(OverloadedError, match="adaptive concurrency limits") as refused:
        await floor.enter("a")
    assert refused.value.limit == "limits.concurrency"
    floor.end(lease)
    floor.end(await waiting)
    floor.assert_empty()


@in_virtual_time
async def test_who_leaves_makes_room_for_one_that_could_go_on_at_once() -> None:
    floor = Floor({"a": {"initial": 1, "max_waiting": 9}})
    floor.end(await floor.enter("a"), CallStatus.OVERLOADED)
    lease = await floor.enter("a")
    full = lease.backend
    pinned = asyncio.ensure_future(floor.enter("a", on=full))
    await settled()
    floor.add_backend("a")
    await settled()
    # It wants no other instance, and is the first.
    (other,) = entering(floor, "a")
    await settled()
    assert (pinned.done(), other.done()) == (False, False)
    pinned.cancel()
    await settled()
    floor.end(other.result())
    floor.end(lease)
    floor.assert_empty()


@in_virtual_time
async def test_room_that_nobody_announces_is_found_before_a_wait_is_over() -> None:
    floor = Floor({"a": {"initial": 1, "max_wait_s": 1.0}})
    floor.end(await floor.enter("a"), CallStatus.OVERLOADED)
    other = floor.add_backend("a")
    floor.router.eject(other, floor.clock() + SECOND // 2)
    lease = await floor.enter("a")
    found = await floor.enter("a")
    assert found.backend is other
    for each in (lease, found):
        floor.end(each)
    floor.assert_empty()


@in_virtual_time
async def test_those_who_wait_for_a_server_that_is_removed_are_told() -> None:
    floor = Floor({"a": {"max_concurrent": 1, "max_waiting": 9}})
    lease = await floor.enter("a")
    waiting = entering(floor, "a", "a")
    await settled()
    floor.router.remove_server("a")
    for task in waiting:
        with pytest.raises(CallError, match="removed while the call waited") as removed:
            await task
        assert removed.value.delivery == "not_sent"
    floor.assert_empty()
    floor.end(lease)


@in_virtual_time
async def test_what_waiting_does_not_help_is_returned_as_it_is() -> None:
    floor = Floor({"a": {"max_concurrent": 1, "max_waiting": 9}})
    lease = await floor.enter("a")
    waiting = entering(floor, "a", "a")
    await settled()
    assert lease.backend is not None
    floor.router.trip(lease.backend, floor.clock())
    floor.end(lease, CallStatus.CONNECTION_LOST)
    assert [(await task).rejection for task in waiting] == [Rejection.CIRCUIT_OPEN] * 2
    floor.assert_empty()


@in_virtual_time
async def test_all_servers_together_have_a_limit_and_one_order() -> None:
    floor = Floor({"a": {}, "b": {}, "c": {}}, max_concurrent=2, max_waiting=3)
    leases = [await floor.enter("a"), await floor.enter("b")]
    assert floor.router.inflight == 2
    waiting = entering(floor, "c", "a", "b")
    await settled()
    with pytest.raises(OverloadedError, match="manager's concurrency limit of 2") as refused:
        await floor.enter("a")
    assert refused.value.limit == "max_concurrent"
    assert refused.value.retry_after_s is not None
    for place in range(3):
        floor.end(leases.pop(0))
        # A slot is free, and is not for newcomers.
        assert floor.pick("a").rejection == Rejection.TOGETHER
        await settled()
        assert [task.done() for task in waiting] == [True] * (place + 1) + [False] * (2 - place)
        leases.append(waiting[place].result())
    for lease in leases:
        floor.end(lease)
    floor.assert_empty()
    assert floor.router.inflight == 0


@in_virtual_time
async def test_a_server_at_its_own_limit_does_not_hold_up_the_others() -> None:
    floor = Floor({"a": {"max_concurrent": 1, "max_waiting": 9}, "b": {}}, max_concurrent=2)
    leases = [await floor.enter("a"), await floor.enter("b")]
    own, other = entering(floor, "a", "b")
    await settled()
    floor.end(leases[1])
    await settled()
    assert (own.done(), other.done()) == (False, True)
    # Nobody waits for the others any more, so that who comes now need not wait either.
    assert floor.router.waiting == 0
    floor.end(other.result())
    floor.end(await floor.enter("b"))
    floor.end(leases[0])
    floor.end(await own)
    floor.assert_empty()


@in_virtual_time
async def test_waits_for_all_servers_end_as_the_manager_is_configured() -> None:
    floor = Floor({"a": {}}, max_concurrent=1, max_wait_s=2.0, max_waiting=1)
    lease = await floor.enter("a")
    came_ns = floor.clock()
    with pytest.raises(OverloadedError, match="no slot was free within 2 s"):
        await floor.enter("a")
    assert floor.clock() - came_ns == pytest.approx(2 * SECOND, abs=1000)
    # Those who left are not counted among those who wait.
    for _ in range(3):
        (waiting,) = entering(floor, "a")
        await settled()
        waiting.cancel()
    (waiting,) = entering(floor, "a")
    await settled()
    floor.end(lease)
    floor.end(await waiting)
    floor.assert_empty()


@in_virtual_time
async def test_across_servers_it_is_the_turn_of_who_came_first_though_others_left() -> None:
    floor = Floor({"a": {}, "b": {}}, max_concurrent=1)
    lease = await floor.enter("a")
    left, second, third = entering(floor, "a", "b", "a")
    await settled()
    left.cancel()
    floor.end(lease)
    await settled()
    assert (second.done(), third.done()) == (True, False)
    floor.end(second.result())
    floor.end(await third)
    floor.assert_empty()


@in_virtual_time
async def test_rates_and_pauses_are_refused_by_name_and_with_the_time_to_come_back() -> None:
    floor = Floor({"a": {"rate": {"rate": 2.0}}, "b": {}, "c": {"shedding": True}})
    server = floor.servers["a"]
    await floor.enter("a")
    over = refusal(server, await floor.enter("a"), floor.config)
    assert (over.limit, over.retry_after_s) == ("limits.rate", 0.5)
    assert "2 per second is reached (limits.rate)" in str(over)
    lease = await floor.enter("b")
    floor.router.done(lease, 2, CallStatus.OVERLOADED, floor.clock(), retry_after_ns=3 * SECOND)
    paused = refusal(floor.servers["b"], await floor.enter("b"), floor.config)
    assert (paused.limit, paused.retry_after_s) == (None, 3.0)
    for _ in range(50):
        lease = await floor.enter("c")
        if lease.rejection:
            break
        floor.router.done(lease, 2, CallStatus.OVERLOADED, floor.clock())
    shed = refusal(floor.servers["c"], lease, floor.config)
    assert (shed.limit, shed.retry_after_s) == ("limits.shedding", None)


@in_virtual_time
async def test_a_tool_has_a_rate_of_its_own() -> None:
    floor = Floor({"a": {"tools": {"slow": {"rate": 0.5, "burst": 2}, "free": {"rate": 0.0}}}})
    rates, server = ToolRates(floor.router), floor.servers["a"]

    def take(tool: str | None) -> None:
        rates.take(server, "tools/call", tool, floor.clock())

    take("slow")
    take("slow")
    with pytest.raises(OverloadedError, match=r"tool 'slow', 0\.5 per second, is reached") as refused:
        take("slow")
    assert (refused.value.limit, refused.value.retry_after_s) == ("limits.tools", 2.0)
    for _ in range(20):
        take("free")
        take("another")
        take(None)
    assert floor.counts("a") == {CallStatus.OVERLOADED: 1}
    await asyncio.sleep(2.0)
    take("slow")
    rates.forget("a")
    take("slow")
