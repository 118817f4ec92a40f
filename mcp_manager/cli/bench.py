"""``mcp-manager bench``: measure what a call costs here, beside other clients, and tell it."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import Final, NamedTuple

from mcp_manager.bench.cases import FULL, SMALL, Case, parse_case
from mcp_manager.bench.children import LoopbackServer, cores
from mcp_manager.bench.plot import chart
from mcp_manager.bench.report import (
    caption,
    comparison_tables,
    document,
    extras_lines,
    missing_lines,
    surroundings,
    target_table,
)
from mcp_manager.bench.runner import Comparison, Runner, available_loops
from mcp_manager.bench.targets import Extras, comparisons, evaluate, measure_extras
from mcp_manager.bench.worker import CLIENTS
from mcp_manager.cli.table import complain
from mcp_manager.errors import InvalidRequestError

__all__ = ["run"]

_NOT_MET: Final = 1


class _Plan(NamedTuple):
    comparisons: list[Comparison]
    rounds: int
    seconds: float
    targets: bool
    tables: bool


async def run(options: Namespace) -> int:
    """Measure as asked and print tables; 0, or with ``--strict`` 1 if a target is not met."""
    loops, lacking = available_loops(options.loop)
    if not loops:
        raise InvalidRequestError(f"There is no loop to measure on: {lacking}")
    plan = _plan(options, loops)
    for path in (options.json, options.svg):
        if path is not None:
            _check_writable(path)
    progress = _Progress()
    server_core, _ = cores()
    try:
        async with LoopbackServer(server_core) as server:
            runner = Runner(server, rounds=plan.rounds, seconds=plan.seconds, progress=progress)
            await runner.run(plan.comparisons)
        extras: Extras | None = None
        if plan.targets:
            extras = await measure_extras(loops[-1], progress)
    finally:
        progress.clear()
    samples = runner.samples
    targets = evaluate(samples, extras, loops) if extras is not None else []
    about = surroundings()
    print(caption(about) + "\n")
    if plan.tables:
        print(comparison_tables(samples, list(CLIENTS)))
    if extras is not None:
        print(target_table(targets))
        print("\n" + "\n".join(extras_lines(extras)))
    for line in ([lacking] if lacking else []) + missing_lines(samples):
        print(line)
    _write(options.json, json.dumps(document(about, samples, extras, targets), indent=1) + "\n")
    _write(options.svg, chart(samples, list(CLIENTS), about))
    if options.strict and any(each.met is not True for each in targets):
        complain("not every target is met")
        return _NOT_MET
    return 0


def _plan(options: Namespace, loops: list[str]) -> _Plan:
    cases: tuple[Case, ...] = tuple(parse_case(text) for text in options.case or ())
    unknown = set(options.client or ()) - set(CLIENTS)
    if unknown:
        raise InvalidRequestError(f"{unknown.pop()!r} is not a client", hint="one of " + ", ".join(CLIENTS))
    if options.client and not cases:
        cases = (SMALL,)
    if options.quick:
        cases, rounds, seconds = cases or (SMALL,), 3, 0.15
    elif options.full:
        cases, rounds, seconds = cases or FULL, 5, 0.25
    else:
        rounds, seconds = 5, 0.25
    if options.rounds is not None:
        if options.rounds < 1:
            raise InvalidRequestError("--rounds must be at least 1")
        rounds = options.rounds
    clients = tuple(client for client in CLIENTS if not options.client or client in options.client)
    wanted = [Comparison(case, loop, clients) for loop in loops for case in cases]
    targets = options.targets or not cases
    if targets:
        wanted += [each for each in comparisons(loops) if each not in wanted]
    return _Plan(wanted, rounds, seconds, targets, bool(cases) or not options.targets)


def _write(path: str | None, text: str) -> None:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")


def _check_writable(path: str) -> None:
    """Find out now, not after minutes of measuring."""
    try:
        with open(path, "a", encoding="utf-8"):
            pass
    except OSError as error:
        raise InvalidRequestError(f"Cannot write {path}: {error.strerror}") from None


class _Progress:
    """One line on standard error that is written over; nothing where nobody looks."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._shown:
            print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave nothing of it behind."""
        self("")
