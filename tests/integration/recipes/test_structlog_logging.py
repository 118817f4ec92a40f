"""The recipe ``structlog_logging``: one form for the lines of the service, of the package, and of the programs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.collector import Collector
from support.orphans import no_orphans
from support.recipes import environment, folder_of, running

SECRET = "canary-7f3a91"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
ADA = {"X-User": "ada", "X-Request-Id": "ada-1", "traceparent": f"00-{TRACE}-{PARENT}-01"}
FLOOD = 5000


class Story(NamedTuple):
    """What one run of the service answered, logged and exported."""

    answers: dict[str, tuple[int, Any, dict[str, str]]]
    killed: int
    lines: list[dict[str, Any]]
    output: str
    status: int
    spans: list[Any]

    def only(self, **fields: object) -> dict[str, Any]:
        """Return the one line that has all these fields."""
        (found,) = [line for line in self.lines if fields.items() <= line.items()]
        return found


def ask(url: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
    data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=30) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    folder = folder_of("structlog_logging")
    answers = {}
    with Collector() as collector:
        env = environment(
            PORT="0",
            LOG_LEVEL="INFO",
            LOG_CHILD_OUTPUT="1",
            PRINTER_TOKEN=SECRET,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        )
        with running(sys.executable, "-W", "error", "-m", "calculator", folder=folder, env=env) as program:
            port = program.wait_for(r'"port": (\d+)')[1]
            base = f"http://127.0.0.1:{port}"
            tools = f"{base}/servers/calculator/tools"
            answers["sum"] = ask(f"{tools}/add", {"a": 2, "b": 3})
            answers["wrong"] = ask(f"{tools}/add", {"a": "x"}, {"X-Request-Id": 'no"id\\n'})
            answers["late"] = ask(f"{tools}/sleep?timeout=0.2", {"seconds": 30}, ADA)
            answers["unknown"] = ask(f"{base}/servers/other/tools/add", {})
            answers["no object"] = ask(f"{tools}/add", [2, 3])
            answers["too deep"] = ask(f"{tools}/%1B[31m", "[" * 100_000)
            answers["no number"] = ask(f"{tools}/add?timeout=soon", {"a": 2, "b": 3})
            answers["servers"] = ask(f"{base}/servers")
            (killed,) = answers["servers"][1][0]["pids"]
            os.kill(killed, signal.SIGKILL)
            program.wait_for("is Healthy again")
            answers["again"] = ask(f"{tools}/add", {"a": 2, "b": 3})
            answers["health"] = ask(f"{base}/health")
            status = program.end(signal.SIGTERM)
        yield Story(
            answers,
            killed,
            [json.loads(line) for line in program.lines],
            program.output,
            status,
            [span for span, _ in collector.spans],
        )


def test_the_service_answers_by_delivery_and_ends_at_sigterm(story: Story) -> None:
    assert {name: status for name, (status, _, _) in story.answers.items()} == {
        "sum": 200,
        "wrong": 422,
        "late": 504,
        "unknown": 404,
        "no object": 400,
        "too deep": 400,
        "no number": 400,
        "servers": 200,
        "again": 200,
        "health": 200,
    }
    assert json.loads(story.answers["late"][1]) == {"error": "the server did not answer", "delivery": "unknown"}
    assert story.answers["late"][2]["X-Request-Id"] == "ada-1"
    assert story.status == 0
    assert [line["event"] for line in story.lines[-2:]] == ["stopping", "stopped"]


def test_all_lines_have_one_form(story: Story) -> None:
    assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in story.lines)
    assert {line["logger"].partition(".")[0] for line in story.lines} == {"calculator", "mcp_manager"}


def test_a_failed_call_is_logged_with_its_delivery_its_request_and_its_trace(story: Story) -> None:
    own = story.only(event="call failed")
    package = story.only(kind="flight_records")
    assert own["level"] == package["level"] == "warning"
    assert own["server_id"] == package["server_id"] == "calculator"
    for line in (own, package, story.only(event="request", status=504)):
        assert (line["request_id"], line["user"], line["trace_id"]) == ("ada-1", "ada", TRACE)
    assert (own["error"], own["delivery"], own["attempts"]) == ("DeadlineExceededError", "unknown", 1)
    assert own["reason"] == "no reply within the deadline of 0.2 s (timeout=)"
    # The message of the package's line is kept beside the name of what happened.
    assert package["event"].startswith("server 'calculator': a call may or may not have been executed")


def test_the_spans_are_those_of_the_log(story: Story) -> None:
    spans = {span.name: span for span in story.spans if span.trace_id.hex() == TRACE}
    request, call = spans["POST /servers/{server}/tools/{tool}"], spans["tools/call sleep"]
    assert (request.parent_span_id.hex(), call.parent_span_id) == (PARENT, request.span_id)
    assert story.only(event="call failed")["span_id"] == request.span_id.hex()
    assert story.only(kind="flight_records")["span_id"] == call.span_id.hex()


def test_a_request_without_a_good_id_gets_one(story: Story) -> None:
    line = story.only(event="call refused")
    assert (line["error"], line["reason"]) == ("ToolError", "add needs a and b, two numbers")
    assert len(line["request_id"]) == 32
    assert "no\\" not in story.output
    # Control characters of a path stay encoded.
    assert story.only(event="request", path="/servers/calculator/tools/%1B[31m")["status"] == 400


def test_a_killed_program_is_logged_and_so_is_its_return(story: Story) -> None:
    exited = story.only(kind="child_exited")
    assert (exited["server_id"], exited["pid"], exited["signal"]) == ("calculator", story.killed, "SIGKILL")
    assert (exited["level"], exited["was_ready"]) == ("warning", True)
    # It belongs to no request.
    assert not exited.keys() & {"request_id", "user", "trace_id"}
    down = story.only(kind="server_state", state="Unhealthy")
    assert (down["level"], down["reason"]) == ("warning", "restarting")
    (back,) = [line for line in story.lines if "outage_s" in line and line["kind"] == "server_state"]
    assert (back["server_id"], back["state"], back["level"]) == ("calculator", "Healthy", "info")
    started = story.only(kind="child_started", level="info")
    assert started["pid"] != story.killed


def test_what_a_program_writes_is_in_the_log_without_its_secret(story: Story) -> None:
    line = story.only(kind="child_output")
    assert (line["logger"], line["level"]) == ("mcp_manager.child.talkative", "debug")
    assert line["event"] == "listening; the printer's token is ***"
    assert SECRET not in story.output


def test_a_program_that_floods_its_stderr_does_not_flood_the_log(tmp_path: Path) -> None:
    folder = folder_of("structlog_logging")
    code = (
        f"import sys, runpy; sys.stderr.write('noise\\n' * {FLOOD}); runpy.run_module(sys.argv[1], run_name='__main__')"
    )
    server = {
        "command": sys.executable,
        "args": ["-P", "-W", "ignore", "-c", code, "mcp_manager.cli.demo_servers.stdio_server"],
    }
    fleet = tmp_path / "fleet.json"
    fleet.write_text(json.dumps({"servers": {"calculator": server}}))
    env = environment(PORT="0", LOG_CHILD_OUTPUT="1", FLEET_FILE=str(fleet))
    with running(sys.executable, "-m", "calculator", folder=folder, env=env) as program:
        program.wait_for("serving")
        assert program.end(signal.SIGTERM) == 0
    assert 0 < program.output.count('"noise"') < FLOOD / 2


def test_a_terminal_gets_colours_and_a_thread_its_own_context() -> None:
    folder = folder_of("structlog_logging")
    ours, theirs = os.openpty()
    with no_orphans(), os.fdopen(ours, "rb", 0) as screen:
        command = [sys.executable, "-W", "error", "-m", "calculator.batch"]
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        # Linux reports the end of a terminal as an error.
        with contextlib.suppress(OSError):
            while part := screen.read(65536):
                shown += part
        assert process.wait(60) == 0
    coloured = shown.decode().splitlines()
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in coloured]
    assert coloured != plain
    jobs = {job: [line for line in plain if f"job={job}" in line] for job in ("quick", "slow")}
    (done,) = jobs["quick"]
    assert "job done" in done
    # The manager works on a thread of its own, and yet knows the context of the calling one.
    package, own = jobs["slow"]
    assert "kind=flight_records" in package
    assert "delivery=unknown" in own
