"""A connection of aiohttp's that is parsed by turns: what came before its end is not lost."""

from __future__ import annotations

import asyncio

from mcp_manager.runtime.read_budget import ReadBudget
from mcp_manager.transports.http.connections.paced_responses import PacedResponses


class Pipe(asyncio.Transport):
    """A transport that knows whether it is to be read from."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False

    def pause_reading(self) -> None:
        """Do nothing: the test feeds the protocol itself."""

    def resume_reading(self) -> None:
        """Do nothing: the test feeds the protocol itself."""

    def is_closing(self) -> bool:
        """Tell whether it was closed."""
        return self.is_closed

    def close(self) -> None:
        """Close it."""
        self.is_closed = True


def timeless() -> PacedResponses:
    """Return a connection for which parsing takes no time, however busy the machine is."""
    loop = asyncio.get_running_loop()
    protocol = PacedResponses(loop)
    protocol._budget = ReadBudget(loop, lambda: 1)
    return protocol


def begin(protocol: PacedResponses) -> None:
    protocol.connection_made(Pipe())
    protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=4096)


async def body_of(protocol: PacedResponses) -> bytes:
    _, payload = await protocol.read()
    return bytes(await payload.read())


async def test_what_came_before_the_end_is_read_though_the_reader_was_behind() -> None:
    size = 1 << 20
    protocol = PacedResponses(asyncio.get_running_loop())
    begin(protocol)
    protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    protocol.connection_lost(None)
    assert await asyncio.wait_for(body_of(protocol), 30) == b"x" * size


async def test_a_connection_that_ended_and_is_given_up_ends() -> None:
    protocol = PacedResponses(asyncio.get_running_loop())
    begin(protocol)
    protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + b"x" * (1 << 20))
    protocol.connection_lost(None)
    protocol.close()
    assert not protocol._unparsed
    assert not protocol.connected


async def test_pieces_that_were_not_full_say_nothing_of_larger_ones() -> None:
    protocol = timeless()
    begin(protocol)
    protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n")
    first = protocol._piece
    for _ in range(20):
        protocol.data_received(b"x" * 100)
    assert protocol._piece == first


async def test_a_piece_whose_rest_aiohttp_keeps_says_nothing_of_larger_ones() -> None:
    protocol = timeless()
    protocol.connection_made(Pipe())
    # aiohttp stops after some hundred chunks that nobody has read.
    protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=64)
    protocol.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    first = protocol._piece
    chunks = b"1\r\nx\r\n" * (first // 6 + 1)
    protocol.data_received(chunks[:first])
    assert protocol._reading_paused
    assert protocol._piece == first
