"""The soak test: a fleet under calls, faults, kills, hangs, redeployments, floods and forks.

    python benchmarks/soak --minutes 30                # exit status 1 unless everything holds
    python benchmarks/soak --minutes 3 --seed 7 --json soak.json

No call may be lost, executed twice or late, and nothing may grow. The first third of the time is warm-up, unless
``--warm-up`` gives it in minutes: the resident set includes pages that hold little, and their number grows for a long
time. Growth is in percent per hour; a short run cannot tell it from noise, as the width of its interval shows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import uvloop
from accounts import Accounts
from samples import FIGURES, Samples, growth
from trouble import HttpProcess, Trouble

from mcp_manager import McpManager, PyMcpManager
from mcp_manager.errors import CallError, DeadlineExceededError, McpManagerError, RpcError

HERE: Final = Path(__file__).parent
TIMEOUT_S: Final = 5.0
OVERDUE_S: Final = 2.0
LIMIT_PERCENT: Final = 0.5
_LOOK_S: Final = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fleet(processes: list[HttpProcess], ledger: Path) -> dict[str, dict[str, Any]]:
    """Return the servers: eight faulty ones, four steady ones, one that floods, and four programs."""
    names = [f"faulty-{n}" for n in range(8)] + [f"steady-{n}" for n in range(4)] + ["flood-0"]
    health = {"interval_s": 2.0, "timeout_s": 1.0}
    specs: dict[str, dict[str, Any]] = {
        name: {"url": f"{processes[at % len(processes)].url}/{name}/mcp", "health": health}
        for at, name in enumerate(names)
    }
    command = [sys.executable, str(HERE / "server.py"), "--stdio", "--ledger", str(ledger)]
    for at in range(4):
        specs[f"program-{at}"] = {"command": command[0], "args": command[1:], "health": health}
    return specs


class Callers:
    """Call tools of random servers; some calls are cancelled by their caller."""

    def __init__(self, manager: McpManager, names: list[str], accounts: Accounts, chance: random.Random) -> None:
        self._manager = manager
        self._names = names
        self._accounts = accounts
        self._chance = chance
        self._next = 0
        self.is_over = False

    async def call(self) -> None:
        while not self.is_over:
            self._next += 1
            call = f"a{self._next}"
            server = self._chance.choice(self._names)
            began = time.monotonic()
            if self._chance.random() < 0.02:
                await self._cancelled(server, call)
            else:
                await self._ended(server, call)
                if time.monotonic() - began > TIMEOUT_S + OVERDUE_S:
                    self._accounts.overdue += 1
            await asyncio.sleep(self._chance.uniform(0, 0.06))

    async def _ended(self, server: str, call: str) -> None:
        arguments = {"call": call, "large": self._chance.random() < 0.02}
        try:
            if self._chance.random() < 0.5:
                await self._manager.call_tool(server, "note", arguments, timeout=TIMEOUT_S)
            else:
                params = {"name": "note", "arguments": arguments}
                request = json.dumps({"method": "tools/call", "params": params}).encode()
                reply = await self._manager.execute_raw(server, request, timeout=TIMEOUT_S)
                if call.encode() not in reply:
                    raise RuntimeError(f"call {call} got the reply to another call: {reply[:200]!r}")
        except CallError as error:
            self._accounts.note(call, error.delivery, error)
        except RpcError as error:
            self._accounts.note(call, "answered", error)
        except McpManagerError as error:
            self._accounts.note(call, "refused", error)
        else:
            self._accounts.note(call, "ok")

    async def _cancelled(self, server: str, call: str) -> None:
        task = asyncio.ensure_future(self._manager.call_tool(server, "note", {"call": call}, timeout=TIMEOUT_S))
        await asyncio.sleep(self._chance.uniform(0, 0.01))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, McpManagerError):
            await task
        self._accounts.note(call, "cancelled")


def call_from_thread(bound: PyMcpManager, accounts: Accounts, over: threading.Event) -> None:
    """Call one server through the synchronous API until told to end."""
    number = 0
    while not over.wait(0.05):
        number += 1
        call = f"t{threading.get_ident()}-{number}"
        params = {"name": "note", "arguments": {"call": call}}
        try:
            bound.execute("steady-bound", json.dumps({"method": "tools/call", "params": params}), timeout=TIMEOUT_S)
        except DeadlineExceededError as error:
            end, failure = "late", error
        except CallError as error:
            end, failure = str(error.delivery), error
        else:
            end, failure = "ok", None
        accounts.note(call, end, failure)


async def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    ledger = folder / "ledger"
    ledger.touch()
    accounts = Accounts(folder / "accounts")
    processes = [HttpProcess(ledger, free_port(), options.seed + n) for n in range(3)]
    keeper = HttpProcess(ledger, free_port(), options.seed)
    for process in [*processes, keeper]:
        await process.wait_up()
    specs = fleet(processes, ledger)
    chance = random.Random(options.seed)
    samples = Samples(round(options.minutes * 60 / _LOOK_S) + 2)
    began = time.monotonic()
    over = threading.Event()
    bound = PyMcpManager()
    bound.start()
    bound.deploy_server("steady-bound", {"url": f"{keeper.url}/steady-bound/mcp"})
    async with McpManager() as manager:
        await asyncio.gather(*(manager.deploy(name, spec) for name, spec in specs.items()))
        trouble = Trouble(manager, bound, specs, processes, chance)
        callers = Callers(manager, list(specs), accounts, chance)
        calling = [asyncio.create_task(callers.call()) for _ in range(options.callers)]
        threads = [threading.Thread(target=call_from_thread, args=(bound, accounts, over)) for _ in range(2)]
        for thread in threads:
            thread.start()
        troubling = asyncio.create_task(trouble.go_on())
        while (left := options.minutes * 60 - (time.monotonic() - began)) > 0:
            await asyncio.wait([*calling, troubling], timeout=min(_LOOK_S, left), return_when=asyncio.FIRST_COMPLETED)
            for task in [*calling, troubling]:
                if task.done():
                    task.result()
            print(samples.take(time.monotonic() - began), dict(accounts.ends), file=sys.stderr, flush=True)
        troubling.cancel()
        callers.is_over = True
        over.set()
        await asyncio.wait([troubling])
        await asyncio.gather(*calling)
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    await asyncio.to_thread(bound.stop)
    for process in [*processes, keeper]:
        process.kill()
    rows = samples.rows()
    warm_up_s = (options.minutes / 3 if options.warm_up is None else options.warm_up) * 60
    kept = [row for row in rows if row["at_s"] > warm_up_s]
    return {
        "minutes": options.minutes,
        "seed": options.seed,
        "calls": sum(accounts.ends.values()),
        "ends": dict(accounts.ends),
        "errors": dict(accounts.errors),
        "trouble": dict(trouble.counts),
        "overdue": accounts.overdue,
        "wrong": (accounts.verdict(ledger) + trouble.faults)[:20],
        "growth_percent_an_hour": {figure: growth(kept, figure) for figure in FIGURES},
        "last": rows[-1],
        "samples": rows,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--warm-up", type=float, help="minutes of warm-up (default: a third of all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        report = uvloop.run(soak(options, Path(folder)))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    for name in ("calls", "ends", "errors", "trouble", "overdue", "wrong", "last"):
        print(f"{name:9} {report[name]}")
    grows = []
    for figure, (percent, width) in report["growth_percent_an_hour"].items():
        print(f"{figure:12} {percent:+.2f} ± {width:.2f} % an hour")
        if percent - width > LIMIT_PERCENT:
            grows.append(figure)
    if report["wrong"] or report["overdue"] or grows:
        print("failed:", *(["growth of " + ", ".join(grows)] if grows else []), report["overdue"], report["wrong"])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
