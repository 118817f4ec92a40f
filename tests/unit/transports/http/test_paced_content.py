"""Bodies that are read in time slices: the size of a piece, and when reading does not wait."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp.base_protocol import BaseProtocol

from mcp_manager.runtime.read_budget import CoroutineReader, ReadBudget
from mcp_manager.transports.http.connections.paced_content import PacedContent

_FIRST = 4096


class Clock:
    """Time that passes as a test likes."""

    def __init__(self) -> None:
        self.now_ns = 1

    def __call__(self) -> int:
        return self.now_ns


def content_of(clock: Clock) -> tuple[aiohttp.StreamReader, PacedContent, ReadBudget]:
    loop = asyncio.get_running_loop()
    stream = aiohttp.StreamReader(BaseProtocol(loop), 1 << 20, loop=loop)
    budget = ReadBudget(loop, clock)
    return stream, PacedContent(stream, budget, CoroutineReader(budget)), budget


async def test_the_end_of_a_body_is_told_also_where_the_turn_is_used_up() -> None:
    clock = Clock()
    stream, content, budget = content_of(clock)
    stream.feed_data(b"x" * 100)
    stream.feed_eof()
    assert await content.read() == b"x" * 100
    clock.now_ns += 1_000_000_000
    end = content.read()
    try:
        # Whoever waits does so beside whatever else floods the loop.
        end.send(None)
    except StopIteration as ended:
        assert ended.value == b""
    else:
        raise AssertionError("it waited for its turn")
    finally:
        end.close()
    assert not budget._waiting


async def test_small_pieces_say_nothing_of_larger_ones() -> None:
    clock = Clock()
    stream, content, _ = content_of(clock)
    for _ in range(20):
        stream.feed_data(b"x" * 100)
        assert await content.read() == b"x" * 100
    stream.feed_data(b"x" * (1 << 20))
    assert len(await content.read()) == _FIRST
    assert len(await content.read()) == 2 * _FIRST


async def test_pieces_that_take_long_get_smaller() -> None:
    clock = Clock()
    stream, content, budget = content_of(clock)
    stream.feed_data(b"x" * (1 << 16))
    sizes = []
    for _ in range(8):
        sizes.append(len(await content.read()))
        clock.now_ns += 150_000
    assert sizes == [4096, 2048, 1024, 512, 256, 256, 256, 256]
    assert not budget._waiting
