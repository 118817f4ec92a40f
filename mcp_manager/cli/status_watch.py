"""``status --watch``: a table that follows the states; where lines cannot be rewritten, a line per change."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mcp_manager.cli.background import background
from mcp_manager.cli.grants import manager_of
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import console, is_live, one_line, print_json, style_of, width
from mcp_manager.cli.source import Fleet, file_of
from mcp_manager.cli.table import cut
from mcp_manager.manager import McpManager
from mcp_manager.observe.views import ServerView
from mcp_manager.types import ServerState

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["first_of", "screen_of", "watch", "worst_first"]

# Several changes at once are drawn once.
_LEAST_S: Final = 0.1
# The clock moves on, and not everything that is shown has an event.
_TICK_S: Final = 1.0
# Looking at a large fleet takes a while; most of the time is left to the manager.
_SHARE: Final = 0.1
_WORST: Final = (
    ServerState.UNHEALTHY,
    ServerState.DEGRADED,
    ServerState.INITIALIZING,
    ServerState.MAINTENANCE,
    ServerState.STOPPED,
    ServerState.HEALTHY,
)
# Beside the table: the line above it, its header, and the line that counts what is left out.
_OTHER_LINES: Final = 3
# What is logged while the table is drawn is kept until its end.
_MOST_HELD: Final = 200
_LONGEST_ID: Final = 0.4
_LEAST_WHY: Final = 16
_COUNT: Final = re.compile(r"(?:at least )?([0-9]+) problems")


async def watch(fleet: Fleet, options: Options) -> int:
    """Show the states of a fleet until the user ends it, and apply its file whenever that changes; return 0."""
    manager = manager_of(fleet.config)
    async with _started(manager, options) as starting, _changes(manager) as changed:
        if options.json or not is_live(sys.stdout):
            await _print_changes(manager, options, starting, changed)
        else:
            with _held_messages():
                await _draw(manager, fleet, starting, changed)
    return 0


def worst_first(views: Sequence[ServerView]) -> list[ServerView]:
    """Return the views with the unhealthy servers first, and otherwise in their order."""
    return sorted(views, key=lambda view: _WORST.index(view.state))


def screen_of(views: Sequence[ServerView], place: str, columns: int, lines: int, problem: str = "") -> RenderableType:
    """Return the table with the line above it, cut to a terminal's size: one line for each server.

    Parameters
    ----------
    views
        The servers; the worst come first if not all of them fit.
    place
        The fleet, for display.
    columns, lines
        The size of the terminal.
    problem
        Why the present content of the file was not applied, or not all of it; "" if it was.
    """
    from rich.console import Group  # noqa: PLC0415 - --version and --help do without
    from rich.text import Text  # noqa: PLC0415 - as above

    room = max(1, lines - _OTHER_LINES - bool(problem))
    shown = list(views) if len(views) <= room else worst_first(views)[:room]
    counts = {state: sum(view.state is state for view in views) for state in _WORST}
    said = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count) or "connecting"
    head = Text(cut(f"{time.strftime('%H:%M:%S')}  {said}  (q: end)  {one_line(place)}", columns), no_wrap=True)
    left = len(views) - len(shown)
    rest = [Text(cut(f"and {left} more, in no worse state", columns), no_wrap=True)] if left else []
    if problem:
        rest.append(Text(cut(one_line(problem), columns), style=style_of("error"), no_wrap=True))
    return Group(head, _table(shown, columns), *rest)


def _problem_of(manager: McpManager) -> str:
    """Return what of the file that the manager follows is not applied; "" if there is nothing."""
    watched = manager.watched
    if watched is None:
        return ""
    if watched.problem:
        return f"not applied: {first_of(watched.problem, watched.path)}"
    invalid = watched.applied.invalid
    return f"invalid and not applied: {', '.join(invalid)}" if invalid else ""


def first_of(problem: str, path: str) -> str:
    """Return the first problem of a file from the message of its error, and how many more there are."""
    said = problem.removeprefix(f"Invalid config file {path}")
    if said != problem:
        # A single problem has its place: ":3:1: …".
        said = said.removeprefix(": ") if said.startswith(": ") else f"{PurePath(path).name}{said}"
    heading, _, rest = said.partition("\n")
    count = _COUNT.fullmatch(heading)
    if count is None or not rest:
        return said
    first = rest.partition("\n")[0].removeprefix(path)
    return f"{PurePath(path).name}{first} (and {int(count[1]) - 1} more)"


def _table(views: Sequence[ServerView], columns: int) -> RenderableType:
    from rich.cells import cell_len  # noqa: PLC0415 - --version and --help do without
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    named = [("SERVER", [cut(one_line(view.id), int(columns * _LONGEST_ID)) for view in views])]
    named.append(("STATE", [view.state.value for view in views]))
    named.append(("READY", [f"{view.ready}/{view.desired}" for view in views]))
    # As many of the others as leave room for the reasons.
    for title, cells in (
        ("CIRCUIT", [view.circuit for view in views]),
        ("TRANSPORT", [str(view.transport) for view in views]),
        ("PROTOCOL", [view.protocol_version or "-" for view in views]),
    ):
        used = sum(max(map(cell_len, [name, *column])) + 2 for name, column in [*named, (title, cells)])
        if used + _LEAST_WHY <= columns:
            named.append((title, cells))
    used = sum(max(map(cell_len, [name, *column])) + 2 for name, column in named)
    named.append(("WHY", [cut(_why(view), max(1, columns - used)) for view in views]))
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, _ in named:
        table.add_column(title, no_wrap=True, overflow="crop")
    for row in zip(*(cells for _, cells in named), strict=True):
        table.add_row(*(Text(cell, style=style_of(cell), no_wrap=True) for cell in row))
    return table


def _why(view: ServerView) -> str:
    said = [*view.reasons, *([view.last_error] if view.last_error is not None else [])]
    return one_line("; ".join(said))


async def _draw(manager: McpManager, fleet: Fleet, starting: asyncio.Task[None], changed: asyncio.Event) -> None:
    """Draw the table on a screen of its own until ``q`` is pressed."""
    from rich.live import Live  # noqa: PLC0415 - --version and --help do without

    target, drawn = console(), None
    ended = asyncio.Event()
    with (
        _keys(ended, changed),
        Live(console=target, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
    ):
        while not ended.is_set():
            looked = time.monotonic()
            views = manager.servers()
            problem = _problem_of(manager)
            size = (width(), shutil.get_terminal_size().lines)
            # The clock of the head moves on with every change, and every second.
            state = (views, size, problem, int(time.time()))
            if state != drawn:
                target.width, target.height = size
                live.update(screen_of(views, fleet.shown, *size, problem), refresh=True)
                drawn = state
            if starting.done():
                starting.result()
            await _pause(ended, changed, looked)


async def _print_changes(
    manager: McpManager, options: Options, starting: asyncio.Task[None], changed: asyncio.Event
) -> None:
    """Print a line for every server, for every change of its state, for its removal and for a mistake in it, for ever."""
    before: dict[str, tuple[object, ...]] = {}
    invalid: set[str] = set()
    never = asyncio.Event()
    while True:
        looked = time.monotonic()
        views = manager.servers()
        now_invalid = set(watched.applied.invalid if (watched := manager.watched) is not None else ())
        for server_id in sorted(now_invalid - invalid):
            _print_note(server_id, "invalid", options)
        invalid = now_invalid
        for gone in before.keys() - {view.id for view in views}:
            del before[gone]
            _print_note(gone, "removed", options)
        for view in views:
            now = (view.state, view.ready, view.desired, view.circuit, view.reasons)
            if before.get(view.id) != now:
                before[view.id] = now
                _print_change(view, options)
        if starting.done():
            starting.result()
        await _pause(never, changed, looked)


def _print_change(view: ServerView, options: Options) -> None:
    if options.json:
        plain: dict[str, Any] = msgspec.to_builtins(view)
        print_json({"time": time.time(), **plain}, indent=None)
        return
    cells = (view.id, view.state.value, f"{view.ready}/{view.desired}", view.circuit, _why(view))
    print(f"{time.strftime('%H:%M:%S')}  {'  '.join(map(one_line, cells))}".rstrip(), flush=True)


def _print_note(server_id: str, what: str, options: Options) -> None:
    """Print that a server was removed, or that it is invalid in the file and was left out."""
    if options.json:
        print_json({"time": time.time(), "id": server_id, what: True}, indent=None)
    else:
        print(f"{time.strftime('%H:%M:%S')}  {one_line(server_id)}  {what}", flush=True)


async def _pause(ended: asyncio.Event, changed: asyncio.Event, looked: float) -> None:
    """Wait for a change, or for the next tick; but not so briefly that looking takes much of the time."""
    await _within(max(_LEAST_S, (time.monotonic() - looked) / _SHARE), ended)
    if not ended.is_set():
        await _within(_TICK_S, changed)
    changed.clear()


async def _within(seconds: float, event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


@contextlib.asynccontextmanager
async def _changes(manager: McpManager) -> AsyncIterator[asyncio.Event]:
    """Yield what is set whenever something happens to a server."""
    changed = asyncio.Event()

    async def listen() -> None:
        async for _ in events:
            changed.set()

    with manager.events() as events:
        async with background(listen()):
            yield changed


@contextlib.asynccontextmanager
async def _started(manager: McpManager, options: Options) -> AsyncIterator[asyncio.Task[None]]:
    """Start a manager in the background, so that its servers can be watched meanwhile; stop it at the end."""

    async def start() -> None:
        await manager.start()
        if path is not None:
            await manager.watch(path, lenient=options.lenient, sighup=has_hangup)

    path = file_of(options)
    has_hangup = hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread()
    starting = asyncio.get_running_loop().create_task(start())
    try:
        yield starting
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await manager.stop()


class _Held(io.TextIOBase):
    """Keeps the latest messages."""

    def __init__(self) -> None:
        self.messages: deque[str] = deque(maxlen=_MOST_HELD)

    def write(self, text: str) -> int:
        """Keep a message."""
        self.messages.append(text)
        return len(text)


@contextlib.contextmanager
def _held_messages() -> Iterator[None]:
    """Print what goes to standard error at the end, so that it does not run over the table."""
    held = _Held()
    try:
        with contextlib.redirect_stderr(held):
            yield
    finally:
        for message in held.messages:
            sys.stderr.write(message)


@contextlib.contextmanager
def _keys(ended: asyncio.Event, changed: asyncio.Event) -> Iterator[None]:
    """Set the events when ``q`` is pressed; nothing that is typed is shown meanwhile."""
    try:
        import termios  # noqa: PLC0415 - not on every system
        import tty  # noqa: PLC0415 - as above

        typed = sys.stdin.fileno()
        # A program in the background must not change its terminal.
        is_ours = os.isatty(typed) and os.tcgetpgrp(typed) == os.getpgrp()
    except (ImportError, OSError, ValueError):
        is_ours = False
    if not is_ours:
        yield
        return

    def read() -> None:
        try:
            keys = os.read(typed, 64)
        except OSError:
            # The terminal is gone.
            keys = b""
        if not keys or b"q" in keys.lower():
            loop.remove_reader(typed)
            ended.set()
            changed.set()

    loop, before = asyncio.get_running_loop(), termios.tcgetattr(typed)
    try:
        tty.setcbreak(typed, termios.TCSANOW)
        loop.add_reader(typed, read)
        yield
    finally:
        loop.remove_reader(typed)
        termios.tcsetattr(typed, termios.TCSANOW, before)
