"""The demo servers as child processes of the demo."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any, Final

from mcp_manager.errors import McpManagerError
from mcp_manager.transports.stdio.child import Child, child_environment

__all__ = ["HttpServerProcess", "stdio_server_config"]

_READY: Final = re.compile(rb"listening on http://127\.0\.0\.1:(\d+)/mcp\n")
_START_S: Final = 20.0
_END_S: Final = 1.0
_PACKAGE_PARENT: Final = str(Path(__file__).resolve().parents[3])


class HttpServerProcess:
    """The HTTP demo server in its own process; it keeps its port across restarts."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._output = b""
        self._ready: asyncio.Future[int] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The endpoint, once started."""
        return f"http://127.0.0.1:{self._port}/mcp"

    @property
    def pid(self) -> int:
        """The process id, 0 if it was never started."""
        return self._child.pid if self._child is not None else 0

    async def start(self) -> None:
        """Start the process and wait until it listens.

        Raises
        ------
        McpManagerError
            The process ended, or did not listen in time.
        """
        self._output = b""
        self._ready = ready = asyncio.get_running_loop().create_future()
        argv = _argv("http_server", "--port", str(self._port))
        environment = child_environment({}) | _same_package()
        self._child = Child(argv, environment, None, on_stdout=self._listen, on_end=self._ended)
        await self._child.start()
        try:
            async with asyncio.timeout(_START_S):
                self._port = await ready
        except TimeoutError:
            raise McpManagerError(f"A demo server was not ready within {_START_S:g} s") from None

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        """End the process, by force if necessary, and reap it; idempotent."""
        if self._child is not None:
            await self._child.aclose(_END_S)

    def _listen(self, output: bytes) -> None:
        self._output += output
        found = _READY.search(self._output)
        if found and self._ready is not None and not self._ready.done():
            self._ready.set_result(int(found[1]))

    def _ended(self, exit_code: int) -> None:
        if self._ready is not None and not self._ready.done():
            said = self._child.stderr_tail(2) if self._child is not None else ""
            self._ready.set_exception(
                McpManagerError(f"A demo server ended with status {exit_code} before it listened", hint=said)
            )


def stdio_server_config() -> dict[str, Any]:
    """Return the configuration of a stdio demo server."""
    command, *args = _argv("stdio_server")
    return {"command": command, "args": args, "env": _same_package()}


def _argv(module: str, *arguments: str) -> list[str]:
    # -P, because -m would search the working directory first: in a checkout, that is the package without its compiled
    # modules.
    return [sys.executable, "-P", "-m", f"mcp_manager.cli.demo_servers.{module}", *arguments]


def _same_package() -> dict[str, str]:
    """Return the environment that makes the child import this same package."""
    return {"PYTHONPATH": _PACKAGE_PARENT}
