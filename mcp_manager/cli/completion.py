"""Completion in shells."""

from __future__ import annotations

from typing import Final

from click.shell_completion import get_completion_class, shell_complete

from mcp_manager.cli.commands import program
from mcp_manager.cli.options import Options
from mcp_manager.cli.program import FAILED
from mcp_manager.cli.screen import complain, print_json

__all__ = ["complete", "run"]

_NAME: Final = "mcp-manager"
_VARIABLE: Final = "_MCP_MANAGER_COMPLETE"


async def run(options: Options) -> int:
    """Print the script for a shell; return 0."""
    made = get_completion_class(options.shell)
    if made is None:
        complain(f"no completion for {options.shell}")
        return FAILED
    script = made(program, {}, _NAME, _VARIABLE).source()
    if options.json:
        print_json({"shell": options.shell, "script": script})
    else:
        print(script)
    return 0


def complete(instruction: str) -> int:
    """Answer a shell that asks for completions; return the exit status."""
    return shell_complete(program, {}, _NAME, _VARIABLE, instruction)
