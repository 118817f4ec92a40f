"""The verb that makes one file of the servers in the files of MCP clients."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcp_manager.cli.options import Options
from mcp_manager.cli.program import FAILED
from mcp_manager.cli.screen import complain, note, print_json
from mcp_manager.cli.table import paragraph, render
from mcp_manager.config.clients import (
    ClientFile,
    ImportedFleet,
    find_client_files,
    fleet_toml,
    import_fleet,
    write_fleet_file,
)
from mcp_manager.errors import ConfigError

__all__ = ["run", "write"]


async def run(options: Options) -> int:
    """Import the servers of the clients, and print or write them as TOML; return 1 if there are none, else 0."""
    files = _files(options)
    fleet = import_fleet(files)
    toml = fleet_toml(fleet)
    if fleet.servers and options.output is not None:
        write(options.output, toml, options)
    if options.json:
        print_json(_described(files, fleet, toml, options))
    else:
        _show(files, fleet, options)
        if fleet.servers and options.output is None:
            print(toml, end="")
    return 0 if fleet.servers else FAILED


def write(path: str, text: str, options: Options) -> None:
    """Write the file of ``--output``; raises :class:`ConfigError` if it exists and ``--force`` is not given."""
    try:
        write_fleet_file(path, text, overwrite=options.force)
    except ConfigError as error:
        if not options.force and os.path.lexists(path):
            error.hint = "give another name, or --force to overwrite it"
        raise


def _files(options: Options) -> list[ClientFile]:
    if options.sources:
        return [ClientFile("", Path(each), "user") for each in options.sources]
    return find_client_files(project=options.project)


def _described(files: Sequence[ClientFile], fleet: ImportedFleet, toml: str, options: Options) -> dict[str, Any]:
    return {
        "files": [{"client": each.client or None, "path": str(each.path), "scope": each.scope} for each in files],
        "servers": [
            {
                "id": server_id,
                "client": each.client,
                "path": str(each.path),
                "disabled": bool(each.fields.get("disabled")),
                "renamed_from": fleet.conflicts.get(server_id),
            }
            for server_id, each in fleet.servers.items()
        ],
        "warnings": list(fleet.warnings),
        "variables": [each._asdict() for each in fleet.variables],
        "toml": toml,
        "output": options.output if fleet.servers else None,
    }


def _show(files: Sequence[ClientFile], fleet: ImportedFleet, options: Options) -> None:
    """Tell what was found: on standard error, because standard output may become the file."""
    if not fleet.servers:
        for warning in fleet.warnings:
            complain(warning)
        searched = ", ".join(str(each.path) for each in files)
        complain(f"no servers in {searched}" if files else "no files of MCP clients found (--from names one)")
        return
    if options.quiet:
        return
    for text in (*_report(files, fleet), ""):
        print(text, file=sys.stderr)
    if options.output is not None:
        note(f"wrote {options.output}", quiet=False)


def _report(files: Sequence[ClientFile], fleet: ImportedFleet) -> list[str]:
    named: dict[Path, list[str]] = defaultdict(list)
    clients: dict[Path, str] = {}
    for server_id, each in fleet.servers.items():
        named[each.path].append(f"{server_id} (off)" if each.fields.get("disabled") else server_id)
        clients[each.path] = each.client
    rows = [[clients.get(each.path) or each.client, str(each.path), ", ".join(named[each.path])] for each in files]
    parts = [render(("client", "file", "servers"), rows, prose=("file", "servers"), stream=sys.stderr)]
    if fleet.warnings:
        parts.append("\nNot taken over as it is:")
        parts += [paragraph(*warning.partition(": ")[::2], stream=sys.stderr) for warning in fleet.warnings]
    if fleet.variables:
        parts.append("\nVariables that are needed:")
        for variable in fleet.variables:
            state = "is set" if variable.is_set else "is not set"
            told = f"{state}; its value is in {variable.source}" if variable.source else state
            parts.append(paragraph(variable.name, told, stream=sys.stderr))
    return parts
