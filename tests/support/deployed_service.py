"""The service of ``examples/container``, which the recipes for deployments share, seen from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from support.recipes import EXAMPLES, Program, environment, running

__all__ = ["Answer", "DeployedService", "deployed_service", "service_program"]

_WAIT_S: Final = 30.0


class Answer(NamedTuple):
    """An answer over HTTP."""

    status: int
    headers: Message
    body: Any


class DeployedService:
    """A service that runs, and its address."""

    def __init__(self, program: Program, address: str) -> None:
        self.program = program
        self.address = address

    def ask(self, path: str, arguments: object = None, *, content_type: str = "application/json") -> Answer:
        """GET a path, or POST ``arguments`` (bytes as they are) to it, without asking for the end of the connection."""
        data = arguments if arguments is None or isinstance(arguments, bytes) else json.dumps(arguments).encode()
        connection = http.client.HTTPConnection(self.address, timeout=_WAIT_S)
        with contextlib.closing(connection):
            connection.request("GET" if data is None else "POST", path, data, {"Content-Type": content_type})
            response = connection.getresponse()
            return Answer(response.status, response.headers, _decoded(response.read()))

    def call(self, server: str, tool: str, **arguments: object) -> Answer:
        """Call a tool."""
        return self.ask(f"/servers/{server}/tools/{tool}", arguments)

    def text(self, server: str, tool: str, **arguments: object) -> str:
        """Call a tool that must answer, and return its text."""
        answer = self.call(server, tool, **arguments)
        assert answer.status == 200, answer
        text: str = answer.body["content"][0]["text"]
        return text

    def readiness(self) -> int:
        """Return the status of ``/health/ready``."""
        return self.ask("/health/ready").status

    def wait_ready(self, servers: int | None = None) -> None:
        """Wait until the service is ready, with that many servers."""
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            answer = self.ask("/health/ready")
            if answer.status == 200 and servers in (None, answer.body["servers"]):
                return
            time.sleep(0.02)
        pytest.fail(f"not ready: {answer}\n{self.program.output}", pytrace=False)


def service_program(fleet: Path, *, port: object = 0, **variables: str) -> contextlib.AbstractContextManager[Program]:
    """Run the service with a fleet on a port of the loopback interface, any free one if it is 0."""
    own = {"FLEET_FILE": str(fleet), "HOST": "127.0.0.1", "PORT": str(port), "PYTHON": sys.executable}
    script = str(EXAMPLES / "container" / "service.py")
    return running(sys.executable, script, folder=fleet.parent, env=environment(**variables | own))


@contextlib.contextmanager
def deployed_service(fleet: Path, **variables: str) -> Iterator[DeployedService]:
    """Run the service as :func:`service_program` does, and wait until it listens."""
    with service_program(fleet, **variables) as program:
        port = program.wait_for(r"listening on 127\.0\.0\.1 port (\d+)")[1]
        yield DeployedService(program, f"127.0.0.1:{port}")


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()
