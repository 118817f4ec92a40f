"""The recipe for Django, under gunicorn, uvicorn and its own development server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

import psutil
import pytest
from support.recipes import Program, command_of, environment, folder_of, run, running

pytestmark = pytest.mark.allow_leaks("descriptors", "children", reason="they belong to fixtures of the module")

FOLDER = folder_of("django_service")
README = (FOLDER / "README.md").read_text(encoding="utf-8")
PROGRAM = "mcp_manager.cli.demo_servers.stdio_server"
MANAGE = (sys.executable, "manage.py")


class Answer(NamedTuple):
    status: int
    body: Any


class Service:
    """A service that runs, seen by its clients."""

    def __init__(self, kind: str, program: Program, port: str) -> None:
        self.kind = kind
        self.program = program
        self._port = port
        self._url = f"http://127.0.0.1:{port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", int(self._port), timeout=30)

    def get(self, path: str) -> Answer:
        try:
            with urllib.request.urlopen(self._url + path, timeout=30) as response:
                return Answer(response.status, json.load(response))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.load(error))

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.program.process.pid).children(recursive=True)

    def programs(self) -> list[psutil.Process]:
        return [each for each in self.processes() if PROGRAM in command_of(each)]


SERVERS = {
    "gunicorn": (
        ("gunicorn", "-c", "python:mysite.gunicorn", "--no-control-socket", *"-w 2 -b 127.0.0.1:0 mysite.wsgi".split()),
        r"Listening at: http://127\.0\.0\.1:(\d+)",
    ),
    "uvicorn": (("uvicorn", "--port", "0", "mysite.asgi:application"), r"running on http://127\.0\.0\.1:(\d+)"),
    "runserver": ((*MANAGE, "runserver", "127.0.0.1:0", "--noreload"), r"server at http://127\.0\.0\.1:(\d+)"),
}
GUNICORN = pytest.mark.parametrize("service", ["gunicorn"], indirect=True)
UVICORN = pytest.mark.parametrize("service", ["uvicorn"], indirect=True)


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    command, line = SERVERS[request.param]
    with running(*command, folder=FOLDER, env=environment(DJANGO_SECRET_KEY="of the test")) as program:
        port = program.wait_for(line)[1]
        yield Service(request.param, program, port)


def test_each_worker_has_a_fleet_before_the_first_request(service: Service) -> None:
    main = service.program.process.pid
    count = 2 if service.kind == "gunicorn" else 1
    # uvicorn says where it listens when its application has started; the workers of gunicorn start later.
    while len(service.programs()) < count and service.kind == "gunicorn":
        service.program.wait_for("deployed")
        time.sleep(0.02)
    owners = {each.ppid() for each in service.programs()}
    assert len(owners) == count
    # The master of gunicorn loads the application, but has no fleet.
    assert (main in owners) == (service.kind == "uvicorn")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/add?a=2&b=3", (200, {"sum": 5.0})),
        ("/async/add?a=2&b=3", (200, {"sum": 5.0})),
        ("/wait?seconds=60&deadline=0.1", (504, {"error": "DeadlineExceededError", "delivery": "unknown"})),
        ("/ready", (200, {"is_ready": True, "missing": []})),
    ],
)
def test_an_answer(service: Service, path: str, answer: tuple[int, Any]) -> None:
    assert service.get(path) == answer
    assert f"{path}'\n{json.dumps(answer[1])}" in README


def test_a_view_of_the_fleet_is_an_answer_as_it_is(service: Service) -> None:
    status, body = service.get("/servers")
    assert (status, body["health"]["healthy_servers"]) == (200, 1)
    assert [(each["id"], each["state"]) for each in body["servers"]] == [("calculator", "Healthy")]


@UVICORN
def test_the_event_loop_serves_others_while_a_view_awaits_a_tool(service: Service) -> None:
    with contextlib.closing(service.connect()) as waiting:
        waiting.request("GET", "/wait?seconds=60")
        assert service.get("/async/add?a=2&b=3").status == 200
        assert select.select([waiting.sock], [], [], 0)[0] == []


@GUNICORN
def test_a_killed_worker_of_gunicorn_takes_its_programs_with_it_and_is_replaced(service: Service) -> None:
    program = service.programs()[0]
    os.kill(program.ppid(), signal.SIGKILL)
    psutil.wait_procs([program], 10)
    assert not program.is_running()
    service.program.wait_for("was sent SIGKILL")
    assert service.get("/add?a=2&b=3") == (200, {"sum": 5.0})


def test_sigterm_lets_a_request_end(service: Service) -> None:
    answers: list[Answer] = []
    before = sum(each.num_threads() for each in service.programs())
    waiting = threading.Thread(target=lambda: answers.append(service.get("/wait?seconds=1")))
    waiting.start()
    # The program has a thread for each call of this tool.
    while sum(each.num_threads() for each in service.programs()) <= before:
        waiting.join(0.01)
    service.program.process.send_signal(signal.SIGTERM)
    service.program.wait_for("Handling signal: term|Shutting down")
    waiting.join()
    assert answers == [(200, {"answer": "slept 1 s"})]
    # uvicorn ends as the signal would have ended it.
    assert service.program.process.wait(60) == (0 if service.kind == "gunicorn" else -signal.SIGTERM)
    assert "Traceback" not in service.program.output


@pytest.mark.parametrize("service", ["runserver"], indirect=True)
def test_the_development_server_starts_the_fleet_with_the_first_request(service: Service) -> None:
    assert service.programs() == []
    assert service.get("/add?a=2&b=3").status == 200
    assert len(service.programs()) == 1
    assert service.program.end(signal.SIGINT) == 0


def test_the_command_prints_the_fleet() -> None:
    printed = run(*MANAGE, "mcp_servers", folder=FOLDER, env=environment(LOG_LEVEL="ERROR"))
    assert printed == "calculator: Healthy, 1 of 1 ready, tools: add, echo, sleep\n"
    assert printed in README


def test_there_is_no_secret_without_debugging() -> None:
    with running(*MANAGE, "check", folder=FOLDER, env=environment(DJANGO_DEBUG="0")) as program:
        program.wait_for("Set DJANGO_SECRET_KEY")


def test_the_tests_of_the_project_pass() -> None:
    with running(*MANAGE, "test", folder=FOLDER, env=environment(LOG_LEVEL="ERROR")) as program:
        assert program.process.wait(60) == 0, program.output
        program.wait_for("^OK$")
    assert re.search(r"Ran 9 tests", program.output)
