"""The verb that pins the definitions of tools and prompts: it shows what differs, and writes the file of pins."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

import click
import msgspec

from mcp_manager.cli.connecting import progress, standing
from mcp_manager.cli.grants import manager_of
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import complain, error_object, note, one_line, print_json
from mcp_manager.cli.source import Fleet, lazy, load, only, patient
from mcp_manager.cli.table import shortened
from mcp_manager.errors import AuthError, McpManagerError, ProtocolError, RpcError
from mcp_manager.gateway.endpoints.kinds import Kind
from mcp_manager.gateway.endpoints.listings import read_entries
from mcp_manager.gateway.security.definitions import PINNED, Definition, definition_of
from mcp_manager.gateway.security.pins_file import (
    Difference,
    Pin,
    PinsOfServer,
    differences,
    read_pins,
    write_pins,
)
from mcp_manager.manager import McpManager
from mcp_manager.protocol.error_codes import METHOD_NOT_FOUND

__all__ = ["run"]

_MARKS: Final = {"added": "+", "removed": "-", "changed": "~"}

_Definitions = dict[Kind, dict[str, Definition]]


async def run(options: Options) -> int:
    """Compare what servers list with the file of pins, and write it unless ``--check`` is given.

    Returns
    -------
    0 if the file is up to date now; 1 if a server failed, or with ``--check`` if anything differs.
    """
    fleet = await load(options)
    path = options.output or (None if fleet.serve is None else fleet.serve.pins.path)
    if path is None:
        raise click.UsageError("nothing says where the pins are: set serve.pins.path in CONFIG, or give --output")
    chosen = fleet.chosen()
    config = fleet.config if chosen is None else only(fleet.config, chosen)
    pins = _known(path)
    answers = await _answers(manager_of(lazy(patient(config))), list(config.servers), options)
    failures = {
        name: _advised(name, fleet.advised(each), fleet)
        for name, each in answers.items()
        if isinstance(each, McpManagerError)
    }
    found = {name: each for name, each in answers.items() if not isinstance(each, McpManagerError)}
    differing = [each for name, definitions in found.items() for each in _compared(name, pins, definitions)]
    if chosen is None:
        differing += [each for name in pins if name not in fleet.known for each in _compared(name, pins, {})]
    _show(differing, found, pins, failures, options)
    if not options.check and differing:
        write_pins(path, _updated(pins, found, differing))
        note(f"wrote {path}", quiet=options.quiet or options.json)
    elif not differing and not failures:
        note(f"everything is as pinned in {path}", quiet=options.quiet or options.json)
    return 1 if failures or (options.check and differing) else 0


def _advised(server_id: str, error: McpManagerError, fleet: Fleet) -> McpManagerError:
    """Return a failure with what helps if the server shows its lists to clients alone."""
    credentials = None if fleet.serve is None else fleet.serve.credentials.get(server_id)
    if isinstance(error, AuthError) and credentials is not None and credentials.is_personal:
        error.hint = (
            f"by serve.credentials.{server_id}, only clients get its lists: set auth in [servers.{server_id}] to "
            "credentials that may list, such as your own, in CONFIG or in a copy of it for this command alone; the "
            "gateway compares what each client gets with these pins"
        )
    return error


def _known(path: str) -> dict[str, PinsOfServer]:
    return read_pins(path) if os.path.exists(path) else {}


async def _answers(
    manager: McpManager, asked: list[str], options: Options
) -> dict[str, _Definitions | McpManagerError]:
    answers: dict[str, _Definitions | McpManagerError] = {}

    async def ask(server_id: str) -> None:
        try:
            answers[server_id] = {kind: await _definitions(manager, server_id, kind) for kind in PINNED}
        except McpManagerError as error:
            answers[server_id] = error

    def text() -> str:
        failed = sum(isinstance(answer, McpManagerError) for answer in answers.values())
        return standing(len(answers) - failed, len(asked), [each for each in asked if each not in answers], failed)

    async with manager:
        async with progress(options, text):
            await asyncio.gather(*map(ask, asked))
    return {server_id: answers[server_id] for server_id in asked}


async def _definitions(manager: McpManager, server_id: str, kind: Kind) -> dict[str, Definition]:
    """Return what a server lists, by name; raises if something of it may be understood in different ways."""
    try:
        entries = await manager._list(server_id, kind.method, kind.field, msgspec.Raw, None)
    except RpcError as error:
        if error.code == METHOD_NOT_FOUND:
            return {}
        raise
    definitions: dict[str, Definition] = {}
    for entry in read_entries(entries, kind):
        definition = definition_of(kind, entry.raw)
        if definition is None:
            text = f"the definition of {entry.key!r:.200} repeats a member, or cannot be read: it cannot be pinned"
            raise ProtocolError(text, server_id=server_id)
        definitions[entry.key] = definition
    return definitions


def _compared(server_id: str, pins: Mapping[str, PinsOfServer], found: _Definitions) -> Iterator[Difference]:
    for kind in PINNED:
        yield from differences(server_id, pins.get(server_id, {}), kind, found.get(kind, {}))


def _updated(
    pins: Mapping[str, PinsOfServer], found: Mapping[str, _Definitions], differing: list[Difference]
) -> dict[str, PinsOfServer]:
    """Return the pins with what differs: those that are as before keep their day."""
    today = datetime.now(UTC).date()
    servers = {name: {kind: dict(each) for kind, each in kinds.items()} for name, kinds in pins.items()}
    for each in differing:
        of_kind = servers.setdefault(each.server_id, {}).setdefault(each.kind, {})
        if each.what == "removed":
            del of_kind[each.name]
        else:
            of_kind[each.name] = _pin(found[each.server_id], each, today)
    kept = {name: {kind: each for kind, each in kinds.items() if each} for name, kinds in servers.items()}
    return {name: kinds for name, kinds in kept.items() if kinds}


def _pin(found: _Definitions, difference: Difference, today: date) -> Pin:
    definition = _definition(found, difference)
    return Pin(today, definition.hash, definition.members)


def _definition(found: _Definitions, difference: Difference) -> Definition:
    return next(each for kind, each in found.items() if kind.member == difference.kind)[difference.name]


def _show(
    differing: list[Difference],
    found: Mapping[str, _Definitions],
    pins: Mapping[str, PinsOfServer],
    failures: Mapping[str, McpManagerError],
    options: Options,
) -> None:
    if options.json:
        failed = [{"server_id": name, **error_object(error)} for name, error in failures.items()]
        print_json([*msgspec.to_builtins(differing), *failed])
        return
    for each in differing:
        what = f"{each.what}: {', '.join(each.members)}" if each.members else each.what
        kind = each.kind.removesuffix("s")
        print(f"{_MARKS[each.what]} {one_line(each.server_id)}: {kind} {one_line(each.name)} ({one_line(what)})")
        if each.what == "added":
            description = _definition(found[each.server_id], each).members.get("description")
            if description is not None:
                print(f"    {_short(description, options)}")
        for member in each.members:
            before = pins[each.server_id][each.kind][each.name].definition
            now = _definition(found[each.server_id], each).members
            for mark, side in (("-", before), ("+", now)):
                if member in side:
                    print(f"    {mark} {one_line(member)}: {_short(side[member], options)}")
    for error in failures.values():
        complain(str(error))


def _short(value: Any, options: Options) -> str:
    text = one_line(json.dumps(value, ensure_ascii=False, sort_keys=True))
    return text if options.full else str(shortened(text))
