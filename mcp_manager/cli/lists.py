"""The verbs that list what servers offer: tools, resources, prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from mcp_manager.cli.connecting import progress, standing
from mcp_manager.cli.grants import manager_of
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import complain, error_object, note, print_json
from mcp_manager.cli.source import Fleet, lazy, load, only, patient
from mcp_manager.cli.table import render, shortened
from mcp_manager.errors import McpManagerError, RpcError
from mcp_manager.manager import McpManager
from mcp_manager.protocol.error_codes import METHOD_NOT_FOUND
from mcp_manager.results import Prompt, Resource, ResourceTemplate, Tool
from mcp_manager.results.record import Record

__all__ = ["prompts", "resources", "tools"]


@dataclass(frozen=True)
class _Kind:
    """What is listed: its name, the titles of its table, how it is asked for and shown in a row."""

    name: str
    headers: tuple[str, ...]
    ask: Callable[[McpManager, str], Awaitable[Sequence[Record]]]
    row: Callable[[Any], list[object]]


async def tools(options: Options) -> int:
    """List the tools of all servers that are not suspended, or of one; return 1 if a server failed, else 0."""
    return await _list(_TOOLS, options)


async def resources(options: Options) -> int:
    """List resources and templates as :func:`tools` lists tools; a server that has none is no failure."""
    return await _list(_RESOURCES, options)


async def prompts(options: Options) -> int:
    """List prompts as :func:`tools` lists tools; a server that has none is no failure."""
    return await _list(_PROMPTS, options)


async def _list(kind: _Kind, options: Options) -> int:
    fleet = await load(options)
    chosen = fleet.chosen()
    config = fleet.config if chosen is None else only(fleet.config, chosen)
    asked = [name for name, server in config.servers.items() if server.instances or name == chosen]
    answers = await _answers(kind, manager_of(lazy(patient(config))), asked, options)
    failures = {name: fleet.advised(answer) for name, answer in answers.items() if isinstance(answer, McpManagerError)}
    found = [
        (server_id, each)
        for server_id, answer in answers.items()
        if not isinstance(answer, McpManagerError)
        for each in answer
    ]
    if options.json:
        listed = [{"server_id": server_id, **msgspec.json.decode(each.to_json())} for server_id, each in found]
        failed = [{"server_id": server_id, **error_object(error)} for server_id, error in failures.items()]
        print_json([*listed, *failed])
    else:
        _show(kind, fleet, found, bool(failures), options)
        for error in failures.values():
            complain(str(error))
    return 1 if failures else 0


async def _answers(
    kind: _Kind, manager: McpManager, asked: list[str], options: Options
) -> dict[str, Sequence[Record] | McpManagerError]:
    """Ask all servers at once; a server's failure takes the place of its list."""
    answers: dict[str, Sequence[Record] | McpManagerError] = {}

    async def ask(server_id: str) -> None:
        try:
            answers[server_id] = await kind.ask(manager, server_id)
        except McpManagerError as error:
            answers[server_id] = error

    def text() -> str:
        failed = sum(isinstance(answer, McpManagerError) for answer in answers.values())
        waiting = [name for name in asked if name not in answers]
        return standing(len(answers) - failed, len(asked), waiting, failed)

    async with manager:
        async with progress(options, text):
            await asyncio.gather(*map(ask, asked))
    return {server_id: answers[server_id] for server_id in asked}


def _show(kind: _Kind, fleet: Fleet, found: list[tuple[str, Record]], has_failures: bool, options: Options) -> None:
    rows = [[server_id, *kind.row(each)] for server_id, each in found]
    for row in rows:
        about = row[-1]
        row[-1] = about if options.full else shortened(str(about) if about is not None else None)
    headers = ("server", *kind.headers)
    if rows:
        print(render(headers, rows, prose=headers[-1:]))
        if not options.full and any(str(row[-1]).endswith(("…", "...")) for row in rows):
            note("descriptions are shortened: --full shows them whole", quiet=options.quiet)
    elif not has_failures:
        print(f"no {kind.name} in {fleet.shown}")


async def _resources_of(manager: McpManager, server_id: str) -> Sequence[Record]:
    listed = await _unless_missing(manager.list_resources(server_id))
    return [*listed, *await _unless_missing(manager.list_resource_templates(server_id))]


async def _unless_missing(listing: Awaitable[Sequence[Record]]) -> Sequence[Record]:
    """Return a list, an empty one if the server does not know the method."""
    try:
        return await listing
    except RpcError as error:
        if error.code == METHOD_NOT_FOUND:
            return []
        raise


def _resource_row(each: Resource | ResourceTemplate) -> list[object]:
    place = each.uri if isinstance(each, Resource) else each.uri_template
    return [place, each.mime_type, each.description or each.title or each.name]


def _prompt_row(each: Prompt) -> list[object]:
    arguments = ", ".join(f"{given.name}*" if given.required else given.name for given in each.arguments or ())
    return [each.name, arguments or None, each.description or each.title]


def _tool_row(each: Tool) -> list[object]:
    return [each.name, each.description or each.title]


_TOOLS: Final = _Kind("tools", ("tool", "description"), lambda manager, name: manager.list_tools(name), _tool_row)
_RESOURCES: Final = _Kind("resources", ("uri", "type", "description"), _resources_of, _resource_row)
_PROMPTS: Final = _Kind(
    "prompts",
    ("prompt", "arguments", "description"),
    lambda manager, name: _unless_missing(manager.list_prompts(name)),
    _prompt_row,
)
