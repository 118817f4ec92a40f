"""An HTTP proxy on a thread of its own: tunnels, absolute targets, credentials, and faults."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Final, Self

from mcp_manager.testing.scripted.listening import stop_listening

__all__ = ["ScriptedProxy"]

_WAIT_S: Final = 10.0
_UNAUTHORIZED: Final = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
)


class ScriptedProxy:
    """Serve as a proxy; ``with`` starts and ends it.

    Parameters
    ----------
    hosts
        The addresses of host names that only the proxy resolves.
    credentials
        ``user:password`` that it requires; "" for none.
    answer
        The raw answer to every request instead of forwarding it; ``b""`` closes the connection.
    silent
        Accept connections and answer nothing.
    tls
        The TLS context that makes it an https proxy.
    """

    def __init__(
        self,
        *,
        hosts: Mapping[str, str] | None = None,
        credentials: str = "",
        answer: bytes | None = None,
        silent: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = hosts or {}
        self._wanted = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        self.answer = answer
        self.silent = silent
        self._tls = tls
        self.requests: list[str] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        # Kept here, because a task that waits for an otherwise unreferenced event is garbage-collected.
        self._never = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_WAIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """Its URL, without credentials."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def with_credentials(self, credentials: str) -> str:
        """Return its URL with user and password."""
        return self.url.replace("://", f"://{credentials}@")

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        assert self._server is not None
        await stop_listening(self._server)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
            self.requests.append(first)
            # Closing a connection with unread data resets it, and the answer would be lost.
            body = await reader.readexactly(_length(fields))
            if self.silent:
                await self._never.wait()
            refusal = self.answer
            if refusal is None and self._wanted and f"Proxy-Authorization: {self._wanted}" not in fields:
                refusal = _UNAUTHORIZED
            if refusal is None:
                break
            writer.write(refusal)
            await writer.drain()
            if not refusal.startswith(b"HTTP/"):
                writer.close()
                await writer.wait_closed()
                return
        verb, target, _ = first.split(" ")
        if verb == "CONNECT":
            host, _, port = target.rpartition(":")
            async with self._connected(host, int(port)) as (upward, downward):
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await _either(_pump(reader, downward), _pump(upward, writer))
        else:
            host, _, port = target.removeprefix("http://").partition("/")[0].partition(":")
            async with self._connected(host, int(port or 80)) as (upward, downward):
                await _either(self._pump_requests(head, body, reader, downward), _pump(upward, writer))

    async def _pump_requests(
        self, head: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward requests without their proxy headers; all requests on one connection have the same target host."""
        while True:
            first, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
            verb, target, version = first.split(" ")
            kept = [each for each in fields if not each.lower().startswith("proxy-")]
            path = "/" + target.removeprefix("http://").partition("/")[2]
            writer.write("\r\n".join([f"{verb} {path} {version}", *kept, "", ""]).encode("latin-1"))
            writer.write(body)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            body = await reader.readexactly(_length(head.split("\r\n")))
            self.requests.append(head.partition("\r\n")[0])

    @contextlib.asynccontextmanager
    async def _connected(
        self, host: str, port: int
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self._hosts.get(host, host), port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


def _length(fields: list[str]) -> int:
    return sum(int(each.partition(":")[2]) for each in fields if each.lower().startswith("content-length:"))


async def _either(*ways: Coroutine[Any, Any, None]) -> None:
    """Run coroutines in parallel until one ends, and cancel the others."""
    tasks = [asyncio.create_task(each) for each in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
