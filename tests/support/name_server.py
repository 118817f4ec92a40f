"""A DNS server on the loopback interface, over UDP and TCP, whose records a test can change."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Self, cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from mcp_manager.testing.scripted.listening import stop_listening
from mcp_manager.testing.scripted.watching import Watched

__all__ = ["NameServer"]

_WAIT_S = 10.0


class NameServer(Watched):
    """Answer queries on a thread of its own; ``with`` starts and ends it.

    ``records[name, kind]`` are the texts of a name's records; the name has no dot at its end. A name without any entry
    does not exist. ``ttl`` is the TTL of all answers. If ``rcode`` is set, it answers every query, ``rcodes[name]`` those for a name. Queries for a kind
    in ``silent`` (``*``: any kind) get no answer. With ``is_truncating``, answers over UDP are truncated, so that
    clients use TCP. ``asked`` are the queries so far.

    Parameters
    ----------
    port
        The port to listen on; 0 for any free one.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.records: dict[tuple[str, str], list[str]] = {}
        self.ttl = 0
        self.rcode: dns.rcode.Rcode | None = None
        self.rcodes: dict[str, dns.rcode.Rcode] = {}
        self.silent: set[str] = set()
        self.is_truncating = False
        self.asked: list[tuple[str, str, str]] = []
        self.port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self.connections: set[asyncio.Transport] = set()

    @property
    def address(self) -> str:
        """The address in the form of the configuration."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="name-server", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None and self._thread is not None
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def stop(self) -> None:
        """Stop answering, without an orderly end of connections; idempotent."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_WAIT_S)

    async def wait_for_queries(self, count: int) -> None:
        """Wait until ``count`` more queries have arrived."""
        end = len(self.asked) + count
        await self.wait_until(lambda: len(self.asked) >= end)

    def answer(self, wire: bytes, over: str) -> bytes | None:
        """Return the answer to a query, ``None`` if it gets none."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, over))
        self.news()
        if kind in self.silent or "*" in self.silent:
            return None
        reply = dns.message.make_response(query, recursion_available=True)
        rcode = self.rcodes.get(name, self.rcode)
        if rcode is not None:
            reply.set_rcode(rcode)
        elif self.is_truncating and over == "udp":
            reply.flags |= dns.flags.TC
        elif (name, kind) in self.records:
            texts = self.records[name, kind]
            if texts:
                reply.answer.append(dns.rrset.from_text(question.name, self.ttl, dns.rdataclass.IN, kind, *texts))
        elif not any(each == name for each, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        # A port that is free for TCP may be taken for UDP.
        wanted = self.port
        while True:
            listener = socket.create_server(("127.0.0.1", wanted))
            self.port = listener.getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
                )
            except OSError:
                listener.close()
                if wanted:
                    raise
                continue
            self._tcp = await loop.create_server(lambda: _Stream(self), sock=listener)
            return

    async def _close(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            await stop_listening(self._tcp)
            self._tcp = None
        for transport in list(self.connections):
            transport.abort()
        for _ in range(2):
            await asyncio.sleep(0)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # On Python 3.11 the transport has the methods of a DatagramTransport but is not an instance of it.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            reply = self._server.answer(data, "udp")
        except dns.exception.DNSException:
            return
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


class _Stream(asyncio.Protocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self._transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._received += data
        while len(self._received) >= 2:
            end = 2 + int.from_bytes(self._received[:2], "big")
            if len(self._received) < end:
                return
            reply = self._server.answer(bytes(self._received[2:end]), "tcp")
            del self._received[:end]
            if reply is not None:
                self._transport.write(len(reply).to_bytes(2, "big") + reply)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._server.connections.discard(self._transport)
