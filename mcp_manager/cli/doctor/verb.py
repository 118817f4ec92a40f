"""The verb that says what is wrong with a fleet."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, replace
from typing import Final

from mcp_manager.cli.doctor.configuration import examine_configuration, problems_of, refusals
from mcp_manager.cli.doctor.connections import examine_connections
from mcp_manager.cli.doctor.findings import Finding, Severity
from mcp_manager.cli.log_output import Collected, logging_to
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import arrow, is_terminal, one_line, paint, print_json, width, wrapped
from mcp_manager.cli.source import Fleet, load
from mcp_manager.cli.table import render
from mcp_manager.errors import ConfigError

__all__ = ["run"]

_ORDER: Final[tuple[Severity, ...]] = ("error", "warning", "note")
_INDENT: Final = "  "


async def run(options: Options) -> int:
    """Examine a fleet, and print what is wrong with it and what to do; return 1 if there is an error, else 0."""
    fleet, findings = await _loaded(options)
    if fleet is not None:
        findings += examine_configuration(fleet.servers)
        if fleet.serve is not None and fleet.serve.auth.type != "none":
            # Most fleets have no gateway that clients authenticate to.
            from mcp_manager.cli.doctor.clients import examine_clients  # noqa: PLC0415 - see above

            findings += await examine_clients(fleet.serve)
        if fleet.serve is not None:
            from mcp_manager.cli.doctor.clients import examine_start  # noqa: PLC0415 - see above

            known = {each.seen for each in findings}
            findings += [each for each in examine_start(fleet.serve) if each.seen not in known]
        broken = {each.server_id for each in findings if each.severity == "error" and each.server_id is not None}
        findings += await examine_connections(fleet, broken, options)
    findings = [replace(each, seen=one_line(each.seen), advice=one_line(each.advice)) for each in findings]
    findings.sort(key=lambda each: _ORDER.index(each.severity))
    count = len(fleet.servers) + len(fleet.left_out) if fleet is not None else 0
    if options.json:
        print_json({"servers": count, "findings": [asdict(each) for each in findings]})
    else:
        _show(findings, count)
    return 1 if any(each.severity == "error" for each in findings) else 0


async def _loaded(options: Options) -> tuple[Fleet | None, list[Finding]]:
    """Read the configuration; return it, ``None`` if it is refused, and what is wrong with it.

    Raises
    ------
    ConfigError
        The file cannot be read.
    """
    logged = Collected("mcp_manager.config")
    try:
        # The other servers are examined also where one is wrong.
        with logging_to(logged, logging.WARNING):
            fleet = await load(replace(options, lenient=True))
    except ConfigError as error:
        if not _is_readable(options.config or ""):
            raise
        return None, [*refusals(error), *_warnings(logged)]
    told = tuple(str(each) for each in fleet.problems)
    return fleet, [
        *problems_of(fleet.problems),
        *(each for each in _warnings(logged) if not each.seen.startswith(told)),
        *(
            Finding("note", each, "it is switched off in the file", "switch it on to use it")
            for each in fleet.switched_off
        ),
    ]


def _warnings(logged: Collected) -> list[Finding]:
    return [
        Finding("warning", None, record.getMessage(), "correct or remove it in the file") for record in logged.records
    ]


def _is_readable(source: str) -> bool:
    return os.path.isfile(source) and os.access(source, os.R_OK)


def _show(findings: list[Finding], servers: int) -> None:
    rows = [[each.severity, each.server_id or "-", each.seen, each.advice] for each in findings]
    if rows and not is_terminal():
        print(render(("severity", "server", "seen", "to do"), rows))
    for severity, server, seen, advice in rows if is_terminal() else ():
        print(f"{paint(severity)}{'' if server == '-' else f' {one_line(server)}'}")
        print(wrapped(one_line(seen), width(), _INDENT, _INDENT))
        print(wrapped(f"{arrow()} {one_line(advice)}", width(), _INDENT, _INDENT * 2))
    counts = [(sum(each.severity == one for each in findings), one) for one in _ORDER]
    said = ", ".join(f"{count} {one}{'s' if count > 1 else ''}" for count, one in counts if count)
    fleet = f"{servers} server{'' if servers == 1 else 's'}"
    print(f"{fleet}: {said or 'nothing is wrong'}")
