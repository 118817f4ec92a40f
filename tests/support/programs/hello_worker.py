"""A worker process without a gateway, for tests of its parent: it says its number and process id over HTTP.

``--status N`` ends it at once with that exit status; ``--stubborn`` lets it ignore SIGTERM; ``--log FILE`` writes down
each start, reload and end. After a reload with ``--drain S``, calls may take so many seconds at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from mcp_manager.gateway.workers.assignment import inherited
from mcp_manager.gateway.workers.lifeline import Lifeline


async def serve(options: argparse.Namespace) -> None:
    told = inherited()
    assert told is not None
    assignment, parent = told
    note(options, "start", assignment.number)
    if options.status is not None:
        sys.exit(options.status)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if options.stubborn else ended.set)

    def on_order(order: str) -> None:
        note(options, order, assignment.number)
        if order == "reload":
            more = {} if options.drain is None else {"drain_timeout_s": options.drain}
            lifeline.say({"is": "reloaded", "problem": options.problem, **more})

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"GET /block " in request:
            signal.pause()
        body = json.dumps({"worker": assignment.number, "pid": os.getpid()}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    public, siblings = assignment.sockets()
    with Lifeline(parent, assignment.directory, on_order, grace_s=0.2) as lifeline:
        async with await asyncio.start_server(answer, sock=public), await asyncio.start_server(answer, sock=siblings):
            lifeline.say({"is": "ready"})
            await ended.wait()
    note(options, "end", assignment.number)


def note(options: argparse.Namespace, what: str, number: int) -> None:
    if options.log is not None:
        with options.log.open("a") as log:
            log.write(f"{what} {number} {os.getpid()}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--status", type=int)
    parser.add_argument("--stubborn", action="store_true")
    parser.add_argument("--problem")
    parser.add_argument("--drain", type=float)
    parser.add_argument("--log", type=Path)
    asyncio.run(serve(parser.parse_args()))
