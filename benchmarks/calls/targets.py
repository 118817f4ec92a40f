"""The performance targets of this project, and how far they are met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.calls.cases import ALONE, LARGE, SMALL, Case
from benchmarks.calls.children import ChildError, LoopbackServer, Worker, cores
from benchmarks.calls.runner import Comparison
from benchmarks.calls.samples import Samples
from benchmarks.calls.serve import address
from benchmarks.calls.worker import CLIENTS

__all__ = ["Extras", "Target", "comparisons", "evaluate", "measure_extras"]

_AIOHTTP, _SDK, _LANE = "aiohttp + orjson", "mcp", "bare lane"
_TEXT, _ROWS = Case("json", 1_000_000, 1), Case("rows", 1_000_000, 1)
_TOOLS: Final = Case("json", 100, 1, tools=1000)
_FLEETS: Final = ("fleet of 10", "fleet of 10,000", "fleet of 10,000, all called")
_REVISIONS: Final = ("2025-11-25", "2026-07-28")
_SESSIONS: Final = 1000
_SDK_SESSIONS: Final = 40
_SESSION_ROUNDS: Final = 3
_MEMORY_CALLS: Final = 20

Extras = dict[str, Any]
"""Measurements other than rounds of calls: sessions and memory."""


class Target(NamedTuple):
    """A line of the table; ``value`` and ``met`` are ``None`` if it could not be measured."""

    name: str
    value: float | None
    unit: str
    at_most: bool
    limit: float

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; ``None`` if that is unknown."""
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def comparisons(loops: Sequence[str]) -> list[Comparison]:
    """Return the comparisons that the targets need."""
    found = []
    for loop in loops:
        found.append(Comparison(SMALL, loop, tuple(CLIENTS)))
        found.append(Comparison(ALONE, loop, ("execute", "execute_async")))
    last = loops[-1]
    found.append(Comparison(LARGE, last, (_SDK, _AIOHTTP, _LANE, "call_tool", "execute_raw")))
    found.append(Comparison(_TOOLS, last, ("mcp list_tools", "list_tools")))
    found.append(Comparison(SMALL, last, _REVISIONS))
    found.append(Comparison(SMALL, last, _FLEETS))
    found.append(Comparison(_TEXT, last, ("scan", "msgspec Raw")))
    found.append(Comparison(_ROWS, last, ("scan", "msgspec Raw")))
    return found


async def measure_extras(loop: str, progress: Callable[[str], None], *, sessions: int = _SESSIONS) -> Extras:
    """Measure sessions and memory, each in a fresh process; sessions several times, since time is measured."""
    server_core, core = cores()
    found: Extras = {"sessions": sessions, "sdk_sessions": min(sessions, _SDK_SESSIONS)}
    async with LoopbackServer(server_core, sessions) as server:
        own = [server.url(SMALL.path, address(number)) for number in range(sessions)]
        runs = {
            "shared": ("manager_sessions", own[:1] * sessions),
            "own": ("manager_sessions", own),
            "sdk": ("sdk_sessions", own[: found["sdk_sessions"]]),
        }
        for number in range(_SESSION_ROUNDS):
            for name, (job, urls) in runs.items():
                progress(f"{len(urls)} sessions, {loop}, round {number + 1} of {_SESSION_ROUNDS}: {name}")
                async with Worker("", loop, core) as worker:
                    answer = await _ask(worker, {"do": job, "arguments": {"urls": urls}})
                    found.setdefault(f"{name}_rounds", []).append(answer)
        for client in ("execute_raw", _LANE, _SDK):
            progress(f"memory of {_MEMORY_CALLS} replies of 1 MB: {client}")
            command = {"url": server.url(SMALL.path), "expected": SMALL.expected(), "calls": 20}
            large = {"url": server.url(LARGE.path), "expected": LARGE.expected(), "calls": _MEMORY_CALLS}
            async with Worker(client, loop, core) as worker:
                await _ask(worker, {"do": "memory", **command})
                found[f"memory {client}"] = await _ask(worker, {"do": "memory", **large})
    return found


async def _ask(worker: Worker, command: dict[str, Any]) -> dict[str, Any]:
    try:
        return await worker.ask(command)
    except ChildError as error:
        return {"failed": str(error)}


def evaluate(samples: Samples, extras: Extras, loops: Sequence[str]) -> list[Target]:
    """Compare what was measured with the limits."""
    found = []
    for loop in loops:
        found += _call_targets(samples, loop)
    found += _single_targets(samples, loops[-1])
    return found + _session_targets(extras)


def _call_targets(samples: Samples, loop: str) -> list[Target]:
    quick = loop == "uvloop"
    ours, what = "execute_async", f"100 B, 16 in flight, {loop}"
    found = [
        Target(
            f"{ours} / {_AIOHTTP}, {what}", samples.ratio(SMALL, loop, ours, _AIOHTTP), "x", True, 0.2 if quick else 0.4
        ),
        Target(f"{_SDK} / {ours}, {what}", samples.ratio(SMALL, loop, _SDK, ours), "x", False, 50 if quick else 25),
    ]
    if quick:
        found.append(Target(f"{ours} / {_LANE}, {what}", samples.ratio(SMALL, loop, ours, _LANE), "x", True, 1.5))
        stack = samples.difference(SMALL, loop, "execute_raw", _LANE)
        found.append(Target(f"execute_raw - {_LANE}, {what}", stack, "µs", True, 3))
    hop = samples.difference(ALONE, loop, "execute", "execute_async")
    found.append(Target(f"execute - {ours}, one thread, {loop}", hop, "µs", True, 60))
    return found


def _single_targets(samples: Samples, loop: str) -> list[Target]:
    def ratio(case: Case, client: str, to: str) -> float | None:
        return samples.ratio(case, loop, client, to)

    fleets = "a call, 10,000 / 10 servers"
    return [
        Target(f"execute_raw / {_LANE}, 1 MB reply, {loop}", ratio(LARGE, "execute_raw", _LANE), "x", True, 1.2),
        Target("msgspec Raw / scan, 1 MB of text", ratio(_TEXT, "msgspec Raw", "scan"), "x", False, 2),
        Target("msgspec Raw / scan, 1 MB of small rows", ratio(_ROWS, "msgspec Raw", "scan"), "x", False, 8),
        Target("mcp / list_tools, 1,000 tools", ratio(_TOOLS, "mcp list_tools", "list_tools"), "x", False, 20),
        Target(f"a call, revision 2026-07-28 / 2025-11-25, {loop}", ratio(SMALL, *_REVISIONS[::-1]), "x", True, 1.15),
        Target(f"{fleets}, 10 of them called, {loop}", ratio(SMALL, _FLEETS[1], _FLEETS[0]), "x", True, 1.3),
        Target(f"{fleets}, all of them called, {loop}", ratio(SMALL, _FLEETS[2], _FLEETS[0]), "x", True, 1.3),
    ]


def _session_targets(extras: Extras) -> list[Target]:
    count, sdk_count = extras["sessions"], extras["sdk_sessions"]
    found = []
    for name, words in (("shared", "one origin"), ("own", "an origin each")):
        times = None
        ours, theirs = _of(extras, name, "open_cpu_s"), _of(extras, "sdk", "open_cpu_s")
        if ours and theirs:
            times = statistics.median(
                (other / sdk_count) / (one / count) for one, other in zip(ours, theirs, strict=False)
            )
        found.append(Target(f"mcp / deploy, {count:,} sessions, {words}", times, "x", False, 25))
        for member, state in (("open_kb", "open"), ("called_kb", "called once")):
            kb = _of(extras, name, member)
            value = statistics.median(kb) / count if kb else None
            found.append(Target(f"memory of a session, {count:,} sessions, {words}, {state}", value, "kB", True, 20))
    growth = extras.get("memory execute_raw", {}).get("growth_kb")
    value = None if growth is None else growth * 1024 / LARGE.size
    found.append(Target("peak memory / payload, 1 MB replies, execute_raw", value, "x", True, 3))
    return found


def _of(extras: Extras, name: str, member: str) -> list[float]:
    return [each[member] for each in extras.get(f"{name}_rounds", []) if member in each]
