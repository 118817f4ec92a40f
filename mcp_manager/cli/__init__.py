"""The command line: arguments, exit statuses, and nothing else. Each verb's work is in a module of its own."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from mcp_manager._version import __version__
from mcp_manager.cli import demo, fleet
from mcp_manager.errors import CallError, McpManagerError

__all__ = ["main"]

_FAILED = 1
_MISUSED = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 misused, 130 interrupted."""
    options = _parser().parse_args(argv)
    try:
        status: int = asyncio.run(options.run(options))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except McpManagerError as error:
        print(f"mcp-manager: {error}", file=sys.stderr)
        return _FAILED if isinstance(error, CallError) else _MISUSED
    except BrokenPipeError:
        # Whoever read the output, such as head, has seen enough.
        sys.stderr.close()
        return _FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mcp-manager", description="Manage a fleet of MCP servers.")
    parser.add_argument("--version", action="version", version=f"mcp-manager {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser("demo", help="watch a small fleet lose a server and recover (about ten seconds)")
    verb.set_defaults(run=demo.run)

    verb = _fleet_verb(verbs, "check", "connect to every server once and say what answers")
    verb.set_defaults(run=fleet.check)

    verb = _fleet_verb(verbs, "list", "list the configured servers without connecting")
    verb.set_defaults(run=fleet.list_configured)

    verb = _fleet_verb(verbs, "status", "connect to every server and show its state")
    verb.set_defaults(run=fleet.status)

    verb = _fleet_verb(verbs, "tools", "list the tools of all servers, or of one")
    verb.add_argument("server", nargs="?", help="a server's id")
    verb.set_defaults(run=fleet.tools)

    verb = _fleet_verb(verbs, "call", "send one request and print the JSON-RPC response")
    verb.add_argument("server", help="the server's id")
    verb.add_argument("method", help="such as tools/list or tools/call")
    verb.add_argument("params", nargs="?", help="the params as JSON")
    verb.add_argument("--timeout", type=float, metavar="SECONDS", help="default: the server's request_timeout_s")
    verb.set_defaults(run=fleet.call)
    return parser


def _fleet_verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help_text: str
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=help_text)
    verb.add_argument("config", help="a .toml or .json file with servers or mcpServers")
    if name not in ("check", "call"):
        verb.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return verb
