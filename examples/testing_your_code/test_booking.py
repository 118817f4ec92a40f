"""What becomes of a booking when its server fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from booking import SETTINGS, Booking, Desk, NotBookedError, UncertainBookingError, cancel

from mcp_manager import CallError, McpManager, PyMcpManager
from mcp_manager.testing import (
    AnyFault,
    Era,
    FaultProxyFactory,
    Faults,
    FaultyProgram,
    FaultyServer,
    FaultyServerFactory,
    Hold,
    Tool,
    assert_delivery,
    assert_no_hang,
    assert_recovers,
)

Tools = dict[str, Tool]
# No test needs as much; a call that does hangs.
SOON_S = 20.0


async def desk_for(manager: McpManager, server: FaultyServer | FaultyProgram, timeout_s: float = 5.0) -> Desk:
    """Deploy a server as the application does, and return a desk that tries again at once."""
    await manager.deploy("travel", {**server.spec, **SETTINGS})
    return Desk(manager, pause_s=0.01, timeout_s=timeout_s)


def calls_seen(server: FaultyServer | FaultyProgram) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls that reached a server, whether they were executed or not."""
    return [(each.params["name"], each.params["arguments"]) for each in server.requests_of("tools/call")]


@pytest.mark.parametrize("era", ["handshake", "stateless"])
@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_a_seat_is_booked(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools, era: Era, transport: str
) -> None:
    server = faulty_server(era, tools) if transport == "http" else faulty_server(era, tools, transport="stdio")
    desk = await desk_for(mcp_fleet, server)
    booking = await desk.book(7, "Ada")
    assert booking == Booking(id=booking.id, seat=7, code="AX7")
    # A snapshot of what the server saw.
    assert calls_seen(server) == [("book_seat", {"booking_id": booking.id, "seat": 7, "passenger": "Ada"})]


@pytest.mark.parametrize(
    "faults",
    [
        # The manager makes two attempts at each call, so three refusals take a second one of the desk.
        pytest.param([Faults.status(429)] * 3, id="overloaded"),
        pytest.param([Faults.expire_session(404)], id="session-lost-404"),
        pytest.param([Faults.expire_session(400)], id="session-lost-400"),
        pytest.param([Faults.status(429), Faults.expire_session()], id="both"),
    ],
)
async def test_what_was_not_executed_is_tried_again(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools, faults: list[AnyFault]
) -> None:
    server = faulty_server("handshake", tools)
    desk = await desk_for(mcp_fleet, server)
    server.next(*faults)
    booking = await desk.book(7, "Ada")
    server.ledger.assert_executed_once("book_seat")
    # All attempts are the same booking.
    arguments = {"booking_id": booking.id, "seat": 7, "passenger": "Ada"}
    assert calls_seen(server) == [("book_seat", arguments)] * (len(faults) + 1)


@pytest.mark.parametrize(
    ("fault", "is_executed"),
    [
        pytest.param(Faults.reset(after="request"), False, id="reset-before"),
        pytest.param(Faults.reset(after="execution"), True, id="reset-after"),
        pytest.param(Faults.reset(after="half"), True, id="reset-in-the-reply"),
        pytest.param(Faults.truncate_stream(), True, id="truncated"),
        pytest.param(Faults.stall(after="execution"), True, id="no-answer"),
        pytest.param(Faults.accepted_without_answer(), True, id="accepted"),
        pytest.param(Faults.wrong_id(), True, id="another-reply"),
    ],
)
async def test_what_may_have_been_executed_is_undone_and_not_repeated(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools, fault: AnyFault, is_executed: bool
) -> None:
    server = faulty_server("stateless", tools)
    desk = await desk_for(mcp_fleet, server, timeout_s=0.3)
    server.next(fault)
    async with assert_no_hang(within=SOON_S):
        with pytest.raises(NotBookedError, match="is undone") as caught:
            await desk.book(7, "Ada")
    assert isinstance(caught.value.__cause__, CallError)
    assert_delivery(caught.value.__cause__, "unknown", "answered")
    booked, cancelled = calls_seen(server)
    assert cancelled == ("cancel_booking", {"booking_id": booked[1]["booking_id"]})
    server.ledger.assert_executed_once("cancel_booking")
    assert len(server.ledger.of("book_seat")) == is_executed


async def test_a_lost_cancellation_is_repeated(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools
) -> None:
    server = faulty_server("stateless", tools)
    desk = await desk_for(mcp_fleet, server)
    server.next(Faults.reset(after="headers"), times=2)
    with pytest.raises(NotBookedError):
        await desk.book(7, "Ada")
    server.ledger.assert_executed_once("book_seat")
    assert [name for name, _ in calls_seen(server)] == ["book_seat", "cancel_booking", "cancel_booking"]


async def test_a_booking_that_cannot_be_undone_is_reported(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools
) -> None:
    server = faulty_server("stateless", tools)
    desk = await desk_for(mcp_fleet, server)
    server.next(Faults.reset(after="execution"), times=3)
    with pytest.raises(UncertainBookingError) as caught:
        await desk.book(7, "Ada")
    (entry,) = server.ledger.of("book_seat")
    assert caught.value.booking_id == entry.arguments["booking_id"]


async def test_a_booking_is_reported_whose_server_was_removed(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools
) -> None:
    server = faulty_server("stateless", tools)
    desk = await desk_for(mcp_fleet, server)
    server.next(Hold())
    booking = asyncio.create_task(desk.book(7, "Ada"))
    await server.wait_for("tools/call")
    await mcp_fleet.undeploy("travel")
    with pytest.raises(UncertainBookingError):
        await booking


async def test_a_refusal_is_final(faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools) -> None:
    server = faulty_server(tools={**tools, "book_seat": Tool(is_error=True, result="seat 7 is taken")})
    desk = await desk_for(mcp_fleet, server)
    with pytest.raises(NotBookedError, match="seat 7 is taken"):
        await desk.book(7, "Ada")
    assert [name for name, _ in calls_seen(server)] == ["book_seat"]


async def test_an_answer_that_makes_no_sense_is_no_booking(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools
) -> None:
    server = faulty_server(tools={**tools, "book_seat": Tool(structured={"number": 7})})
    desk = await desk_for(mcp_fleet, server)
    with pytest.raises(NotBookedError, match="is undone"):
        await desk.book(7, "Ada")
    server.ledger.assert_executed_once("cancel_booking")


async def test_a_caller_that_leaves_has_no_booking(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools
) -> None:
    server = faulty_server("stateless", tools)
    desk = await desk_for(mcp_fleet, server)
    hold = Hold()
    server.next(hold)
    booking = asyncio.create_task(desk.book(7, "Ada"))
    await server.wait_for("tools/call")
    booking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await booking
    hold.release()
    server.ledger.assert_executed_once("cancel_booking")


async def test_it_works_again_after_an_outage(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools
) -> None:
    server = faulty_server("handshake", tools)
    desk = await desk_for(mcp_fleet, server)
    await desk.book(1, "Ada")
    server.next(Faults.exit())
    with pytest.raises((NotBookedError, UncertainBookingError)):
        await desk.book(2, "Ada")
    server.restart()
    await assert_recovers(lambda: desk.book(3, "Ada"), within=SOON_S, calls=3)


async def test_a_program_that_dies_is_started_again(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools
) -> None:
    server = faulty_server(tools=tools, transport="stdio")
    await mcp_fleet.deploy("travel", {**server.spec, **SETTINGS, "restart": {"initial_s": 0.05}})
    desk = Desk(mcp_fleet, pause_s=0.05)
    server.next(Faults.exit())
    with pytest.raises((NotBookedError, UncertainBookingError)):
        await desk.book(1, "Ada")
    await assert_recovers(lambda: desk.book(2, "Ada"), within=SOON_S, calls=2)
    assert len(set(server.pids)) == 2


async def test_many_at_once_with_a_slow_and_chatty_server(
    faulty_server: FaultyServerFactory, mcp_fleet: McpManager, tools: Tools
) -> None:
    server = faulty_server("handshake", tools, sse=True, seed=1)
    desk = await desk_for(mcp_fleet, server)
    server.next(Faults.slow(p50=0.01, p99=0.05), Faults.list_changed_storm(rate=1000, count=50))
    async with assert_no_hang(within=SOON_S):
        bookings = await asyncio.gather(*(desk.book(seat, "Ada") for seat in range(20)))
    assert [each.seat for each in bookings] == list(range(20))
    for each in bookings:
        server.ledger.assert_executed_once("book_seat", {"booking_id": each.id, "seat": each.seat, "passenger": "Ada"})


async def test_a_bad_network(
    faulty_server: FaultyServerFactory, fault_proxy: FaultProxyFactory, mcp_fleet: McpManager, tools: Tools
) -> None:
    """A proxy stands in front of any server, a real one, too."""
    server = faulty_server("stateless", tools)
    proxy = fault_proxy(server.url, latency_s=0.01, piece=7)
    await mcp_fleet.deploy("travel", {"url": proxy.url, **SETTINGS})
    desk = Desk(mcp_fleet, attempts=1)
    await desk.book(1, "Ada")
    proxy.down()
    with pytest.raises(NotBookedError, match="cannot be reached"):
        await desk.book(2, "Ada")
    assert len(server.ledger) == 1


def test_an_uncertain_booking_is_cancelled_from_a_thread(
    faulty_server: FaultyServerFactory, mcp_fleet: PyMcpManager, tools: Tools
) -> None:
    """In a test that is not async, the fleet is a ``PyMcpManager``."""
    server = faulty_server("handshake", tools)
    mcp_fleet.deploy_server("travel", {**server.spec, **SETTINGS})
    server.next(Faults.reset(after="headers"))
    cancel(mcp_fleet, "B-1")
    # The answer to the first was lost; to cancel twice does no harm.
    assert calls_seen(server) == [("cancel_booking", {"booking_id": "B-1"})] * 2
