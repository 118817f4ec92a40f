"""The command line: ``commands`` defines its verbs, which are in modules of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["main"]

_COMPLETE: Final = "_MCP_MANAGER_COMPLETE"


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
    if arguments == ["--version"]:
        from mcp_manager._version import __version__  # noqa: PLC0415 - the rest is not loaded for this

        print(f"mcp-manager {__version__}")
        return 0
    if _COMPLETE in os.environ and argv is None:
        from mcp_manager.cli.completion import complete  # noqa: PLC0415 - for completion alone

        return complete(os.environ[_COMPLETE])
    from mcp_manager.cli.commands import program  # noqa: PLC0415 - importing this package must not load click
    from mcp_manager.cli.program import MISUSED, run_program  # noqa: PLC0415 - as above

    if arguments[:1] == ["bench"]:
        from mcp_manager.cli.screen import complain  # noqa: PLC0415 - as above

        # For one release, for those who know the command.
        complain("the benchmark is not installed any more: run python -m benchmarks at the root of a checkout")
        return MISUSED
    return run_program(program, arguments)
