"""The process of a client: takes commands as lines of JSON, measures itself, and answers with lines of JSON."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

from benchmarks.calls.client import BenchClient
from benchmarks.calls.measure import answer_calls, expected_of, measure_memory

__all__ = ["CLIENTS", "SPECIAL", "client_class", "main"]

CLIENTS: Final = {
    "mcp": "peers.SdkClient",
    "fastmcp": "peers.FastMcpClient",
    "httpx + orjson": "peers.HttpxClient",
    "aiohttp + orjson": "peers.AiohttpClient",
    "bare lane": "peers.BareLaneClient",
    "execute": "ours.ExecuteClient",
    "call_tool": "ours.CallToolClient",
    "execute_async": "ours.ExecuteAsyncClient",
    "execute_raw": "ours.ExecuteRawClient",
}
"""The class of each client, in the order in which they are shown."""

SPECIAL: Final = {
    each: f"special.{name}"
    for each, name in {
        "scan": "ScanClient",
        "msgspec Raw": "MsgspecScanClient",
        "list_tools": "ToolsClient",
        "2025-11-25": "HandshakeClient",
        "2026-07-28": "StatelessClient",
        "mcp list_tools": "SdkToolsClient",
        "fleet of 10": "Fleet10Client",
        "fleet of 10,000": "Fleet10000Client",
        "fleet of 10,000, all called": "BusyFleetClient",
    }.items()
}
"""The classes of the clients that only single targets need."""

_PR_SET_PDEATHSIG: Final = 1


def client_class(name: str) -> type[BenchClient]:
    """Import and return a client's class."""
    module, _, attribute = {**CLIENTS, **SPECIAL}[name].partition(".")
    found: type[BenchClient] = getattr(importlib.import_module(f"benchmarks.calls.{module}"), attribute)
    return found


class _Commands:
    """Do commands; keep one connected client per URL until it is closed."""

    def __init__(self, client: str) -> None:
        self._client = client
        self._connected: dict[str, BenchClient] = {}
        self._known: dict[str, int] = {}

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        match command["do"]:
            case "calls":
                return await answer_calls(await self._connect(command), command, self._known)
            case "memory":
                return await measure_memory(await self._connect(command), command["calls"])
            case "close":
                await self.aclose()
                return {}
            case job:
                run = getattr(importlib.import_module("benchmarks.calls.jobs"), job)
                answer: dict[str, Any] = await run(**command["arguments"])
                return answer

    async def aclose(self) -> None:
        while self._connected:
            _, client = self._connected.popitem()
            await client.aclose()

    async def _connect(self, command: dict[str, Any]) -> BenchClient:
        url = command["url"]
        if url not in self._connected:
            client = client_class(self._client)()
            await client.connect(url, expected_of(command))
            self._connected[url] = client
        return self._connected[url]


async def _serve(client: str, answers: BinaryIO) -> None:
    commands = _Commands(client)
    loop = asyncio.get_running_loop()
    # One task does it all, since only the task that opened them can close the sessions of some clients.
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = await commands.do(json.loads(line))
        except ImportError as error:
            answer = {"missing": str(error)}
        except Exception as error:
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
    await commands.aclose()


def main(argv: Sequence[str] | None = None) -> int:
    """Do commands until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls.worker", description=__doc__)
    parser.add_argument("--client", default="", choices=["", *CLIENTS, *SPECIAL])
    parser.add_argument("--loop", default="asyncio", choices=["asyncio", "uvloop"])
    parser.add_argument("--core", type=int, help="the processor core to run on")
    options = parser.parse_args(argv)
    _die_with_parent()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # What libraries print must not get into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if options.loop == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    else:
        factory = asyncio.SelectorEventLoop
        # The manager's own loop behind ``execute`` must be asyncio's, too.
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # makes the import fail
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(options.client, answers))
    return 0


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, even during a round (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
