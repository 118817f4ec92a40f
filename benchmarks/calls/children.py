"""The processes of the benchmark: the server on one core, one client at a time on another; none outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Final, Self
from urllib.parse import urlsplit

from benchmarks.calls.checkout import child_environment
from mcp_manager.errors import McpManagerError

__all__ = ["ChildError", "JsonChild", "LoopbackServer", "Worker", "cores"]

_END_S: Final = 2.0
_START_S: Final = 60.0
_ANSWER_S: Final = 300.0
_SHOWN: Final = 500


class ChildError(McpManagerError):
    """A process of the benchmark ended or did not answer."""


def cores() -> tuple[int, int] | tuple[None, None]:
    """Return the cores of the server and of the clients, or ``None`` twice if there is no choice."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


class JsonChild:
    """A module of the benchmark as a process that exchanges lines of JSON and ends with its standard input.

    Parameters
    ----------
    module, arguments
        What to run. The message of a :class:`ChildError` quotes its standard error.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self.module = module
        self._received = b""
        self._errors = tempfile.TemporaryFile()
        # A session of its own, so that Ctrl-C reaches only this process.
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=child_environment(),
            start_new_session=True,
            bufsize=0,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def pid(self) -> int:
        """The process id; 0 once it is closed."""
        return self._process.pid if self._process is not None else 0

    async def ask(self, command: dict[str, Any] | None, *, timeout: float = _ANSWER_S) -> dict[str, Any]:
        """Send a command, if any, and return the next answer.

        Raises
        ------
        ChildError
            The process ended, was closed, or did not answer within ``timeout`` seconds.
        """
        if self._process is None:
            raise ChildError(f"{self.module} has ended")
        assert self._process.stdin is not None
        try:
            if command is not None:
                self._process.stdin.write(json.dumps(command).encode() + b"\n")
            async with asyncio.timeout(timeout):
                line = await self._line()
        except TimeoutError:
            raise self._failed(f"did not answer within {timeout:g} s") from None
        except BrokenPipeError:
            raise self._failed("ended") from None
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def aclose(self) -> None:
        """End the process, by force if it does not exit by itself, and reap it; idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.close()
            async with asyncio.timeout(_END_S):
                while await self._read(process):
                    pass
        except TimeoutError:
            pass
        finally:
            # Either its output has ended, and it is about to exit, or it must be killed.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            process.stdout.close()
            self._errors.close()

    async def _line(self) -> bytes:
        while b"\n" not in self._received:
            assert self._process is not None
            chunk = await self._read(self._process)
            if not chunk:
                raise self._failed("ended")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    async def _read(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        # The descriptor is readable until it is read, so this may be called again before the waiting task runs.
        loop.add_reader(descriptor, _resolve, readable)
        try:
            await readable
        finally:
            loop.remove_reader(descriptor)
        return os.read(descriptor, 65536)

    def _failed(self, what: str) -> ChildError:
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip()
        return ChildError(f"{self.module} {what}", hint=said[-_SHOWN:])


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class LoopbackServer(JsonChild):
    """The compiled server as a process; use it in an ``async with`` block.

    Parameters
    ----------
    core
        The processor core to pin it to; ``None`` for any.
    addresses
        How many addresses of 127.0.0.0/8 it listens on.
    """

    def __init__(self, core: int | None, addresses: int = 1) -> None:
        pinned = ("--core", str(core)) if core is not None else ()
        super().__init__("benchmarks.calls.serve", "--addresses", str(addresses), *pinned)
        self.port = 0

    async def __aenter__(self) -> Self:
        try:
            self.port = (await self.ask(None, timeout=_START_S))["port"]
        except BaseException:
            await self.aclose()
            raise
        return self

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """Return the URL of a path such as ``/json/100``."""
        return f"http://{host}:{self.port}{path}"

    async def usage(self) -> dict[str, int]:
        """Return the server's own ``cpu_us``, ``requests`` and ``connections`` so far."""
        where = urlsplit(self.url("/usage"))
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        try:
            writer.write(b"GET /usage HTTP/1.1\r\nHost: loopback\r\nConnection: close\r\n\r\n")
            _, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
            await writer.wait_closed()
        usage: dict[str, int] = json.loads(body)
        return usage


class Worker(JsonChild):
    """The process of one client on one kind of event loop.

    Parameters
    ----------
    client
        A name of :data:`~benchmarks.calls.worker.CLIENTS`, or ``""`` for jobs that need none.
    loop
        ``asyncio`` or ``uvloop``.
    core
        The processor core to pin it to; ``None`` for any.
    """

    def __init__(self, client: str, loop: str, core: int | None) -> None:
        pinned = ("--core", str(core)) if core is not None else ()
        super().__init__("benchmarks.calls.worker", "--client", client, "--loop", loop, *pinned)
        self.client = client
        self.loop = loop
