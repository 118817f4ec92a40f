"""The verb that runs one server and shows its log: what its programs write, and what the manager notes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import click

from mcp_manager.cli.fleet import is_starting, without_servers
from mcp_manager.cli.grants import manager_of
from mcp_manager.cli.log_output import CHILD, Output, level_number, line_of, logging_to
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import complain, error_object, has_colours, note, print_json
from mcp_manager.cli.source import eager, load, only
from mcp_manager.events.child_output import StderrLine, StderrLines, logger_name
from mcp_manager.manager import McpManager
from mcp_manager.observe.views import ServerView

__all__ = ["run"]

_LOOK_EVERY_S: Final = 0.1


async def run(options: Options) -> int:
    """Show the log of one server; return 0 if it came up, else 1. With ``follow`` it goes on until it is cancelled."""
    fleet = await load(options)
    server_id = fleet.chosen()
    if server_id is None:
        raise click.UsageError(f"missing argument SERVER: one of {', '.join(fleet.servers) or 'none'}")
    config = eager(only(fleet.config, server_id))
    # Whoever reads the output may leave; a handler of the log must not raise that inside the manager.
    unread = asyncio.Event()
    line = line_of(options, colours=has_colours(), json=options.json)

    def write(text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            unread.set()

    # A record is written after the lines of the program that came before it, which a task takes in this loop.
    loop = asyncio.get_running_loop()
    handler = Output(line, lambda text: loop.call_soon_threadsafe(write, text))
    handler.addFilter(lambda record: not record.name.startswith(CHILD))
    lowest = logging.INFO if options.log_level is None else level_number(options.log_level)
    showing: asyncio.Task[None] | None = None
    with logging_to(handler, lowest):
        try:
            async with manager_of(without_servers(config)) as manager:
                note(f"running {server_id}; Ctrl-C ends it", quiet=options.quiet or not options.follow)
                deploying = loop.create_task(manager.deploy(server_id, config.servers[server_id]))
                # With its first step the server is known; its program starts after that, so that no line is missed.
                await asyncio.sleep(0)
                if config.servers[server_id].command is not None:
                    lines = manager.stderr_lines(server_id, follow=True)
                    showing = loop.create_task(_show(lines, lambda record: write(line(record))))
                await deploying
                view = await _settled(manager, server_id)
                if options.follow:
                    await unread.wait()
        finally:
            # The lines end with the manager; what it has logged is written in the next step of the loop.
            await (showing or asyncio.sleep(0))
    if unread.is_set():
        raise BrokenPipeError
    is_up = view.ready == view.desired
    if not is_up:
        said = f"{server_id} is {view.state.value}: {view.last_error or ', '.join(view.reasons)}"
        if options.json or options.log_format == "json":
            print_json(error_object(said, "ConnectError"), indent=None)
        else:
            complain(said)
    return 0 if is_up else 1


async def _show(lines: StderrLines, write: Callable[[logging.LogRecord], None]) -> None:
    async for line in lines:
        write(_record(line))


def _record(line: StderrLine) -> logging.LogRecord:
    """Return a line as the record that the log has of it, so that it is written in the same way."""
    fields = {
        "name": logger_name(line.server_id),
        "levelno": logging.DEBUG,
        "levelname": logging.getLevelName(logging.DEBUG),
        "created": line.at.timestamp(),
        "msecs": line.at.microsecond // 1000,
        "msg": line.text,
        "event": "child_output",
        "server_id": line.server_id,
        "instance": line.instance,
        "pid": line.pid,
    }
    if line.missed:
        fields |= {
            "msg": f"{line.text} ({line.missed} lines before this one were left out)",
            "left_out": line.missed,
        }
    return logging.makeLogRecord(fields)


async def _settled(manager: McpManager, server_id: str) -> ServerView:
    """Wait until a server is up or its start has failed."""
    while is_starting(view := manager.server(server_id)):  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_EVERY_S)
    return view
