"""The verb that runs a server of the fault kit, for programs in any language."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable

import click

from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import print_json
from mcp_manager.testing.control import FaultControl
from mcp_manager.testing.faults.wire import decode_order
from mcp_manager.testing.http_server import FaultyServer
from mcp_manager.testing.pipe_program import Pipes
from mcp_manager.testing.program_server import FaultyProgram
from mcp_manager.testing.tools import Tool

__all__ = ["run"]


async def run(options: Options) -> int:
    """Serve until a signal comes, the input of ``--stdio`` ends, or the fault ``exit`` is played; return its code."""
    tools = {name: Tool() for name in options.tools or ("echo",)}
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        loop.call_soon_threadsafe(settle, code)

    def settle(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    server: FaultyServer | FaultyProgram
    if options.stdio:
        server = FaultyProgram(options.era, tools, port=options.port)
    else:
        server = FaultyServer(options.era, tools, sse=options.sse, port=options.port, on_exit=end)
    try:
        server.start()
    except (OSError, OverflowError) as error:
        raise click.UsageError(f"cannot listen on port {options.port}: {error}") from None
    try:
        _set(server, options.faults)
        _tell(server, options)
        if isinstance(server, FaultyServer):
            return await ended
        pipes = Pipes()
        pipes.follow(server.begun(os.getpid()))
        threading.Thread(target=_serve, args=(server, pipes, end), daemon=True, name="standard input").start()
        code = await ended
        if pipes.ignores_sigterm:
            await loop.create_future()
        return code
    finally:
        server.stop()


def _set(server: FaultControl, faults: tuple[str, ...]) -> None:
    for text in faults:
        try:
            order = decode_order(text.encode())
            server.order(order)
        except ValueError as error:
            raise click.UsageError(f"{text} is no fault: {error}") from None


def _tell(server: FaultControl, options: Options) -> None:
    """Print where the server is, and how it is controlled; on standard error if the output is that of a program."""
    base = f"http://127.0.0.1:{server.port}"
    places = {"url": f"{base}/mcp", "faults": f"{base}/__faults", "ledger": f"{base}/__ledger"}
    if options.stdio:
        del places["url"]
    if options.json and not options.stdio:
        print_json(places, indent=None)
    else:
        lines = [f"listening on {places['url']}"] if "url" in places else []
        lines.append(f"""set faults: curl -d '{{"fault": "reset", "after": "headers"}}' {places["faults"]}""")
        lines.append(f"read what was executed: curl {places['ledger']}")
        print("\n".join(lines), file=sys.stderr if options.stdio else sys.stdout)
    sys.stdout.flush()


def _serve(program: FaultyProgram, pipes: Pipes, end: Callable[[int], None]) -> None:
    """Answer what comes on standard input, until it ends."""
    pipes.serve(lambda message: program.take(message, os.getpid()))
    end(0)
