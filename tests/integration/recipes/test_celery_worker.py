"""The recipe for Celery: a real worker with two children, whose servers fail and whose processes are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.recipes import Program, command_of, environment, folder_of, run, running

from mcp_manager.testing import Faults, FaultyServer, Tool
from mcp_manager.testing.faults import Hold

pytestmark = pytest.mark.allow_leaks("descriptors", "children", reason="they belong to fixtures of the module")

FOLDER = folder_of("celery_worker")
OPTIONS = ("--loglevel", "INFO", "--without-mingle", "--without-gossip")
PROGRAM = "mcp_manager.cli.demo_servers.stdio_server"
FLEET = f"""
[servers.calculator]
url = "%s"
# The attempts that are seen here are those of tasks.
retry = {{ attempts = 1 }}
[servers.gone]
url = "http://127.0.0.1:9/mcp"
[servers.local]
command = "{sys.executable}"
args = ["-P", "-m", "{PROGRAM}"]
"""


def programs_of(process: psutil.Process) -> list[psutil.Process]:
    return [each for each in process.children() if PROGRAM in command_of(each)]


class Jobs:
    """A worker, and a client of it with the same queue."""

    def __init__(self, worker: Program, server: FaultyServer, env: dict[str, str]) -> None:
        from celery import Celery  # noqa: PLC0415 - it may not be installed

        self.worker = worker
        self.server = server
        self.env = env
        queue, control, results = (f"{env['JOBS_FOLDER']}/{name}" for name in ("queue", "control", "results"))
        self._client = Celery(
            "client", broker="filesystem://localhost", backend=f"file://{results}", set_as_current=False
        )
        options = {"data_folder_in": queue, "data_folder_out": queue, "control_folder": control}
        self._client.conf.broker_transport_options = options

    def send(self, name: str, *args: object, **options: object) -> Any:
        """Send a task."""
        return self._client.send_task(f"jobs.tasks.{name}", args, **options)

    def outcome(self, sent: Any) -> Any:
        """Wait for a task's end; return its result, or the arguments of its exception."""
        result = sent.get(timeout=30, interval=0.02, propagate=False)
        return result if not isinstance(result, Exception) else (type(result).__name__, *result.args)

    def held(self, name: str, *args: object) -> tuple[Any, Hold]:
        """Send a task whose call the server holds from now on."""
        hold = Hold()
        self.server.next(hold)
        arrived = len(self.server.requests_of("tools/call"))
        sent = self.send(name, *args)
        asyncio.run(self.server.wait_for("tools/call", arrived + 1))
        return sent, hold

    def child_of(self, sent: Any) -> psutil.Process:
        """Return the child of the pool that works on a task."""
        return psutil.Process(self._client.backend.get_task_meta(sent.id)["result"]["pid"])

    def children(self) -> list[psutil.Process]:
        """Return the children of the pool."""
        return [
            each
            for each in psutil.Process(self.worker.process.pid).children()
            if command_of(each)[-1:] == [OPTIONS[-1]]
        ]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    tools = {"add": Tool(result="5"), "echo": Tool(result="hello"), "sleep": Tool(result="slept")}
    with FaultyServer("stateless", tools) as started:
        yield started


def env_of(server: FaultyServer, folder: Path) -> dict[str, str]:
    fleet = folder / "fleet.toml"
    fleet.write_text(FLEET % server.url, encoding="utf-8")
    # Celery warns of the user root, and of nothing else.
    return environment(
        JOBS_FOLDER=str(folder),
        FLEET_FILE=str(fleet),
        PYTHONWARNINGS="error,ignore:You're running the worker:UserWarning",
    )


@pytest.fixture(scope="module")
def jobs(server: FaultyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    env = env_of(server, tmp_path_factory.mktemp("jobs"))
    with running("celery", "-A", "jobs", "worker", "-c", "2", *OPTIONS, folder=FOLDER, env=env) as worker:
        for number in (1, 2):
            worker.wait_for(rf"ForkPoolWorker-{number}\] server 'local' is Healthy")
        yield Jobs(worker, server, env)


@pytest.fixture(autouse=True)
def no_faults(server: FaultyServer) -> Iterator[None]:
    yield
    server.clear_faults()


def executed(server: FaultyServer, tool: str) -> int:
    return len(server.ledger.of(tool))


def test_the_tasks_that_the_readme_shows(jobs: Jobs) -> None:
    printed = run(sys.executable, "send.py", folder=FOLDER, env=jobs.env)
    assert printed == "add: 5.0\npost: hello\ngone: ConnectError not_sent\n"
    assert f"```text\n{printed}```" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_only_children_have_programs(jobs: Jobs) -> None:
    assert programs_of(psutil.Process(jobs.worker.process.pid)) == []
    assert [len(programs_of(child)) for child in jobs.children()] == [1, 1]


def test_a_call_that_was_refused_is_tried_again_when_the_server_says(jobs: Jobs) -> None:
    before = executed(jobs.server, "echo")
    jobs.server.next(Faults.status(429, retry_after=1))
    assert jobs.outcome(jobs.send("post", "x")) == "hello"
    assert executed(jobs.server, "echo") == before + 1
    jobs.worker.wait_for(r"jobs\.tasks\.post\[.*retry: Retry in (1|0\.\d)\S*: ToolCallFailed")


def test_a_call_that_may_have_been_executed_is_not_repeated(jobs: Jobs) -> None:
    before = executed(jobs.server, "echo")
    jobs.server.next(Faults.reset(after="headers"))
    name, cause, message, delivery = jobs.outcome(jobs.send("post", "x"))
    assert (name, cause, delivery) == ("ToolCallFailed", "ConnectionLostError", "unknown")
    assert "delivery: unknown" in message
    assert executed(jobs.server, "echo") == before + 1


def test_a_call_that_is_safe_to_repeat_is_repeated(jobs: Jobs) -> None:
    before = executed(jobs.server, "add")
    jobs.server.next(Faults.reset(after="headers"))
    assert jobs.outcome(jobs.send("add", 2, 3)) == 5
    assert executed(jobs.server, "add") == before + 2


def test_the_soft_time_limit_ends_a_call(jobs: Jobs) -> None:
    jobs.server.next(Faults.stall(after="request"))
    failed = jobs.outcome(jobs.send("post", "x", soft_time_limit=0.5))
    assert failed == ("ToolCallFailed", "SoftTimeLimitExceeded", "the call was given up", "unknown")
    # It is left if the time was over before the call.
    jobs.server.clear_faults()
    assert jobs.outcome(jobs.send("post", "x")) == "hello"


@pytest.mark.parametrize("task", ["post", "add"])
def test_a_child_that_is_killed_takes_its_programs_with_it(jobs: Jobs, task: str) -> None:
    tool = {"post": "echo", "add": "add"}[task]
    before = executed(jobs.server, tool)
    sent, _ = jobs.held(task, *(("x",) if task == "post" else (2, 3)))
    child = jobs.child_of(sent)
    (program,) = programs_of(child)
    os.kill(child.pid, signal.SIGKILL)
    psutil.wait_procs([program], 10)
    assert not program.is_running()
    if task == "post":
        # It is lost, and not repeated.
        assert jobs.outcome(sent)[0] == "WorkerLostError"
        assert executed(jobs.server, tool) == before
    else:
        # Its message was still in the queue.
        assert jobs.outcome(sent) == 5


def test_a_warm_shutdown_lets_the_task_under_way_end(jobs: Jobs) -> None:
    sent, hold = jobs.held("post", "x")
    jobs.worker.process.send_signal(signal.SIGTERM)
    jobs.worker.wait_for("Warm shutdown")
    hold.release()
    assert jobs.outcome(sent) == "hello"
    assert jobs.worker.process.wait(60) == 0


def test_a_child_that_is_replaced_leaves_no_program(server: FaultyServer, tmp_path: Path) -> None:
    env = env_of(server, tmp_path)
    command = ("celery", "-A", "jobs", "worker", "-c", "1", "--max-tasks-per-child", "1", *OPTIONS)
    with running(*command, folder=FOLDER, env=env) as worker:
        worker.wait_for(r"ForkPoolWorker-1\] server 'local' is Healthy")
        jobs = Jobs(worker, server, env)
        (child,) = jobs.children()
        (program,) = programs_of(child)
        assert jobs.outcome(jobs.send("add", 2, 3)) == 5
        psutil.wait_procs([child, program], 20)
        assert not child.is_running()
        assert not program.is_running()
        worker.wait_for(r"ForkPoolWorker-2\] server 'local' is Healthy")
        # A warm shutdown would take seconds.
        children = jobs.children()
        worker.process.kill()
        for each in children:
            each.kill()
