"""The command line: measures the cost of a call on this machine, compared with other clients."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from benchmarks.calls.build import build_loopback
from benchmarks.calls.cases import FULL, SMALL, Case, parse_case
from benchmarks.calls.children import LoopbackServer, cores
from benchmarks.calls.plot import chart
from benchmarks.calls.report import (
    caption,
    comparison_tables,
    document,
    extras_lines,
    missing_lines,
    surroundings,
    target_table,
)
from benchmarks.calls.runner import Comparison, Runner, available_loops
from benchmarks.calls.targets import Extras, comparisons, evaluate, measure_extras
from benchmarks.calls.worker import CLIENTS
from mcp_manager.cli.options import Options
from mcp_manager.cli.program import Work, run_program
from mcp_manager.cli.screen import complain
from mcp_manager.errors import InvalidRequestError

__all__ = ["main"]

_NOT_MET: Final = 1


class _Plan(NamedTuple):
    comparisons: list[Comparison]
    loops: list[str]
    lacking: str
    rounds: int
    seconds: float
    targets: bool
    tables: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the arguments say, and print tables.

    Parameters
    ----------
    argv
        The arguments without the program's name; ``None`` for those of this process.

    Returns
    -------
    The exit status: 0 success, 1 a target was not met (with ``--strict``), 2 wrong usage or not available here, 130
    interrupted.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    return run_program(_command, arguments, name="python -m benchmarks", tells_json=False)


@click.command(context_settings={"max_content_width": 100})
@click.option("--quick", is_flag=True, help="One small case, about 20 seconds.")
@click.option("--full", is_flag=True, help="All sizes, framings and numbers of calls in flight.")
@click.option("--case", multiple=True, metavar="CASE", help="Framing/bytes/in flight, such as sse/10k/64.")
@click.option("--client", multiple=True, metavar="NAME", help="Measure only this client, such as mcp.")
@click.option("--loop", type=click.Choice(["asyncio", "uvloop", "both"]), default="both", show_default=True)
@click.option("--rounds", type=int, metavar="N", help="Interleaved rounds of every case; 5 unless --quick.")
@click.option("--json", metavar="FILE", help="Write all samples, with machine, date and versions.")
@click.option("--svg", metavar="FILE", help="Draw the comparison.")
@click.option("--targets", is_flag=True, help="Measure and print only the targets.")
@click.option("--strict", is_flag=True, help="Exit with 1 if a target is not met or not measured.")
def _command(**given: Any) -> Work:
    """Compare the cost of a call with that of other clients. Takes two minutes; Linux only."""
    if given["quick"] and given["full"]:
        raise click.UsageError("--full is not allowed with --quick")
    return Work(lambda: _begin(Namespace(**given)), Options())


def _begin(options: Namespace) -> Coroutine[Any, Any, int]:
    """Check the options and build the server before anything is measured."""
    plan = _plan(options)
    for path in (options.json, options.svg):
        if path is not None:
            _check_writable(path)
    build_loopback()
    return _measure(options, plan)


async def _measure(options: Namespace, plan: _Plan) -> int:
    progress = _Progress()
    server_core, _ = cores()
    try:
        async with LoopbackServer(server_core) as server:
            runner = Runner(server, rounds=plan.rounds, seconds=plan.seconds, progress=progress)
            await runner.run(plan.comparisons)
        extras: Extras | None = None
        if plan.targets:
            extras = await measure_extras(plan.loops[-1], progress)
    finally:
        progress.clear()
    samples = runner.samples
    targets = evaluate(samples, extras, plan.loops) if extras is not None else []
    about = surroundings()
    print(caption(about) + "\n")
    if plan.tables:
        print(comparison_tables(samples, list(CLIENTS)))
    if extras is not None:
        print(target_table(targets))
        print("\n" + "\n".join(extras_lines(extras)))
    for line in ([plan.lacking] if plan.lacking else []) + missing_lines(samples):
        print(line)
    _write(options.json, json.dumps(document(about, samples, extras, targets), indent=1) + "\n")
    _write(options.svg, chart(samples, list(CLIENTS), about))
    if options.strict and any(each.met is not True for each in targets):
        complain("not every target is met")
        return _NOT_MET
    return 0


def _plan(options: Namespace) -> _Plan:
    loops, lacking = available_loops(options.loop)
    if not loops:
        raise InvalidRequestError(f"No event loop to measure on: {lacking}")
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
    return _Plan(wanted, loops, lacking, rounds, seconds, targets, bool(cases) or not options.targets)


def _write(path: str | None, text: str) -> None:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")


def _check_writable(path: str) -> None:
    """Check that a file can be written before minutes are spent on measuring."""
    try:
        with open(path, "a", encoding="utf-8"):
            pass
    except OSError as error:
        raise InvalidRequestError(f"Cannot write {path}: {error.strerror}") from None


class _Progress:
    """A line on standard error that is overwritten; nothing if that is not a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._shown:
            print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Erase the line."""
        self("")
