"""A stdio transport to a running program, and a sink that records what it delivers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.processes import scripted_stdio

from mcp_manager._core.jsonrpc import RESULT, Message
from mcp_manager.config import ServerConfig
from mcp_manager.errors import CallError
from mcp_manager.protocol.session_loss import Refusal
from mcp_manager.runtime.deadline_timer import DeadlineTimer
from mcp_manager.session.knowledge.peer_faults import PeerFaults
from mcp_manager.transports.base import CallListener, Exchange
from mcp_manager.transports.stdio.transport import StdioTransport

__all__ = ["SERVER", "WAIT_S", "Opened", "Sink", "cancel", "opened", "result_of", "scripted"]

WAIT_S = 15.0

# A server that answers a request with its params, and also does what the method says.
SERVER = """
    import json, os, signal, sys, time

    def send(message):
        os.write(1, message.encode() + b"\\n") if len(message) < 4096 else print(message, flush=True)

    def reply(message, **result):
        send(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}))

    kept = []
    for line in sys.stdin.buffer:
        message = json.loads(line)
        method, params = message.get("method"), message.get("params", {})
        if method == "keep":
            kept.append(message)
        elif method == "release":
            for each in [message, *reversed(kept)]:
                reply(each, **each.get("params", {}))
            kept.clear()
        elif method == "raw":
            sys.stdout.write(params["text"])
            sys.stdout.flush()
        elif method == "environment":
            reply(message, **os.environ)
        elif method == "size":
            reply(message, size=len(line), text="x" * params["reply"])
        elif method == "stop reading":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
            reply(message)
            signal.sigwait({signal.SIGUSR1})
        elif method == "say":
            os.write(2, params["text"].encode())
            reply(message)
        elif method == "exit":
            os.write(2, b"out of luck\\n")
            os._exit(3)
        elif "id" in message:
            reply(message, **params)
"""


class Sink:
    """Record what a transport delivers; with ``raises``, the callbacks also raise."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.closed: list[CallError] = []
        self.given_up: list[tuple[int, str]] = []
        self.faults = PeerFaults("subject", time.monotonic_ns)
        self.raises = False

    def on_message(self, message: Message, listener: CallListener | None = None) -> None:
        self.messages.append(message)
        if self.raises:
            raise RuntimeError("a listener failed")

    def on_given_up(self, exchange: Exchange, reason: str) -> None:
        self.given_up.append((exchange.request_id, reason))

    def on_fault(self, kind: str, detail: str) -> None:
        self.faults.count(kind, detail)
        if self.raises:
            raise RuntimeError("a listener failed")

    def on_closed(self, error: CallError) -> None:
        self.closed.append(error)
        if self.raises:
            raise RuntimeError("a listener failed")

    async def is_lost(self, refusal: Refusal) -> bool:
        raise AssertionError(refusal)


class Opened:
    """A transport to a running server."""

    def __init__(self, config: ServerConfig) -> None:
        self.sink = Sink()
        self.timer = DeadlineTimer()
        self.transport = StdioTransport(config, server_id="subject", sink=self.sink, timer=self.timer)
        self._last_id = 0

    def request(self, method: str, **params: Any) -> Exchange:
        self._last_id += 1
        frame = json.dumps({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        return Exchange(frame.encode(), self._last_id, 0)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and return its decoded result."""
        return result_of(await self.exchange(self.request(method, **params)))

    async def exchange(self, exchange: Exchange) -> Message:
        async with asyncio.timeout(WAIT_S):
            return await self.transport.exchange(exchange)

    async def failure(self, exchange: Exchange) -> CallError:
        with pytest.raises(CallError) as caught:
            await self.exchange(exchange)
        assert caught.value.server_id == "subject"
        return caught.value

    async def notify(self, method: str, **params: Any) -> None:
        frame = json.dumps({"jsonrpc": "2.0", "method": method, "params": params})
        async with asyncio.timeout(WAIT_S):
            await self.transport.notify(frame.encode(), 0)

    @property
    def stray_replies(self) -> int:
        return self.sink.faults.counts.get("a reply that nobody waits for", 0)

    @property
    def bad_lines(self) -> int:
        return self.sink.faults.counts.get("a line that is not a message", 0)

    async def say(self, text: str) -> None:
        """Make the server write a text to its stdout, and wait until it was read."""
        await self.notify("raw", text=text)
        await self.call("ping")


@contextlib.asynccontextmanager
async def opened(code: str = SERVER, **settings: Any) -> AsyncIterator[Opened]:
    """Run Python code as the server and connect to it."""
    given = {"command": sys.executable, "args": ("-c", textwrap.dedent(code))} | settings
    subject = Opened(ServerConfig(**given))
    await subject.transport.open()
    try:
        yield subject
    finally:
        await subject.transport.aclose(0.0)


def scripted(*actions: dict[str, Any], **settings: Any) -> contextlib.AbstractAsyncContextManager[Opened]:
    """Run the scripted server, which answers the first ``tools/call`` with these actions."""
    config = scripted_stdio({"on": {"tools/call": [list(actions)]}})
    return opened(command=config.command, args=tuple(config.args), **settings)


def result_of(message: Message) -> dict[str, Any]:
    assert message.kind == RESULT
    result: dict[str, Any] = json.loads(message.result or b"")
    return result


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(task, WAIT_S)
