"""The fault proxy, seen by a client behind it, and the assertions, on what holds and on what does not."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from typing import Any, get_type_hints

import aiohttp
import pytest

from mcp_manager import CallError, ConnectError
from mcp_manager.testing import (
    FaultProxyFactory,
    FaultyServerFactory,
    LeakCheck,
    ProxyFaults,
    VirtualClock,
    assert_delivery,
    assert_no_hang,
    assert_recovers,
)
from mcp_manager.testing.fault_proxy import ProxyFaultFields
from mcp_manager.testing.faults import Bytes

BROKEN = (aiohttp.ClientError, ConnectionError)


async def fetch(http: aiohttp.ClientSession, url: str) -> bytes:
    async with http.get(url.replace("/mcp", "/__faults")) as response:
        return await response.read()


def test_editors_know_every_fault_of_a_proxy() -> None:
    assert get_type_hints(ProxyFaultFields) == get_type_hints(ProxyFaults)


async def test_a_proxy_passes_on_and_spoils(faulty_server: FaultyServerFactory, fault_proxy: FaultProxyFactory) -> None:
    proxy = fault_proxy(faulty_server().url)
    async with aiohttp.ClientSession() as http:
        whole = await fetch(http, proxy.url)
        assert whole.startswith(b'{"next"')
        began_s = time.monotonic()
        proxy.set(latency_s=0.05)
        assert await fetch(http, proxy.url) == whole
        assert time.monotonic() - began_s >= 0.05
        proxy.set(piece=3)
        assert await fetch(http, proxy.url) == whole
        began_s = time.monotonic()
        proxy.set(bytes_per_s=2000.0)
        assert await fetch(http, proxy.url) == whole
        assert time.monotonic() - began_s >= len(whole) / 2000
        proxy.set()
        proxy.reset()
        assert await fetch(http, proxy.url) == whole


async def test_a_proxy_breaks_a_connection_at_a_byte(
    faulty_server: FaultyServerFactory, fault_proxy: FaultProxyFactory
) -> None:
    server = faulty_server()
    proxy = fault_proxy(server.url, reset_after=40)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"GET /__faults HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ConnectionError):
        await reader.readexactly(41)
    writer.transport.abort()
    proxy.set(stall_after=40)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"GET /__faults HTTP/1.1\r\nHost: x\r\n\r\n")
    assert len(await asyncio.wait_for(reader.readexactly(40), 20)) == 40
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(1), 0.1)
    proxy.set()
    assert await asyncio.wait_for(reader.readexactly(1), 20)
    writer.transport.abort()


async def test_a_proxy_ends_while_connections_end(
    faulty_server: FaultyServerFactory, fault_proxy: FaultProxyFactory
) -> None:
    # The fixture leaks, and warnings as errors, tell of a connection that is left open.
    proxy = fault_proxy(faulty_server().url)
    for _ in range(20):
        opened = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(5)]
        for _, writer in opened:
            writer.write(b"GET /__faults HTTP/1.1\r\nHost: x\r\n\r\n")
        for reader, writer in opened:
            assert await reader.readexactly(1)
            writer.transport.abort()
        proxy.reset()


async def test_a_proxy_goes_down_and_up(faulty_server: FaultyServerFactory, fault_proxy: FaultProxyFactory) -> None:
    proxy = fault_proxy(faulty_server().url)
    async with aiohttp.ClientSession() as http:
        assert await fetch(http, proxy.url)
        proxy.down()
        assert proxy.open_connections == 0
        with pytest.raises(BROKEN):
            await fetch(http, proxy.url)
        proxy.up()
        assert await fetch(http, proxy.url)


def test_a_proxy_passes_on_all_to_a_slow_client_that_ended_its_side(
    faulty_server: FaultyServerFactory, fault_proxy: FaultProxyFactory
) -> None:
    server = faulty_server()
    server.next(Bytes(b"x" * 20_000_000), on="*")
    proxy = fault_proxy(server.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", proxy.port))
        client.sendall(b"POST /mcp HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        size = len(client.recv(10))
        client.shutdown(socket.SHUT_WR)
        while data := client.recv(1_000_000):
            size += len(data)
    assert size == 20_000_000


@pytest.mark.parametrize("faults", [{"latency_s": -1}, {"latency_s": "1"}, {"bytes_per_s": 0}, {"piece": 0}])
def test_faults_that_no_proxy_has_are_refused(fault_proxy: FaultProxyFactory, faults: dict[str, Any]) -> None:
    proxy = fault_proxy("http://127.0.0.1:9/mcp")
    with pytest.raises(ValueError, match=f"{next(iter(faults))} is a number of . at least, not "):
        proxy.set(**faults)


def test_a_proxy_needs_a_url(fault_proxy: FaultProxyFactory) -> None:
    with pytest.raises(ValueError, match="a proxy needs a URL of http or https, not 'localhost:80'"):
        fault_proxy("localhost:80")


# Assertions


async def test_what_hangs_is_told() -> None:
    async with assert_no_hang(within=20):
        await asyncio.sleep(0)
    with pytest.raises(AssertionError, match=r"it hangs: it has not ended within 0\.05 s"):
        async with assert_no_hang(within=0.05):
            await asyncio.Event().wait()
    # A timeout of the body's own is an end.
    with pytest.raises(TimeoutError):
        async with assert_no_hang(within=20), asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_what_recovers_and_what_does_not() -> None:
    outcomes = iter([False] * 5 + [True, False] + [True] * 100)

    async def call() -> None:
        if not next(outcomes):
            raise ConnectError("no")

    assert await assert_recovers(call, within=20, p=0.9, calls=10, pause=0.0) > 0
    assert len(list(outcomes)) == 100 + 2 - 10

    async def fail() -> None:
        raise ConnectError("never")

    with pytest.raises(
        AssertionError, match=r"0 of the latest 10 calls succeeded, and ConnectError\('never'\)"
    ) as caught:
        await assert_recovers(fail, within=0.1, pause=0.001)
    assert isinstance(caught.value.__cause__, ConnectError)
    with pytest.raises(AssertionError, match="the first call has not ended"):
        await assert_recovers(asyncio.Event().wait, within=0.05)
    with pytest.raises(ValueError, match="0 < p <= 1"):
        await assert_recovers(fail, within=1, p=2)


def test_what_an_error_says_of_its_request() -> None:
    error = CallError("x", delivery="unknown")
    assert_delivery(error, "unknown")
    assert_delivery(error, "rejected", "unknown")
    with pytest.raises(AssertionError, match="is unknown, not rejected or not_sent"):
        assert_delivery(error, "rejected", "not_sent")
    with pytest.raises(AssertionError, match="is no CallError"):
        assert_delivery(OSError(), "unknown")


# Time and leaks


def test_virtual_time_passes_at_once(virtual_clock: VirtualClock) -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7200):
                await asyncio.Event().wait()
        return loop.time() - began_s

    assert virtual_clock.run(wait()) == pytest.approx(7200)
    virtual_clock.run(asyncio.sleep(100))
    assert virtual_clock.passed_s == pytest.approx(7300)
    with pytest.raises(RuntimeError, match="all tasks wait"):
        virtual_clock.run(asyncio.Event().wait())


def test_threads_and_sockets_have_the_time_that_they_need(virtual_clock: VirtualClock) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await asyncio.to_thread(time.sleep, 0.05) or await reader.readline())
        await writer.drain()
        writer.close()

    async def ask() -> bytes:
        async with asyncio.timeout(3600):
            assert await asyncio.to_thread(lambda: time.sleep(0.05) or 5) == 5
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, asyncio.timeout(3600):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(3600)
        return answer

    assert virtual_clock.run(ask()) == b"hello\n"
    assert 3600 <= virtual_clock.passed_s < 3700


def test_a_leak_is_found_and_allowed() -> None:
    check = LeakCheck()
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, args=(30,), name="stays")
    thread.start()
    check.allow("threads", reason="see below")
    assert check.found() == []
    with pytest.raises(ValueError, match="allow needs a reason and kinds of tasks, loop_errors"):
        check.allow("sockets", reason="x")  # type: ignore[arg-type]
    gate.set()
    thread.join()
    assert check.close() == []


def test_what_a_suite_has_frozen_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    assert LeakCheck().close() == []
    assert gc.get_freeze_count() >= frozen
