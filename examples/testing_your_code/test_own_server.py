"""Bookings with a server object in memory: it keeps a state, and time need not pass."""

from __future__ import annotations

import asyncio

from booking import Booking, Desk, NotBookedError
from mcp.server.mcpserver import MCPServer

from mcp_manager import McpManager
from mcp_manager.testing import VirtualClock


def test_it_waits_until_a_maintenance_is_over(virtual_clock: VirtualClock) -> None:
    """Seven minutes pass at once, because the server is in memory and nothing waits for a socket."""
    server = MCPServer("travel")

    @server.tool()
    def book_seat(booking_id: str, seat: int, passenger: str) -> dict[str, str]:
        return {"code": f"{passenger}-{seat}"}

    async def scenario() -> Booking:
        async with McpManager(server) as manager:
            await manager.set_maintenance("travel", True)
            booking = asyncio.create_task(Desk(manager, attempts=5, pause_s=60).book(7, "Ada"))
            await asyncio.sleep(400)
            await manager.set_maintenance("travel", False)
            return await booking

    assert virtual_clock.run(scenario()).code == "Ada-7"
    # The pauses are of 60, 120 and 240 seconds; the manager's own retries take some more.
    assert 420 <= virtual_clock.passed_s < 480


async def test_a_seat_is_booked_for_one_of_two(mcp_fleet: McpManager) -> None:
    server = MCPServer("travel")
    taken: dict[int, str] = {}

    @server.tool()
    def book_seat(booking_id: str, seat: int, passenger: str) -> dict[str, str]:
        if taken.setdefault(seat, booking_id) != booking_id:
            raise ValueError(f"seat {seat} is taken")
        return {"code": f"{passenger}-{seat}"}

    await mcp_fleet.deploy("travel", server)
    desk = Desk(mcp_fleet)
    outcomes = await asyncio.gather(*(desk.book(7, name) for name in ("Ada", "Grace")), return_exceptions=True)
    assert [type(each) for each in outcomes].count(Booking) == 1
    assert [type(each) for each in outcomes].count(NotBookedError) == 1
