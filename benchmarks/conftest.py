"""Prints one table for the core (ns per operation), one for calls, and the results of simulations."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

import pytest

PEERS = ("pybreaker", "purgatory", "hdrhistogram", "prometheus_client", "orjson", "msgspec")
MEASURED = pytest.StashKey[list[dict[str, Any]]]()
CALLS = pytest.StashKey[list[dict[str, Any]]]()
SIMULATED = pytest.StashKey[list[dict[str, Any]]]()


def pytest_benchmark_group_stats(config: pytest.Config, benchmarks: Sequence[dict[str, Any]]) -> list[Any] | None:
    """Keep the results for the tables of this file; without groups, the plug-in prints none of its own."""
    config.stash[MEASURED] = [each for each in benchmarks if "repeat" in each["extra_info"]]
    config.stash[CALLS] = [each for each in benchmarks if "in_flight" in each["extra_info"]]
    config.stash[SIMULATED] = [each for each in benchmarks if "simulated" in each["extra_info"]]
    kept = (MEASURED, CALLS, SIMULATED)
    if sum(len(config.stash[each]) for each in kept) < len(benchmarks):
        return None
    return []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the tables, and which cases were skipped and why."""
    measured, calls = config.stash.get(MEASURED, []), config.stash.get(CALLS, [])
    if measured:
        _core_section(terminalreporter, measured)
    if calls:
        terminalreporter.section("calls, compared with other clients")
        for line in _call_table(calls):
            terminalreporter.write_line(line)
    for entry in config.stash.get(SIMULATED, []):
        terminalreporter.section(f"simulated in {entry['median']:.1f} s")
        for line in entry["extra_info"]["simulated"]:
            terminalreporter.write_line(line)
    if measured or calls:
        for report in terminalreporter.stats.get("skipped", []):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.write_line(f"not measured: {report.nodeid.partition('[')[2].rstrip(']')} ({reason})")


def _core_section(terminalreporter: Any, measured: Sequence[dict[str, Any]]) -> None:
    terminalreporter.section("core, compared with its peers")
    versions = [f"{name} {_version(name)}" for name in PEERS]
    terminalreporter.write_line(
        f"{platform.python_implementation()} {platform.python_version()}, {', '.join(versions)}"
    )
    terminalreporter.write_line("")
    for line in _table(measured):
        terminalreporter.write_line(line)


def _call_table(calls: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Yield a table of wall time per call: a line per client, a column per number of calls in flight."""
    grouped: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for entry in calls:
        info = entry["extra_info"]
        clients = grouped.setdefault((info["size"], info["loop"]), {})
        per_call_us = entry["median"] / info["calls"] * 1e6
        clients.setdefault(info["client"], {})[info["in_flight"]] = per_call_us
    for (size, loop), clients in grouped.items():
        columns = sorted({number for figures in clients.values() for number in figures})
        yield f"{f'{size}, {loop}':24}" + "".join(f"{f'{number} in flight':>14}" for number in columns)
        for client, figures in clients.items():
            cells = (f"{figures[number]:14.1f}" if number in figures else f"{'-':>14}" for number in columns)
            yield f"  {client:22}{''.join(cells)}"
        yield ""
    yield "wall time per call in microseconds, median of the rounds; python -m benchmarks measures processor time"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _ns(entry: dict[str, Any], statistic: str) -> float:
    seconds: float = entry[statistic]
    repeat: int = entry["extra_info"]["repeat"]
    return seconds / repeat * 1e9


def _table(measured: Sequence[dict[str, Any]]) -> Iterable[str]:
    width = max(len(entry["extra_info"]["name"]) for entry in measured) + len("that sum / ")
    yield f"{'':20}  {'operation':{width}}  {'min ns':>9}  {'median ns':>9}"
    group = None
    for entry in measured:
        info = entry["extra_info"]
        heading = info["group"] if info["group"] != group else ""
        group = info["group"]
        mark = " *" if info["part"] and entry is _cheapest(measured, info["part"]) else ""
        yield f"{heading:20}  {info['name']:{width}}  {_ns(entry, 'min'):9.0f}  {_ns(entry, 'median'):9.0f}{mark}"
    yield from _totals(measured, width)


def _cheapest(measured: Sequence[dict[str, Any]], part: str) -> dict[str, Any]:
    return min(
        (entry for entry in measured if entry["extra_info"]["part"] == part), key=lambda entry: _ns(entry, "median")
    )


def _totals(measured: Sequence[dict[str, Any]], width: int) -> Iterable[str]:
    """Yield the sum of the cheapest peers of all parts, and its ratio to each of our totals."""
    parts = dict.fromkeys(entry["extra_info"]["part"] for entry in measured if entry["extra_info"]["part"])
    chosen = [_cheapest(measured, part) for part in parts]
    if not chosen:
        return
    sums = {statistic: sum(_ns(entry, statistic) for entry in chosen) for statistic in ("min", "median")}
    label = "sum of the peers' parts *"
    yield f"{'':20}  {label:{width}}  {sums['min']:9.0f}  {sums['median']:9.0f}"
    for entry in measured:
        if entry["extra_info"]["total"]:
            ratios = [sums[statistic] / _ns(entry, statistic) for statistic in ("min", "median")]
            label = f"that sum / {entry['extra_info']['name']}"
            yield f"{'':20}  {label:{width}}  {ratios[0]:9.1f}  {ratios[1]:9.1f}"
    yield ""
    yield f"* the cheapest of the peers for each part of pick() + done(): {', '.join(parts)}"
