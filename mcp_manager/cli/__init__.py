"""The command line: its arguments and exit statuses; the verbs are in modules of their own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from mcp_manager._version import __version__
from mcp_manager.cli.table import complain
from mcp_manager.errors import CallError, McpManagerError

__all__ = ["main"]

_FAILED = 1
_MISUSED = 2
_INTERRUPTED = 130
_EPILOG = (
    "Begin with: mcp-manager demo. Exit status: 0 success, 1 failure, 2 usage error (arguments, configuration, unknown "
    "server), 130 interrupted."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv
        The arguments without the program's name. Default: those of this process.

    Returns
    -------
    The exit status: 0 success, 1 failure, 2 usage error (arguments, configuration, unknown server), 130 interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A server's texts may have characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    try:
        options = _parser().parse_args(argv)
    except SystemExit as done:
        return int(done.code or 0)
    if options.verb is None:
        complain("nothing to do: try mcp-manager demo, which needs no configuration (see mcp-manager --help)")
        return _MISUSED
    run = getattr(importlib.import_module(f"mcp_manager.cli.{options.module}"), options.function)
    try:
        status: int = asyncio.run(run(options))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except McpManagerError as error:
        complain(str(error))
        return _FAILED if isinstance(error, CallError) else _MISUSED
    except BrokenPipeError:
        # The reader of the output, such as head, has ended; the interpreter must not flush to it again at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    return status


_TIMEOUT: Final = "default: the server's request_timeout_s; for a program start_timeout_s, if that is longer"


class _Parser(argparse.ArgumentParser):
    """Report a usage error in one line, as this program reports every error."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message} (see {self.prog} --help)")
        self.exit(_MISUSED)


def _parser() -> _Parser:
    parser = _Parser(
        prog="mcp-manager", description="Manage a fleet of MCP servers.", epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"mcp-manager {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")

    about = "watch a small fleet lose servers and recover (about ten seconds)"
    verb = verbs.add_parser(
        "demo", help=about, description=f"{about[0].upper()}{about[1:]}. It needs no configuration."
    )
    verb.set_defaults(module="demo", function="run")

    _fleet_verb(verbs, "check", "connect to every server once and report which ones answer", json=True)
    _fleet_verb(verbs, "list", "list the configured servers without connecting", json=True)
    verb = _fleet_verb(verbs, "status", "connect to every server and show its state", json=True)
    verb.add_argument("--snapshot", action="store_true", help="print the whole snapshot, down to instances, as JSON")
    verb = _fleet_verb(verbs, "tools", "list the tools of all servers or of one", json=True)
    verb.add_argument("server", nargs="?", metavar="SERVER", help="a server's id")

    verb = _fleet_verb(verbs, "call", "send one request and print the JSON-RPC response", json=False)
    verb.add_argument("server", metavar="SERVER", help="the server's id")
    verb.add_argument("method", metavar="METHOD", help="such as tools/list or tools/call")
    verb.add_argument("params", nargs="?", metavar="PARAMS_JSON", help='such as \'{"name": "add", "arguments": {}}\'')
    verb.add_argument("--timeout", type=float, metavar="SECONDS", help=_TIMEOUT)
    _bench_verb(verbs)
    return parser


def _bench_verb(verbs: argparse._SubParsersAction[_Parser]) -> None:
    about = "measure what a call costs on this machine, compared with other clients"
    verb = verbs.add_parser(
        "bench",
        help=about,
        description=f"{about[0].upper()}{about[1:]}. Takes about two minutes; Linux only.",
        allow_abbrev=False,
    )
    much = verb.add_mutually_exclusive_group()
    much.add_argument("--quick", action="store_true", help="one small case, about 20 seconds")
    much.add_argument("--full", action="store_true", help="all sizes, framings and numbers of calls in flight")
    verb.add_argument("--case", action="append", metavar="CASE", help="framing/bytes/in flight, such as sse/10k/64")
    verb.add_argument("--client", action="append", metavar="NAME", help="a client to compare, such as mcp")
    verb.add_argument("--loop", choices=("asyncio", "uvloop", "both"), default="both", help="default: both")
    verb.add_argument("--rounds", type=int, metavar="N", help="interleaved rounds of every case (default: 5)")
    verb.add_argument("--json", metavar="FILE", help="write all samples, with machine, date and versions")
    verb.add_argument("--svg", metavar="FILE", help="draw the comparison")
    verb.add_argument("--targets", action="store_true", help="print only the targets: measured, met or missed")
    verb.add_argument("--strict", action="store_true", help="exit with 1 if a target is not met or not measured")
    verb.set_defaults(module="bench", function="run")


def _fleet_verb(verbs: argparse._SubParsersAction[_Parser], name: str, help_text: str, *, json: bool) -> _Parser:
    verb = verbs.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    verb.add_argument("config", metavar="CONFIG", help="a .toml or .json file with servers or mcpServers")
    if json:
        verb.add_argument("--json", action="store_true", help="print JSON instead of a table")
    verb.set_defaults(module="fleet", function=f"{name}_servers" if name in ("check", "list") else name)
    return verb
