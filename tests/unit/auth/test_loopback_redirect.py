"""The ready redirect handler: it waits for the one request that knows the state."""

from __future__ import annotations

import asyncio
import os
import socket

import aiohttp
import pytest
from support.forking import living_child

from mcp_manager import LoopbackRedirect


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_only_who_knows_the_state_ends_the_wait() -> None:
    redirect = f"http://127.0.0.1:{free_port()}/callback"
    shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(
        LoopbackRedirect(shown.set_result)(f"https://as/authorize?state=right&redirect_uri={redirect}")
    )
    await shown
    async with aiohttp.ClientSession() as session:
        for path in ("?state=wrong&code=x", "/other?state=right", "?code=x"):
            async with session.get(redirect + path) as response:
                assert response.status == 404
        assert not waiting.done()
        async with session.get(f"{redirect}?state=right&code=x") as response:
            assert response.status == 200
    assert await waiting == f"{redirect}?state=right&code=x"


async def test_a_redirect_to_another_machine_is_not_waited_for() -> None:
    with pytest.raises(ValueError, match="not on loopback"):
        await LoopbackRedirect(print)("https://as/authorize?state=x&redirect_uri=https://h/callback")


async def test_a_connection_on_which_nothing_came_does_not_outlive_the_wait() -> None:
    port = free_port()
    shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(
        LoopbackRedirect(shown.set_result)(
            f"https://as/authorize?state=x&redirect_uri=http://127.0.0.1:{port}/callback"
        )
    )
    await shown
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # Answered in turn: by then, the first connection has been taken, too.
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/callback"):
        pass
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


@pytest.mark.both_loops
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
async def test_a_forked_child_does_not_keep_the_port() -> None:
    port = free_port()
    shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    redirect = LoopbackRedirect(shown.set_result)
    waiting = asyncio.create_task(
        redirect(f"https://as/authorize?state=x&redirect_uri=http://127.0.0.1:{port}/callback")
    )
    await shown
    with living_child():
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with socket.create_server(("127.0.0.1", port)):
            pass
