"""The recipe of several workers: gunicorn with threads and with asyncio, whose workers are killed and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.recipes import Program, environment, folder_of, running

from mcp_manager.testing import FaultyServer, Hold, Tool

RECIPE = "gunicorn_workers"
THREADS = ("wsgi:app",)
COROUTINES = ("-c", "async.conf.py", "asgi:app")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
WAIT_S = 30.0
# Workers keep their connections to the server while a test goes on; they end with gunicorn.
pytestmark = pytest.mark.allow_leaks("descriptors", reason="the server closes its side later than gunicorn ends")


class Service(NamedTuple):
    """Gunicorn, as it runs."""

    program: Program
    url: str
    directory: Path

    def get(self, path: str, **headers: str) -> tuple[str, str]:
        """Return a page and its content type."""
        with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=WAIT_S) as page:
            return page.read().decode(), page.headers["Content-Type"]

    def add(self) -> dict[str, Any]:
        """Call the tool."""
        request = urllib.request.Request(f"{self.url}/sums", b'{"a": 40, "b": 2}', {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            added: dict[str, Any] = json.load(answer)
        return added

    def workers(self) -> dict[str, int]:
        """Return the process of each worker that is announced, by its number."""
        found: dict[str, int] = {}
        for each in sorted(self.directory.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):
                (group,) = json.loads(each.read_text())
                found[group["labels"]["worker"]] = int(group["labels"]["__meta_pid"])
        return found

    def samples(self, name: str) -> dict[str, float]:
        """Return a metric of the calculator in each worker that has it."""
        return {
            sample.labels["worker"]: sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[0])
            for sample in family.samples
            if sample.name == name and sample.labels.get("server_id", "calculator") == "calculator"
        }


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what only shows from outside."""
    until = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


@contextlib.contextmanager
def started(*command: str, directory: Path, **variables: str) -> Iterator[Service]:
    """Run gunicorn as the README says, on a free port; wait until both workers serve."""
    # As a service that was killed leaves it.
    left = directory / "metrics" / "worker-7.json"
    left.parent.mkdir()
    left.write_text('[{"targets": ["127.0.0.1:9"], "labels": {"worker": "7", "__meta_pid": "0"}}]')
    # A call that a test holds outlives all that the test waits for.
    own = {"METRICS_DIRECTORY": str(directory / "metrics"), "CALL_TIMEOUT_S": "60", "PYTHONWARNINGS": "error"}
    env = environment(**own, **variables)
    with running("gunicorn", "--bind", "127.0.0.1:0", *command, folder=folder_of(RECIPE), env=env) as program:
        url = program.wait_for(r"Listening at: (http://127\.0\.0\.1:\d+)")[1]
        service = Service(program, url, directory / "metrics")
        wait_until(lambda: service.workers().keys() == {"0", "1"})
        yield service


@pytest.fixture
def calculator() -> Iterator[FaultyServer]:
    with FaultyServer("stateless", {"add": Tool(result="42.0")}) as server:
        yield server


@pytest.fixture
def fleet(calculator: FaultyServer, tmp_path: Path) -> str:
    file = tmp_path / "fleet.toml"
    program = '["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"]'
    file.write_text(f"""
[servers.calculator]
url = "{calculator.url}"

[servers.program]
command = "python"
args = {program}
""")
    return str(file)


@contextlib.contextmanager
def call_under_way(service: Service, calculator: FaultyServer) -> Iterator[tuple[Future[dict[str, Any]], Hold]]:
    """Make a call that the server holds until it is released."""
    held = Hold()
    arrived = len(calculator.requests_of("tools/call"))
    calculator.next(held)
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(service.add)
        try:
            asyncio.run(calculator.wait_for("tools/call", arrived + 1))
            yield answer, held
        finally:
            held.release()


def family_of(pid: int) -> list[psutil.Process]:
    """Return a process and all that it has started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def test_workers_of_threads_come_and_go(calculator: FaultyServer, fleet: str, tmp_path: Path) -> None:
    with started(*THREADS, directory=tmp_path, FLEET_FILE=fleet) as service:
        adds_up_the_metrics_of_workers(service)
        replaces_a_worker_that_is_killed(service, calculator)
        ends_when_its_calls_are_answered(service, calculator)


def test_workers_of_coroutines_come_and_go(calculator: FaultyServer, fleet: str, tmp_path: Path) -> None:
    with started(*COROUTINES, directory=tmp_path, FLEET_FILE=fleet) as service:
        adds_up_the_metrics_of_workers(service)
        replaces_a_worker_that_is_killed(service, calculator)
        reloads_without_losing_a_call(service, calculator)
        ends_when_its_calls_are_answered(service, calculator)


def test_a_worker_that_has_had_enough_requests_is_replaced(
    calculator: FaultyServer, fleet: str, tmp_path: Path
) -> None:
    limits = ("--max-requests", "3", "--max-requests-jitter", "0")
    with started(*limits, *THREADS, directory=tmp_path, FLEET_FILE=fleet) as service:
        before = service.workers()
        # One of two workers has had three of five.
        assert {service.add()["sum"] for _ in range(5)} == {42.0}
        wait_until(lambda: service.workers().keys() == before.keys() and service.workers() != before)
        assert service.add()["sum"] == 42.0
        assert service.program.end(signal.SIGTERM) == 0


def adds_up_the_metrics_of_workers(service: Service) -> None:
    """Compare the page of all workers with the calls that were made."""
    # Nothing was started before the forks.
    assert psutil.Process(service.program.process.pid).num_threads() == 1
    assert {service.add()["sum"] for _ in range(6)} == {42.0}
    assert sum(service.samples("mcp_requests_total").values()) == 6
    assert service.samples("mcp_worker_up") == service.samples("mcp_build_info") == {"0": 1, "1": 1}
    page, content_type = service.get("/metrics", Accept=OPENMETRICS)
    assert page.endswith("# EOF\n")
    assert content_type.startswith("application/openmetrics-text")


def idle_worker(service: Service) -> str:
    """Return the number of the worker that has no call under way."""
    active = service.samples("mcp_active_connections")
    (idle,) = (worker for worker in service.workers() if not active.get(worker))
    return idle


def replaces_a_worker_that_is_killed(service: Service, calculator: FaultyServer) -> None:
    """Kill a worker while the other one has a call under way."""
    before = service.workers()
    with call_under_way(service, calculator) as (answer, held):
        killed = idle_worker(service)
        family = family_of(before[killed])
        assert len(family) >= 2
        os.kill(before[killed], signal.SIGKILL)
        assert not psutil.wait_procs(family, WAIT_S)[1]
        wait_until(lambda: service.workers().get(killed, before[killed]) != before[killed])
        held.release()
        assert answer.result() == {"sum": 42.0, "worker": "1" if killed == "0" else "0"}
    assert service.samples("mcp_worker_up") == {"0": 1, "1": 1}


def reloads_without_losing_a_call(service: Service, calculator: FaultyServer) -> None:
    """Send SIGHUP while a call is under way: the old worker goes on until it is answered."""
    old = [psutil.Process(pid) for pid in service.workers().values()]
    with call_under_way(service, calculator) as (answer, held):
        service.program.process.send_signal(signal.SIGHUP)
        wait_until(lambda: {"2", "3"} <= service.workers().keys())
        assert not answer.done()
        held.release()
        assert answer.result()["worker"] in ("0", "1")
    assert not psutil.wait_procs(old, WAIT_S)[1]
    wait_until(lambda: service.workers().keys() == {"2", "3"})


def ends_when_its_calls_are_answered(service: Service, calculator: FaultyServer) -> None:
    """Send SIGTERM while a call is under way, and kill the other worker, which hangs; nothing is left."""
    with call_under_way(service, calculator) as (answer, held):
        hanging = service.workers()[idle_worker(service)]
        family = family_of(service.program.process.pid)
        os.kill(hanging, signal.SIGSTOP)
        service.program.process.send_signal(signal.SIGTERM)
        service.program.wait_for("Handling signal: term")
        os.kill(hanging, signal.SIGKILL)
        # When the master has removed its announcement, the signal has reached the worker of the call as well.
        wait_until(lambda: len(service.workers()) == 1)
        assert not answer.done()
        held.release()
        assert answer.result()["sum"] == 42.0
    assert service.program.process.wait(WAIT_S) == 0
    assert not psutil.wait_procs(family, WAIT_S)[1]
    assert not service.directory.exists()
    assert "Traceback" not in service.program.output
