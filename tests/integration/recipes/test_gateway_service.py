"""The recipe in ``examples/gateway_service``: its units, its image, its manifests, and its gateway with keys and rules."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.orphans import no_orphans
from support.recipes import ROOT, environment, folder_of
from support.systemd_socket import SystemdSocket
from support.unit_files import UnitFile, analyze

MORE_CHECKS = 0.3
"""How much newer versions of ``systemd-analyze`` may add to the exposure by checks that are new."""
_WAIT_S = 30.0
_PASSES_SOCKET = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.argv[2], sys.argv[2:])"
)
_DECLARED = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def folder() -> Path:
    return folder_of("gateway_service")


@pytest.fixture(scope="module")
def service(folder: Path) -> UnitFile:
    return UnitFile(folder / "mcp-gateway.service")


@pytest.fixture(scope="module")
def manifests(folder: Path) -> dict[str, Manifest]:
    documents = yaml.safe_load_all((folder / "gateway.yaml").read_text(encoding="utf-8"))
    return {each["kind"]: each for each in documents}


@pytest.fixture(scope="module")
def dockerfile(folder: Path) -> str:
    text = (folder / "Dockerfile").read_text(encoding="utf-8")
    return re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")


def instruction(dockerfile: str, name: str) -> str:
    """The last instruction of a name, without it."""
    return re.findall(rf"^{name} +(.+)$", dockerfile, re.MULTILINE)[-1]


def new_key(keys: Path, *arguments: str) -> str:
    """Do what the README says to make a key; return it."""
    command = [sys.executable, "-P", "-m", "mcp_manager", "key", "new", *arguments, "--file", str(keys), "--quiet"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30, check=True)
    [key] = re.findall(r"mcpm_\w+", done.stdout)
    return str(key)


class Client:
    """A client of 2026-07-28 with a key."""

    def __init__(self, port: int, key: str = "") -> None:
        self._port = port
        self._fields = {"Authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str) -> int:
        with contextlib.closing(HTTPConnection("127.0.0.1", self._port, timeout=_WAIT_S)) as connection:
            connection.request("GET", path, headers=self._fields)
            return connection.getresponse().status

    def ask(self, method: str, **params: Any) -> tuple[int, Any]:
        """Return the status and the result, or the error, of a request."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": _DECLARED}}
        fields = {
            **self._fields,
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method,
            **({"Mcp-Name": params["name"]} if "name" in params else {}),
        }
        with contextlib.closing(HTTPConnection("127.0.0.1", self._port, timeout=_WAIT_S)) as connection:
            connection.request("POST", "/mcp", json.dumps(body), fields)
            response = connection.getresponse()
            found = json.loads(response.read())
        return response.status, found.get("result", found.get("error"))

    def tools(self) -> list[str]:
        return [each["name"] for each in self.ask("tools/list")[1]["tools"]]


def ask_admin(path: Path, key: str) -> int:
    """Return the status of a request to the admin API at a unix socket."""
    with contextlib.closing(HTTPConnection("localhost", timeout=_WAIT_S)) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", "/api/v1/servers", headers={"Authorization": f"Bearer {key}"})
        return connection.getresponse().status


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[SystemdSocket]:
    opened = SystemdSocket(tmp_path / "notify")
    try:
        yield opened
    finally:
        opened.close()


def test_the_unit_serves_with_keys_and_rules(
    folder: Path, service: UnitFile, systemd: SystemdSocket, tmp_path: Path
) -> None:
    fleet, keys = Path(shutil.copy(folder / "fleet.toml", tmp_path)), tmp_path / "keys"
    alice = new_key(keys, "alice", "--claim", "team=support")
    admin = new_key(keys, "admin", "--scope", "all")
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).name == "mcp-manager"
    assert arguments[-1] == "/etc/mcp-gateway/fleet.toml"
    command = [sys.executable, "-P", "-m", "mcp_manager", *arguments[:-1], str(fleet)]
    env = environment(
        SESSION_KEY="k" * 44,
        KEYS_FILE=str(keys),
        ADMIN_LISTEN=f"unix:{tmp_path / 'admin'}",
        PYTHON=sys.executable,
        NOTIFY_SOCKET=str(systemd.path),
        WATCHDOG_USEC="20000000",
    )
    with no_orphans(), socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        passing = [sys.executable, "-c", _PASSES_SOCKET, str(listening.fileno()), *command]
        with subprocess.Popen(passing, pass_fds=[listening.fileno()], env=env, stdout=subprocess.PIPE) as process:
            try:
                readme = (folder / "README.md").read_text(encoding="utf-8")
                _, status = systemd.next()
                assert status.replace(str(port), "8080").removeprefix("STATUS=") in readme
                assert Client(port).get("/health") == Client(port).get("/ready") == 200
                assert Client(port).ask("tools/list")[0] == Client(port, f"{alice}x").ask("tools/list")[0] == 401

                assert [ask_admin(tmp_path / "admin", key) for key in (alice, f"{alice}x", admin)] == [403, 401, 200]
                assert Client(port, admin).get("/api/v1/servers") == 404

                assert Client(port, alice).tools() == ["calculator__add"]
                assert len(Client(port, admin).tools()) > 1
                added = Client(port, alice).ask("tools/call", name="calculator__add", arguments={"a": 2, "b": 3})
                assert added[1]["content"] == [{"type": "text", "text": "5"}]
                refused = Client(port, alice).ask("tools/call", name="calculator__echo", arguments={"text": "x"})
                unknown = Client(port, alice).ask("tools/call", name="calculator__none", arguments={})
                assert refused[1]["code"] == unknown[1]["code"]
                assert (
                    "content"
                    in Client(port, admin).ask("tools/call", name="calculator__echo", arguments={"text": "x"})[1]
                )

                fleet.write_text(fleet.read_text(encoding="utf-8").replace("calculator__add", "*"), encoding="utf-8")
                reload = [part.replace("$MAINPID", str(process.pid)) for part in shlex.split(service["ExecReload"])]
                subprocess.run(reload, timeout=30, check=True)
                assert [systemd.next()[0], systemd.next()[0]] == ["RELOADING=1", "READY=1"]
                assert Client(port, alice).tools() == Client(port, admin).tools()

                process.send_signal(signal.SIGTERM)
                assert systemd.next() == ["STOPPING=1"]
                assert process.wait(_WAIT_S) == 0
            finally:
                process.kill()


def test_a_mistake_in_the_file_ends_it_with_the_status_that_is_not_restarted(service: UnitFile, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text("[serve.auth]\ntype = 'api_keys'\n", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "mcp_manager", "serve", str(fleet)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert str(done.returncode) == service["RestartPreventExitStatus"], done.stderr
    assert "serve.auth.type" in done.stderr


def test_systemd_accepts_the_units(folder: Path, service: UnitFile, tmp_path: Path) -> None:
    # The programs that the README installs are not on this machine.
    program = shlex.split(service["ExecStart"])[0]
    text = service.path.read_text(encoding="utf-8").replace(program, sys.executable)
    unit = tmp_path / service.path.name
    unit.write_text(text.replace("User=mcp-gateway", "User=root"), encoding="utf-8")
    listening = Path(shutil.copy(folder / "mcp-gateway.socket", tmp_path))
    done = analyze("verify", "--man=no", str(unit), str(listening))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_as_hardened_as_the_readme_says(folder: Path, service: UnitFile) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", str(service.path))
    found = re.search(r"exposure level for mcp-gateway.service: ([\d.]+)", done.stdout)
    stated = re.search(r"exposure of ([\d.]+) in", (folder / "README.md").read_text(encoding="utf-8"))
    assert found is not None and stated is not None, done.stdout + done.stderr
    assert float(found[1]) <= float(stated[1]) + MORE_CHECKS, done.stdout


def test_there_is_time_to_drain(folder: Path, service: UnitFile, manifests: dict[str, Manifest]) -> None:
    [drain_s] = re.findall(
        r"^drain_timeout_s = (\d+)", (folder / "fleet.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    end_of_servers_s = 10  # manager.shutdown_timeout_s
    assert float(service["TimeoutStopSec"]) > float(drain_s) + end_of_servers_s
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    waits_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > waits_s + float(drain_s) + end_of_servers_s


def test_the_manifests_fit_together_and_to_the_image(manifests: dict[str, Manifest], dockerfile: str) -> None:
    pod = manifests["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"].items()
    for kind in ("Service", "PodDisruptionBudget"):
        selector = manifests[kind]["spec"]["selector"]
        assert selector.get("matchLabels", selector).items() <= labels
    assert manifests["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    variables = dict(part.split("=", 1) for part in shlex.split(instruction(dockerfile, "ENV")))
    assert variables["LISTEN"].rpartition(":")[2] == str(container["ports"][0]["containerPort"])
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert {str(Path(variables[name]).parent) for name in ("KEYS_FILE", "FLEET_FILE")} == {
        mounts["keys"],
        mounts["fleet"],
    }
    assert instruction(dockerfile, "USER") == "10001:10001"
    assert pod["spec"]["securityContext"]["runAsUser"] == 10001
    # Compilers stay in the stage before.
    assert not re.search(r"gcc|-dev|pip", dockerfile.rpartition("\nFROM ")[2])


def test_the_command_of_the_image_serves_beyond_the_container_and_gets_its_signals(
    folder: Path, dockerfile: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    key = new_key(keys, "admin", "--scope", "all")
    command = json.loads(instruction(dockerfile, "CMD"))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "mcp-manager").write_text(
        f'#!/bin/sh\nexec {sys.executable} -P -m mcp_manager "$@"\n', encoding="utf-8"
    )
    (programs / "mcp-manager").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = environment(
        SESSION_KEY="k" * 44,
        KEYS_FILE=str(keys),
        ADMIN_LISTEN=f"unix:{tmp_path / 'admin'}",
        PYTHON=sys.executable,
        LISTEN=f"0.0.0.0:{port}",
        FLEET_FILE=str(folder / "fleet.toml"),
    )
    env["PATH"] = f"{programs}{os.pathsep}{env['PATH']}"
    check = json.loads(re.findall(r"HEALTHCHECK .*?CMD +(\[.*\])", dockerfile)[0])
    with no_orphans(), subprocess.Popen(command, env=env, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert b"serving 1 server at" in process.stdout.readline()
            assert subprocess.run([sys.executable, *check[1:]], env=env, timeout=30, check=False).returncode == 0
            assert Client(port).ask("tools/list")[0] == 401
            assert len(Client(port, key).tools()) > 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(_WAIT_S) == 0
            assert subprocess.run([sys.executable, *check[1:]], env=env, capture_output=True, check=False).returncode
        finally:
            process.kill()


def test_kubernetes_accepts_the_manifests(folder: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for document in yaml.safe_load_all((folder / "gateway.yaml").read_text(encoding="utf-8")):
        validate.validate(document, "1.30", strict=True)
