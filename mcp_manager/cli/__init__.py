"""The command line: its arguments and exit statuses; the verbs are in modules of their own."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from mcp_manager._version import __version__
from mcp_manager.cli.program import MISUSED, Parser, run_program
from mcp_manager.cli.table import complain
from mcp_manager.errors import McpManagerError
from mcp_manager.observe.log_format import log_output

__all__ = ["main"]

_EPILOG = (
    "Begin with: mcp-manager demo. The manual: mcp-manager help. Exit status: 0 success, 1 failure, 2 usage error "
    "(arguments, configuration, unknown server), 130 interrupted."
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
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["bench"]:
        # For one release, for those who know the command.
        complain("the benchmark is not installed any more: run python -m benchmarks at the root of a checkout")
        return MISUSED
    if arguments[:1] == ["demo"]:
        # It reports the failures that it causes itself.
        return run_program(_parser(), arguments, _begin)
    with log_output() as handler:
        # The verbs report the states of servers and failed calls themselves.
        handler.addFilter(lambda record: record.name not in ("mcp_manager.events", "mcp_manager.calls.call_log"))
        return run_program(_parser(), arguments, _begin)


def _begin(options: argparse.Namespace) -> Coroutine[Any, Any, int]:
    if options.verb is None:
        raise McpManagerError(
            "nothing to do: try mcp-manager demo, which needs no configuration (see mcp-manager --help)"
        )
    run = getattr(importlib.import_module(f"mcp_manager.cli.{options.module}"), options.function)
    work: Coroutine[Any, Any, int] = run(options)
    return work


_ABOUT_HELP: Final = "Print a topic of the manual, or list the topics."
_TIMEOUT: Final = "default: the server's request_timeout_s; for a program start_timeout_s, if that is longer"


def _parser() -> Parser:
    parser = Parser(
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
    verb = verbs.add_parser("help", help="list the topics of the manual, or print one", description=_ABOUT_HELP)
    verb.add_argument("topic", nargs="?", metavar="TOPIC", help="such as retries; without one, the topics are listed")
    verb.set_defaults(module="manual", function="show")
    return parser


def _fleet_verb(verbs: argparse._SubParsersAction[Parser], name: str, help_text: str, *, json: bool) -> Parser:
    verb = verbs.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    verb.add_argument("config", metavar="CONFIG", help="a .toml or .json file with servers or mcpServers")
    if json:
        verb.add_argument("--json", action="store_true", help="print JSON instead of a table")
    verb.set_defaults(module="fleet", function=f"{name}_servers" if name in ("check", "list") else name)
    return verb
