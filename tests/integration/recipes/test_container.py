"""The recipe in ``examples/container``: its service from outside, and what its image is made of."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from support.deployed_service import DeployedService, deployed_service, service_program
from support.recipes import ROOT, environment, folder_of

from mcp_manager.testing import Hold
from mcp_manager.testing.scripted import ScriptedServer

ENGINE_VARIABLE = "MCP_MANAGER_CONTAINER_ENGINE"
"""Names a command that takes the arguments of docker; podman does, too."""
BASE_VARIABLE = "MCP_MANAGER_BASE_IMAGE"
"""Names an image to build on, in place of the one in the Dockerfile."""
_ANOTHER = """
[servers.another]
command = "${PYTHON}"
args = ["-P", "-m", "mcp_manager.cli.demo_servers.stdio_server"]

[servers.down]
url = "http://127.0.0.1:9/mcp"
connect = "lazy"
"""


class Dockerfile:
    """The instructions of a Dockerfile, by stage."""

    def __init__(self, path: Path) -> None:
        text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
        self.stages: list[list[tuple[str, str]]] = []
        for line in filter(str.strip, text.splitlines()):
            name, _, value = line.partition(" ")
            if name == "FROM":
                self.stages.append([])
            if self.stages:
                self.stages[-1].append((name, re.sub(r"\s+", " ", value.strip())))

    def all(self, name: str, stage: int = -1) -> list[str]:
        return [value for each, value in self.stages[stage] if each == name]

    def one(self, name: str) -> str:
        [value] = self.all(name)
        return value

    @property
    def variables(self) -> dict[str, str]:
        return dict(part.split("=", 1) for line in self.all("ENV") for part in shlex.split(line))


@pytest.fixture(scope="module")
def folder() -> Path:
    return folder_of("container")


@pytest.fixture(scope="module")
def dockerfile(folder: Path) -> Dockerfile:
    return Dockerfile(folder / "Dockerfile")


@pytest.fixture
def fleet(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(folder / "fleet.toml", tmp_path))


def check_of_the_image(dockerfile: Dockerfile, service: DeployedService) -> int:
    """Run what ``HEALTHCHECK`` says; return its exit status."""
    command = json.loads(dockerfile.one("HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "python"
    env = environment(PORT=service.address.rpartition(":")[2])
    return subprocess.run(
        [sys.executable, *command[1:]], env=env, capture_output=True, timeout=30, check=False
    ).returncode


def test_it_calls_tools_and_says_what_became_of_calls(fleet: Path) -> None:
    with deployed_service(fleet) as service:
        service.wait_ready()
        assert service.text("calculator", "add", a=2, b=3) == "5"
        # A tool's own failure has the form of a result, a server's refusal has not.
        failed = service.call("calculator", "add", a="two", b=3)
        assert (failed.status, failed.body["isError"]) == (422, True)
        refused = service.call("calculator", "subtract", a=2, b=3)
        assert (refused.status, refused.body["error"], refused.body["delivery"]) == (422, "RpcError", "answered")
        assert service.call("nobody", "add").status == 404
        assert service.ask("/servers/calculator/tools/add", [1, 2]).status == 400
        assert service.ask("/servers/calculator/tools/add", {}, content_type="text/plain").status == 415
        for broken in (b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000):
            assert service.ask("/servers/calculator/tools/add", broken).status == 400

        fleet.write_text(fleet.read_text(encoding="utf-8") + _ANOTHER, encoding="utf-8")
        service.wait_ready(servers=3)
        assert service.text("another", "echo", text="hello") == "hello"
        # A server that is down is the business of its own callers.
        unreachable = service.call("down", "add", a=2, b=3)
        assert (unreachable.status, unreachable.body["delivery"]) == (503, "not_sent")
        assert service.readiness() == 200

        metrics = service.ask("/metrics")
        assert metrics.headers["Content-Type"].startswith("text/plain")
        assert 'mcp_requests_total{method="tools/call",server_id="calculator",status="success"} 1.0' in metrics.body
        assert service.program.end(signal.SIGTERM) == 0


def test_it_ends_at_once_if_a_setting_is_invalid_or_its_port_is_taken(fleet: Path) -> None:
    def ended(port: int = 0, **variables: str) -> tuple[int, str]:
        with service_program(fleet, port=port, **variables) as program:
            status = program.process.wait(30)
            program.close()
            return status, program.output

    assert ended(DRAIN_S="nan") == (78, "DRAIN_S is no number from 0 to 86400: nan\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, said = ended(port=taken.getsockname()[1])
    assert status == 1
    assert re.fullmatch(r"CRITICAL service: cannot listen on .* in use\n", said)


def test_it_turns_unready_first_and_finishes_the_calls_under_way(fleet: Path, dockerfile: Dockerfile) -> None:
    here = {"PATH": environment()["PATH"], "START_S": "1", "LINGER_S": "2"}
    with ScriptedServer() as server, ThreadPoolExecutor() as pool:
        # A server that is down does not keep the others from serving.
        servers = f'[servers.held]\nurl = "{server.url}"\n[servers.down]\nurl = "http://127.0.0.1:9/mcp"\n'
        fleet.write_text(fleet.read_text(encoding="utf-8") + servers, encoding="utf-8")
        with deployed_service(fleet, **dockerfile.variables | here) as service:
            service.wait_ready(servers=3)
            [warning] = [line for line in service.program.lines if '"logger":"service"' in line and "WARNING" in line]
            assert "down is Unhealthy" in json.loads(warning)["message"]
            assert check_of_the_image(dockerfile, service) == 0

            hold = Hold()
            server.script("tools/call", hold)
            under_way = pool.submit(service.text, "held", "echo", text="at last")
            asyncio.run(server.wait_for("tools/call"))
            service.program.process.send_signal(signal.SIGTERM)
            service.program.wait_for("stopping")
            assert service.readiness() == 503
            assert service.ask("/health/live").status == 200
            late = service.call("calculator", "add", a=2, b=3)
            assert (late.status, late.headers["Connection"]) == (200, "close")
            with contextlib.suppress(ConnectionError):
                while service.readiness() == 503:
                    time.sleep(0.02)
            # It would break off now if it were not waited for.
            assert [each.result() for each in wait([under_way], timeout=0.3).done] == []
            hold.release()
            assert under_way.result() == "at last"
            assert service.program.process.wait(30) == 0
            assert check_of_the_image(dockerfile, service) == 1


# The image


def admitted(path: str, rules: list[str]) -> bool:
    """Whether a ``.dockerignore`` lets a file into the build: the last rule that fits decides."""
    verdict = True
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        parents = [path, *map(str, Path(path).parents)]
        names = [Path(each).name for each in parents] if "**/" in rule else parents
        if any(fnmatch.fnmatchcase(each, pattern) for each in names):
            verdict = rule.startswith("!")
    return verdict


def test_the_build_gets_the_sources_and_nothing_else(dockerfile: Dockerfile, folder: Path) -> None:
    lines = (folder / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    for line in dockerfile.all("COPY", 0):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            files = [source] if (ROOT / source).is_file() else [f"{source}/__init__.py", f"{source}/_core/router.pyx"]
            assert all(admitted(each, rules) for each in files), files
    for kept_out in (
        ".git/config",
        ".venv/pyvenv.cfg",
        "tests/conftest.py",
        "mcp_manager/_core/router.so",
        "fleet.env",
    ):
        assert not admitted(kept_out, rules), kept_out


def test_signals_reach_a_service_that_is_not_root(dockerfile: Dockerfile) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", dockerfile.one("USER"))
    assert dockerfile.one("STOPSIGNAL") == "SIGTERM"
    # Not a text, which a shell would run: it would get the signal.
    assert json.loads(dockerfile.one("ENTRYPOINT")) == ["tini", "--"]
    assert json.loads(dockerfile.one("CMD")) == ["python", "service.py"]
    # Compilers stay in the stage before.
    assert not re.search(r"gcc|-dev|build-essential|pip", " ".join(dockerfile.all("RUN")))


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_image_can_be_built_runs_without_rights_and_ends_in_order(dockerfile: Dockerfile) -> None:
    engine = os.environ.get(ENGINE_VARIABLE)
    if engine is None:
        pytest.skip(f"{ENGINE_VARIABLE} names no docker or podman; the build takes minutes and downloads packages")

    def do(*arguments: str) -> str:
        done = subprocess.run([engine, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    name = f"mcp-service-test-{os.getpid()}"
    base = [f"--build-arg=BASE={os.environ[BASE_VARIABLE]}"] if BASE_VARIABLE in os.environ else []
    do("build", "--file", "examples/container/Dockerfile", *base, "--tag", name, ".")
    restrictions = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    try:
        do("run", "--detach", "--name", name, "--network=none", *restrictions, name)
        try:
            script = (
                "import sys, urllib.request as client; print(client.urlopen(sys.argv[1], timeout=5).read().decode())"
            )
            url = "http://127.0.0.1:8080/health/ready"
            for _ in range(100):
                with contextlib.suppress(AssertionError):
                    ready = do("exec", name, "python", "-c", script, url)
                    break
                time.sleep(0.2)
            assert json.loads(ready) == {"state": "ready", "servers": 1, "unhealthy": 0}
            do("exec", name, *json.loads(dockerfile.one("HEALTHCHECK").partition("CMD ")[2]))
            assert do("exec", name, "id", "-u") == "10001"
            left = "import shutil; print(*map(shutil.which, ['gcc', 'cc', 'c++', 'make']))"
            assert do("exec", name, "python", "-c", left) == "None None None None"
            do("stop", "-t", "45", name)
            assert do("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
        finally:
            do("rm", "--force", name)
    finally:
        do("rmi", name)
