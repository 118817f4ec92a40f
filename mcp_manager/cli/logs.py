"""The verb that runs one server and shows its log."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import click

from mcp_manager.cli.fleet import is_starting
from mcp_manager.cli.grants import manager_of
from mcp_manager.cli.log_output import CHILD, Output, json_line, level_number, logging_to, text_line
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import complain, error_object, has_colours, note, print_json
from mcp_manager.cli.source import eager, load, only
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
    as_json = options.json or options.log_format == "json"
    colours = has_colours()
    # Whoever reads the output may leave; a handler of the log must not raise that inside the manager.
    unread = asyncio.Event()

    def write(line: str) -> None:
        try:
            print(line, flush=True)
        except BrokenPipeError:
            unread.set()

    handler = Output(json_line if as_json else lambda record: text_line(record, colours=colours), write)
    lowest = logging.INFO if options.log_level is None else level_number(options.log_level)
    # What the program itself writes is logged at the lowest level, but is what this verb is for.
    handler.addFilter(lambda record: record.name.startswith(CHILD) or record.levelno >= lowest)
    with logging_to(handler, min(lowest, logging.DEBUG)):
        async with manager_of(config) as manager:
            note(f"running {server_id}; Ctrl-C ends it", quiet=options.quiet or not options.follow)
            view = await _settled(manager, server_id)
            if options.follow:
                await unread.wait()
    if unread.is_set():
        raise BrokenPipeError
    is_up = view.ready == view.desired
    if not is_up:
        said = f"{server_id} is {view.state.value}: {view.last_error or ', '.join(view.reasons)}"
        if as_json:
            print_json(error_object(said, "ConnectError"), indent=None)
        else:
            complain(said)
    return 0 if is_up else 1


async def _settled(manager: McpManager, server_id: str) -> ServerView:
    """Wait until a server is up or its start has failed."""
    while is_starting(view := manager.server(server_id)):  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_EVERY_S)
    return view
