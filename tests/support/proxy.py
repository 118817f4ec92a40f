"""A proxy for HTTP on a thread of its own: tunnels, absolute targets, credentials, and all it may do wrong."""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from collections.abc import Mapping
from typing import Final, Self

__all__ = ["ScriptedProxy"]

_WAIT_S: Final = 10.0


class ScriptedProxy:
    """Serve as a proxy; ``with`` starts and ends it.

    Parameters
    ----------
    hosts
        Where names lead that nobody else knows.
    credentials
        ``user:password`` that it wants.
    answer
        What it answers to everything, in place of doing it; ``b""`` closes the connection.
    silent
        Accept connections and say nothing.
    tls
        Be an https proxy with this context.
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
        self.heads: list[str] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-proxy", daemon=True)
        self._server: asyncio.Server | None = None

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
        self._server.close()
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
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, _, fields = head.partition("\r\n")
        self.requests.append(first)
        self.heads.append(head)
        if self.silent:
            await asyncio.Event().wait()
        if self.answer is not None:
            await self._say(writer, self.answer)
            return
        if self._wanted and f"proxy-authorization: {self._wanted.lower()}\r\n" not in fields.lower():
            text = (
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
            )
            await self._say(writer, text)
            return
        verb, target, version = first.split(" ")
        if verb == "CONNECT":
            host, _, port = target.rpartition(":")
            await self._pass_on(reader, writer, host, int(port), b"", b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            authority, _, path = target.removeprefix("http://").partition("/")
            host, _, port = authority.partition(":")
            kept = [each for each in fields.split("\r\n") if not each.lower().startswith("proxy-authorization:")]
            request = f"{verb} /{path} {version}\r\n" + "\r\n".join(kept)
            await self._pass_on(reader, writer, host, int(port or 80), request.encode("latin-1"), b"")

    async def _say(self, writer: asyncio.StreamWriter, text: bytes) -> None:
        writer.write(text)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str,
        port: int,
        request: bytes,
        answer: bytes,
    ) -> None:
        upward, downward = await asyncio.open_connection(self._hosts.get(host, host), port)
        try:
            downward.write(request)
            writer.write(answer)
            ways = [asyncio.create_task(_pump(reader, downward)), asyncio.create_task(_pump(upward, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            downward.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
