"""Live progress on standard error while servers connect or a call runs; nothing where lines cannot be rewritten."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

from mcp_manager.cli.background import background
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import console, is_live, one_line
from mcp_manager.cli.table import cut

__all__ = ["is_shown", "progress", "standing"]

_EVERY_S: Final = 0.1
# A fast command shows nothing: a line that appears for a moment only flickers.
_AFTER_S: Final = 0.3


def is_shown(options: Options) -> bool:
    """Tell whether progress is shown: on a terminal, unless it is to be quiet."""
    return not options.quiet and is_live(sys.stderr)


@contextlib.asynccontextmanager
async def progress(options: Options, text: Callable[[], str]) -> AsyncIterator[None]:
    """Show a line that is asked for ten times a second, and clear it at the end.

    Parameters
    ----------
    options
        Whether to be quiet.
    text
        Returns the line; the seconds that have passed are added to it.
    """
    if not is_shown(options):
        yield
        return
    async with background(_refresh(text)):
        yield


def standing(up: int, total: int, waiting: Iterable[str], failed: int = 0) -> str:
    """Say how many servers are up, and which are not yet."""
    names = ", ".join(one_line(name) for name in waiting)
    parts = [f"{up} of {total} up"]
    if failed:
        parts.append(f"{failed} failed")
    if names:
        parts.append(f"waiting for {names}")
    return ", ".join(parts)


async def _refresh(text: Callable[[], str]) -> None:
    from rich.live import Live  # noqa: PLC0415 - --version and --help do without
    from rich.text import Text  # noqa: PLC0415 - as above

    started = time.monotonic()
    await asyncio.sleep(_AFTER_S)

    def line() -> Any:
        passed = f" {time.monotonic() - started:.1f} s"
        # The seconds must be seen also where the names of servers do not fit.
        return Text(f"{cut(text(), target.width - len(passed) - 1)}{passed}", no_wrap=True)

    target = console(sys.stderr)
    with Live(
        line(), console=target, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as live:
        while True:
            await asyncio.sleep(_EVERY_S)
            target.width = console(sys.stderr).width
            live.update(line(), refresh=True)
