"""Reports what was measured: tables as text, everything as JSON."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Final

from benchmarks.calls.cases import Case, parse_case
from benchmarks.calls.samples import Samples
from benchmarks.calls.targets import Extras, Target
from mcp_manager._version import __version__
from mcp_manager.cli.table import render

__all__ = ["comparison_tables", "document", "extras_lines", "missing_lines", "surroundings", "target_table"]

_PACKAGES: Final = ("mcp", "fastmcp", "httpx2", "httpx", "aiohttp", "orjson", "msgspec", "httptools", "uvloop")
_REFERENCE: Final = "aiohttp + orjson"


def surroundings() -> dict[str, Any]:
    """Return the machine, the date and the versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {"pymcp-manager": __version__, **{name: found for name in _PACKAGES if (found := _version(name))}},
    }


def caption(about: dict[str, Any]) -> str:
    """Return the surroundings as one line."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"{about['date']} · {about['machine']} · {about['system']} · {about['python']} · {versions}"


def comparison_tables(samples: Samples, clients: Sequence[str]) -> str:
    """Return a table per case and loop: medians over the rounds, and ratios paired within them."""
    parts = []
    for text, loop in samples.cases():
        shown = [client for client in clients if client in samples.clients(text, loop)]
        if not shown:
            continue
        case = parse_case(text)
        rows = sorted((_row(samples, case, loop, client) for client in shown), key=lambda row: row[1], reverse=True)
        server = [value for key, values in samples.server_us.items() if key[:2] == (text, loop) for value in values]
        lowest = f"; of the server {min(server):.1f} µs or more, on its own core" if server else ""
        parts.append(f"{case.title}, {loop} (processor time of the client per call{lowest})")
        parts.append(render(("client", "CPU µs", "x aiohttp", "calls/s", "p50 µs", "p99 µs", "peak MB"), rows))
        parts.append("")
    return "\n".join(parts)


def target_table(targets: Sequence[Target]) -> str:
    """Return the table of the targets."""
    rows = []
    for each in targets:
        sign = "≤" if each.at_most else "≥"
        value = "not measured" if each.value is None else f"{each.value:.2f} {each.unit}"
        met = {True: "yes", False: "no", None: "-"}[each.met]
        rows.append((each.name, value, f"{sign} {each.limit:g} {each.unit}", met))
    return render(("target", "measured", "limit", "met"), rows)


def extras_lines(extras: Extras) -> list[str]:
    """Return lines about sessions and memory, in addition to their targets."""
    lines = []
    for name, count, words in (
        ("shared", extras["sessions"], "this manager, one origin"),
        ("own", extras["sessions"], "this manager, an origin each"),
        ("sdk", extras["sdk_sessions"], "mcp, an origin and a client each"),
    ):
        rounds = [each for each in extras.get(f"{name}_rounds", []) if "open_cpu_s" in each]
        if not rounds:
            continue
        one = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        lines.append(
            f"{count:,} sessions, {words}: {one['healthy']:.0f} healthy; opened in {one['open_wall_s']:.2f} s with "
            f"{one['open_cpu_s'] / count * 1e3:.2f} ms of CPU and {one['open_kb'] / count:.1f} kB each "
            f"({one['called_kb'] / count:.1f} once called); closed in {one['close_wall_s']:.2f} s"
        )
    for key, value in extras.items():
        if key.startswith("memory ") and "growth_kb" in value:
            lines.append(f"1 MB replies, {key.removeprefix('memory ')}: the peak grew by {value['growth_kb']} kB")
    return lines


def missing_lines(samples: Samples) -> list[str]:
    """Return lines that say which clients were left out, and why."""
    lines = [f"left out: {client} ({reason})" for client, reason in samples.missing.items()]
    return lines + [
        f"failed: {key.client} in {key.case} on {key.loop} ({reason})" for key, reason in samples.failed.items()
    ]


def document(about: dict[str, Any], samples: Samples, extras: Extras | None, targets: Sequence[Target]) -> Any:
    """Return everything as plain data for a file."""
    return {
        **about,
        **samples.as_json(),
        "sessions_and_memory": extras,
        "targets": [{**each._asdict(), "met": each.met} for each in targets],
    }


def _row(samples: Samples, case: Case, loop: str, client: str) -> tuple[str, float, str, int, int, int, float]:
    summary = samples.summary(str(case), loop, client)
    assert summary is not None
    ratio = samples.ratio(case, loop, client, _REFERENCE)
    times = "-" if ratio is None else f"{ratio:9.2f}"
    return (
        client,
        summary.cpu_us,
        times,
        round(summary.calls_per_s),
        round(summary.p50_us),
        round(summary.p99_us),
        summary.peak_kb / 1024,
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            for line in info:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
