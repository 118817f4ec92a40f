"""Measures what a gateway costs per call, interleaved with its peers: ``python -m benchmarks.gateways``.

One backend and one driver for all. Of the peers, mcp-proxy of PyPI is not here: it serves only programs, over stdio. A
round of each has the same number of calls; the rounds of all alternate, and ratios are made within one. CPU is that of
the gateway's process, from ``/proc``, all threads, with the kernel's work. A peer whose round takes too long is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import statistics
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.calls.children import JsonChild, LoopbackServer, cores
from benchmarks.gateways.driver import Driver
from benchmarks.gateways.secured import SECURED
from benchmarks.gateways.streams import IdleStreams, most_streams
from benchmarks.gateways.subjects import COMPARED, missing

_CALL: Final = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}%b}}'
_META: Final = (
    b',"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},'
    b'"io.modelcontextprotocol/clientCapabilities":{}}'
)
_STATELESS_FIELDS: Final = b"MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n"
_INITIALIZE: Final = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        },
    }
).encode()
_OWN: Final = ("execute_raw", "gateway")
_LONGEST_ROUND_S: Final = 20.0
_CASES: Final = ("many", "one", "large", "secured", "sessions", "streams", "lists")
# The default of a gateway
_KEEPALIVE_S: Final = 15.0
_HEADERS: Final = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def memory_kb(pid: int, name: str) -> int:
    """Return a figure of ``/proc/…/status`` in KiB: ``VmRSS`` or ``VmHWM``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise ValueError(name)


def session_fields(url: str, more: dict[str, str] | None = None) -> bytes:
    """Make a handshake, and return the header fields of later requests, among them ``more``."""
    more = more or {}
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 80, timeout=60)
    connection.request("POST", parts.path, _INITIALIZE, _HEADERS | more)
    response = connection.getresponse()
    session, text = response.getheader("Mcp-Session-Id"), response.read()
    if response.status != 200:
        raise RuntimeError(f"initialize was answered by {response.status}: {text[:200]!r}")
    fields = {"MCP-Protocol-Version": "2025-11-25", **more}
    if session:
        fields["Mcp-Session-Id"] = session
    note = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    connection.request("POST", parts.path, note, _HEADERS | fields)
    connection.getresponse().read()
    connection.close()
    return b"".join(f"{name}: {value}\r\n".encode() for name, value in fields.items())


def many_session_fields(url: str, count: int) -> list[bytes]:
    """Make handshakes; return the header fields of the sessions."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 80, timeout=60)
    made = []
    for _ in range(count):
        connection.request("POST", parts.path, _INITIALIZE, _HEADERS)
        response = connection.getresponse()
        response.read()
        made.append(f"MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: {response.getheader('Mcp-Session-Id')}\r\n")
    connection.close()
    return [fields.encode() for fields in made]


class Subject:
    """One gateway, with the samples of its rounds."""

    def __init__(self, name: str, label: str, child: JsonChild) -> None:
        self.name = name
        self.label = label
        self.child = child
        self.driver: Driver | None = None
        self.samples: list[tuple[float, float, float]] = []

    async def open(self, *, stateless: bool) -> None:
        """Wait for the process, and begin a session."""
        told = await self.child.ask(None, timeout=60)
        url = told["url"]
        if not url:
            return
        more = {"Authorization": told["authorization"]} if told.get("authorization") else {}
        if stateless:
            lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in more.items())
            self.driver = Driver(url, _CALL % _META, _STATELESS_FIELDS + lines)
        else:
            fields = await asyncio.to_thread(session_fields, url, more)
            self.driver = Driver(url, _CALL % b"", fields)

    async def round(self, calls: int, in_flight: int, *, kept: bool = True) -> None:
        """Make some calls."""
        if self.driver is None:
            answer = await self.child.ask({"calls": calls, "in_flight": in_flight})
            latencies = sorted(answer["latencies"])
            sample = (
                answer["cpu"] / len(latencies),
                latencies[len(latencies) // 2],
                latencies[int(len(latencies) * 0.99)],
            )
        else:
            before = cpu_s(self.child.pid)
            made = await self.driver.run(calls, in_flight)
            sample = ((cpu_s(self.child.pid) - before) / calls, made.percentile(0.5), made.percentile(0.99))
        if kept:
            self.samples.append(sample)

    async def aclose(self) -> None:
        """Close the connections, and end the process."""
        if self.driver is not None:
            self.driver.close()
        await self.child.aclose()

    def median(self, index: int) -> float:
        """Return the median of CPU (0), p50 (1) or p99 (2), in seconds."""
        return statistics.median(sample[index] for sample in self.samples)


async def compare(
    args: argparse.Namespace, size: int, in_flight: int, calls: int, names: tuple[str, ...] = COMPARED
) -> None:
    """Measure all subjects at one size, and print a table."""
    first, second = cores()
    async with LoopbackServer(first) as backend:
        url = backend.url(f"/json/{size}")
        subjects: list[Subject] = []
        try:
            for name in names:
                reason = missing(name)
                if (args.only and name not in args.only) or reason:
                    if reason:
                        print(f"  {name}: left out, {reason}")
                    continue
                for stateless in (False, True) if name == "gateway" else (False,):
                    label = f"{name}, {'2026-07-28' if stateless else '2025-11-25'}" if name == "gateway" else name
                    child = JsonChild(
                        "benchmarks.gateways.subjects", name, url, args.loop, "-" if second is None else str(second)
                    )
                    subject = Subject(name, label, child)
                    subjects.append(subject)
                    await subject.open(stateless=stateless)
            if not subjects:
                return
            base = {subject.label: memory_kb(subject.child.pid, "VmHWM") for subject in subjects}
            for number in range(args.rounds + 1):
                for subject in list(subjects):
                    few = max(in_flight, calls // 20) if "fastmcp" in subject.name else calls
                    try:
                        async with asyncio.timeout(None if subject.name in _OWN else _LONGEST_ROUND_S):
                            # The first round only warms up.
                            await subject.round(few if number else max(in_flight, few // 2), in_flight, kept=number > 0)
                    except (ConnectionError, RuntimeError, TimeoutError) as error:
                        if subject.name in _OWN:
                            raise
                        print(f"  {subject.label}: left out, {str(error) or 'a round took too long'}")
                        subjects.remove(subject)
                        await subject.aclose()
            memory = {subject.label: memory_kb(subject.child.pid, "VmHWM") for subject in subjects}
            print(f"\n{size:,} B, {in_flight} in flight, {args.loop}")
            print(f"{'':32}{'CPU µs':>9}{'ratio':>8}{'p50 µs':>9}{'p99 µs':>9}{'peak +MB':>10}")
            direct = subjects[0]
            for subject in subjects:
                ratios = [mine[0] / theirs[0] for mine, theirs in zip(subject.samples, direct.samples, strict=True)]
                grown = (memory[subject.label] - base[subject.label]) / 1024
                print(
                    f"{subject.label:32}{subject.median(0) * 1e6:9.1f}{statistics.median(ratios):8.2f}"
                    f"{subject.median(1) * 1e6:9.0f}{subject.median(2) * 1e6:9.0f}{grown:10.1f}"
                )
        finally:
            for subject in subjects:
                await subject.aclose()


def list_request(cursor: str | None) -> bytes:
    """Return a ``tools/list`` request for one page."""
    params = {} if cursor is None else {"cursor": cursor}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}).encode()


async def sessions(args: argparse.Namespace, count: int) -> None:
    """Measure what idle sessions of clients keep in memory."""
    first, second = cores()
    async with LoopbackServer(first) as backend:
        core = "-" if second is None else str(second)
        async with JsonChild(
            "benchmarks.gateways.subjects", "gateway", backend.url("/json/100"), args.loop, core
        ) as child:
            url = (await child.ask(None, timeout=60))["url"]
            driver = Driver(url, _INITIALIZE)
            await driver.run(1_000, 16)
            before = memory_kb(child.pid, "VmRSS")
            await driver.run(count, 16)
            grown = memory_kb(child.pid, "VmRSS") - before
            print(f"\n{count:,} idle sessions: {grown * 1024 / count:.0f} B each")
            driver.close()


async def streams(args: argparse.Namespace, wanted: int) -> None:
    """Measure what idle event streams of clients keep in memory, and what their keep-alives cost."""
    first, second = cores()
    count = most_streams(wanted)
    async with LoopbackServer(first) as backend:
        core = "-" if second is None else str(second)
        for label in ("standing GET streams, 2025-11-25", "subscriptions/listen streams, 2026-07-28"):
            async with JsonChild(
                "benchmarks.gateways.subjects", "gateway", backend.url("/json/100"), args.loop, core
            ) as child:
                url = (await child.ask(None, timeout=60))["url"]
                idle = IdleStreams(url)
                sessions = []
                if label.startswith("standing"):
                    sessions = await asyncio.to_thread(many_session_fields, url, count + 100)
                before = 0
                for total in (100, min(1_100, count), count + 100):
                    if sessions:
                        await idle.standing(sessions[len(idle) : total])
                    else:
                        await idle.listening(total - len(idle))
                    memory = memory_kb(child.pid, "VmRSS")
                    if before:
                        print(f"{total - 100:,} {label}: {(memory - before) * 1024 / (total - 100):.0f} B each")
                    else:
                        # The first ones are there already, with all that is made once.
                        before = memory
                spent = cpu_s(child.pid)
                await asyncio.sleep(2 * _KEEPALIVE_S)
                each = (cpu_s(child.pid) - spent) / 2 / len(idle)
                print(f"{len(idle):,} {label}: {each * 1e6:.1f} µs CPU for a keep-alive of each")
                idle.close()


async def lists(args: argparse.Namespace, tools: int) -> None:
    """Measure ``tools/list`` of a large merged list: the first page, which was made before."""
    _, second = cores()
    core = "-" if second is None else str(second)
    async with JsonChild("benchmarks.gateways.subjects", "large gateway", str(tools), args.loop, core) as child:
        url = (await child.ask(None, timeout=120))["url"]
        fields = await asyncio.to_thread(session_fields, url)
        driver = Driver(url, list_request(None), fields)
        await driver.run(20, 1)
        before = cpu_s(child.pid)
        made = await driver.run(200, 1)
        each = (cpu_s(child.pid) - before) / 200
        print(f"tools/list of {tools:,} tools: {each * 1e6:.0f} µs CPU, p50 {made.percentile(0.5) * 1e6:.0f} µs a page")
        driver.close()


async def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateways", description=__doc__)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=2_000, help="per round, at 100 B")
    parser.add_argument("--only", nargs="*", help="names of subjects")
    parser.add_argument("--quick", action="store_true", help="only 100 B, 16 in flight")
    parser.add_argument("--cases", nargs="*", choices=_CASES, default=_CASES)
    args = parser.parse_args()
    cases = ["many"] if args.quick else args.cases
    if "many" in cases:
        await compare(args, 100, 16, args.calls)
    if "one" in cases:
        await compare(args, 100, 1, args.calls // 2)
    if "large" in cases:
        await compare(args, 1_000_000, 1, max(20, args.calls // 50))
    if "secured" in cases:
        await compare(args, 100, 16, args.calls, tuple(f"gateway: {each}" for each in SECURED))
    if "sessions" in cases:
        await sessions(args, 10_000)
    if "streams" in cases:
        await streams(args, 10_000)
    if "lists" in cases:
        await lists(args, 10_000)


if __name__ == "__main__":
    began = time.perf_counter()
    asyncio.run(main())
    print(f"\n{time.perf_counter() - began:.0f} s")
