"""The bodies of aiohttp responses: no longer than allowed, and read in as little memory as they need."""

from __future__ import annotations

import asyncio
import tracemalloc
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol

from mcp_manager._core.http_message import OVERSIZE, WireError
from mcp_manager.transports.http.plain_requests import read_body


def response(length: int | None = None) -> Any:
    """Return a response whose body is still to be fed to its ``content``."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    content = aiohttp.StreamReader(protocol, 1 << 16, loop=loop)
    return cast(Any, SimpleNamespace(content_length=length, content=content))


async def read(pieces: list[bytes], limit: int) -> bytes:
    """Feed a body piece by piece, each when the one before it was taken, and return what was read."""
    source = response()
    reading = asyncio.get_running_loop().create_task(read_body(source, limit))
    for piece in pieces:
        await asyncio.sleep(0)
        if not reading.done():
            source.content.feed_data(piece)
    source.content.feed_eof()
    return await reading


@pytest.mark.parametrize("pieces", [[], [b"one"], [b"one", b"two"], [b"%03d" % n for n in range(500)]], ids=len)
async def test_a_body_is_all_of_its_pieces(pieces: list[bytes]) -> None:
    body = await read(pieces, 1500)
    assert (type(body), body) == (bytes, b"".join(pieces))


@pytest.mark.parametrize("pieces", [[b"x" * 11], [b"x" * 5] * 3], ids=["one", "several"])
async def test_a_body_beyond_the_limit_is_refused(pieces: list[bytes]) -> None:
    with pytest.raises(WireError) as refused:
        await read(pieces, 10)
    assert refused.value.kind == OVERSIZE
    assert await read([b"x" * 5, b"x" * 5], 10) == b"x" * 10


async def test_an_announced_length_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(WireError) as refused:
        await read_body(response(length=11), 10)
    assert (refused.value.kind, refused.value.size) == (OVERSIZE, 11)


@pytest.mark.slow
async def test_a_body_that_drips_takes_the_memory_of_its_bytes() -> None:
    pieces = [b"abc"] * 30_000
    size = 3 * len(pieces)
    tracemalloc.start()
    try:
        body = await read(pieces, size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(body) == size
    assert peak < 4 * size
