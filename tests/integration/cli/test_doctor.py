"""``doctor``: what it finds in fleets that are broken in many ways, and what it advises."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority, StrictTlsServer
from support.authorization import ProtectedServer
from support.exchanging import ExchangingServer
from support.processes import PROGRAMS, HttpServerProcess, fastmcp_http, unused_port
from support.terminal import COMMAND

from mcp_manager.cli import main
from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.cli.doctor.clocks import judged
from mcp_manager.cli.doctor.connections import examine_tools
from mcp_manager.testing.scripted import Request, ScriptedServer

CLOCKS = "set both clocks by NTP: tokens (OAuth, JWT) are refused if clocks differ"
DESCRIBED = {"command": sys.executable, "args": [str(PROGRAMS / "described_stdio.py")]}


def examine(
    folder: Path, capsys: pytest.CaptureFixture[str], servers: dict[str, Any], name: str = "fleet.json"
) -> tuple[int, list[tuple[str, str | None, str, str]]]:
    """Run the doctor on a fleet; return its status and findings: severity, server, what was seen, advice."""
    path = folder / name
    path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    status = main(["doctor", str(path), "--json"])
    shown = capsys.readouterr()
    assert shown.err == ""
    told = json.loads(shown.out)
    found = [(each["severity"], each["server_id"], each["seen"], each["advice"]) for each in told["findings"]]
    for _, _, seen, advice in found:
        assert seen and advice
        assert "\n" not in seen + advice
    return status, found


def only(found: list[tuple[str, str | None, str, str]]) -> tuple[str, str, str]:
    ((severity, _, seen, advice),) = found
    return severity, seen, advice


def test_a_fleet_that_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert examine(tmp_path, capsys, {"works": stdio_server_config()}) == (0, [])
    assert main(["doctor", str(tmp_path / "fleet.json")]) == 0
    assert capsys.readouterr().out == "1 server: nothing is wrong\n"


# Programs


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("uvx", "install uv, which brings uvx; or set command to its full path"),
        ("npx", "install Node.js, which brings npx; or set command to its full path"),
        ("known-toool", "did you mean known-tool?; or set command to its full path"),
        ("qqqqqqq", "install it; or set command to its full path"),
    ],
)
def test_a_command_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, advice: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "known-tool").touch()
    status, found = examine(tmp_path, capsys, {"a": {"command": command, "env": {"PATH": str(tools)}}})
    assert (status, only(found)) == (1, ("error", f"the command {command} is not in PATH ({tools})", advice))


def test_a_command_with_arguments_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "known"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(stat.S_IRWXU)
    path = tmp_path / "fleet.toml"
    path.write_text(
        f"""
[servers.a]
command = "known -m 'foo bar'"
env.PATH = "{tmp_path}"
[servers.b]
command = "./known -m"
args = ["foo"]
cwd = "{tmp_path}"
[servers.c]
command = "unknown -m foo"
env.PATH = "{tmp_path}"
""",
        encoding="utf-8",
    )
    assert main(["doctor", str(path), "--json"]) == 1
    advice = {each["server_id"]: each["advice"] for each in json.loads(capsys.readouterr().out)["findings"]}
    assert advice["a"] == 'put the arguments into args: command = "known", args = ["-m", "foo bar"]'
    assert advice["b"] == 'put the arguments into args: command = "./known", args = ["-m", …]'
    assert advice["c"].endswith("or set command to its full path")


def test_a_mistake_in_the_file_with_its_own_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOPE", raising=False)
    _, found = examine(tmp_path, capsys, {"a": {"url": "http://h/${NOPE}"}, "b": {"url": 5}, "c": {"args": ["x"]}})
    (_, _, unset, set_it), (_, _, _, correct), (_, _, missing, give) = (each for each in found if each[0] == "error")
    assert missing.endswith("mcpServers.c.url: missing")
    assert give == "give url for an HTTP server or command for a stdio server"
    assert unset.endswith("mcpServers.a.url: the environment variable NOPE is not set")
    assert set_it == "set it, or write ${NOPE:-default}"
    assert correct == "correct it in the file"


def test_a_program_that_is_not_there_or_not_executable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(stat.S_IRUSR)
    servers = {
        "missing": {"command": "./servr", "cwd": str(tmp_path)},
        "plain": {"command": str(program)},
        "nowhere": {"command": sys.executable, "cwd": str(tmp_path / "nowhere")},
    }
    status, found = examine(tmp_path, capsys, servers)
    assert status == 1
    advice = {server: (seen, advice) for _, server, seen, advice in found}
    assert advice["missing"] == (f"the program {tmp_path / 'servr'} does not exist", "did you mean server?")
    assert advice["nowhere"] == (f"cwd {tmp_path / 'nowhere'} is not a directory", "create it, or correct cwd")
    if os.geteuid():
        assert advice["plain"] == (f"the program {program} is not executable", f"chmod +x {program}")


@pytest.mark.slow
def test_a_program_that_ends_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crash = "import sys; sys.exit('\\x1b[31mAPI_KEY is not set')"
    _, found = examine(tmp_path, capsys, {"a": {"command": sys.executable, "args": ["-c", crash]}})
    severity, seen, advice = only(found)
    assert (severity, seen) == ("error", "the server process exited with status 1: API_KEY is not set")
    assert "mcp-manager logs" in advice


def test_a_program_that_ends_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = examine(tmp_path, capsys, {"a": {"command": sys.executable, "args": ["-c", "pass"]}})
    severity, seen, advice = only(found)
    assert (status, severity, seen) == (1, "error", "the server process exited with status 0")
    assert "run its command by hand" in advice


@pytest.mark.slow
def test_a_program_that_is_slow_to_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = {**DESCRIBED, "args": [*DESCRIBED["args"], "--slow", "0.4"], "connect_timeout_s": 0.1}
    stuck = {**DESCRIBED, "args": [*DESCRIBED["args"], "--slow", "60"], "start_timeout_s": 0.5}
    status, found = examine(tmp_path, capsys, {"slow": slow, "stuck": {**stuck, "request_timeout_s": 1.0}})
    assert status == 1
    by_server = {server: (severity, seen, advice) for severity, server, seen, advice in found if server}
    assert by_server["slow"][0] == "warning"
    assert re.search(r"it took 0\.\d s to come up, longer than connect_timeout_s \(0\.1 s\)", by_server["slow"][1])
    assert by_server["stuck"][0] == "error"
    assert "it may wait for input" in by_server["stuck"][2]


# URLs


@pytest.mark.parametrize("path", ["/", pytest.param("/api/v1", marks=pytest.mark.slow)])
def test_a_wrong_path_is_told_with_the_right_one(tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    # Without a path, the right one is found when a session is made.
    with fastmcp_http() as server:
        right = server.url
        _, found = examine(tmp_path, capsys, {"a": {"url": right.replace("/mcp", path)}})
    assert only(found)[0] == ("warning" if path == "/" else "error")
    assert only(found)[2] == f'set url = "{right}": an MCP server answers there'


@pytest.mark.parametrize("path", ["/sse", pytest.param("/mcp", marks=pytest.mark.slow)])
def test_a_wrong_transport_is_told_with_the_right_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    with HttpServerProcess("sdk_http.py", "--sse") as server:
        right = server.url
        _, found = examine(tmp_path, capsys, {"a": {"url": right.replace("/sse", path), "type": "http"}})
    severity, _, advice = only(found)
    if severity == "note":
        # The older transport was found at the right path.
        assert advice.startswith('set transport = "sse", or use its streamable HTTP endpoint')
    else:
        assert advice == f'set url = "{right}" and transport = "sse": an MCP server answers there'


def test_nobody_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    servers = {
        "refused": {"url": f"http://127.0.0.1:{unused_port()}/mcp"},
        "unknown": {"url": "http://no-such-host.invalid/mcp"},
    }
    status, found = examine(tmp_path, capsys, servers)
    by_server = {server: (seen, advice) for _, server, seen, advice in found}
    assert (status, len(found)) == (1, 2)
    assert by_server["refused"][0].endswith("Connection refused")
    assert by_server["refused"][1] == "check that the server runs, and its url"
    assert "no-such-host.invalid" in by_server["unknown"][0]


def test_credentials_that_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ProtectedServer() as server:
        _, found = examine(tmp_path, capsys, {"a": {"url": server.url}})
        assert 'auth.type = "oauth"' in only(found)[2]
        assert main(["doctor", server.url, "--json"]) == 1
        advice = json.loads(capsys.readouterr().out)["findings"][0]["advice"]
    assert advice == f"mcp-manager login {server.url}"


def test_a_server_that_gets_credentials_of_each_client(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ExchangingServer() as server:
        serve = {"credentials": {"a": {"authorization_header": "X-A-Authorization"}}}
        path = tmp_path / "fleet.json"
        path.write_text(json.dumps({"servers": {"a": {"url": server.url}}, "serve": serve}), encoding="utf-8")
        assert main(["doctor", str(path), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["findings"]
    assert (found["severity"], found["server_id"]) == ("note", "a")
    assert found["advice"] == "clients of the gateway show credentials for it: set auth to try it without them"


class OffServer(ScriptedServer):
    """A server whose clock is off by some seconds."""

    def __init__(self, off_s: float, age_s: int = 0) -> None:
        super().__init__()
        self.off_s = off_s
        self.age_s = age_s

    def answer(self, request: Request) -> tuple[int, dict[str, str], dict[str, Any] | None]:
        status, headers, reply = super().answer(request)
        date = formatdate(time.time() + self.off_s - self.age_s, usegmt=True)
        return status, {**headers, "Date": date, **({"Age": str(self.age_s)} if self.age_s else {})}, reply


def test_a_clock_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with OffServer(7200) as ahead, OffServer(-900) as behind, OffServer(60) as near, OffServer(0, age_s=5000) as kept:
        servers = {"ahead": ahead, "behind": behind, "near": near, "kept": kept}
        entries = {name: {"url": each.url, "tools": {"allow": []}} for name, each in servers.items()}
        status, found = examine(tmp_path, capsys, {**entries, "program": stdio_server_config()})
        told = {server: (severity, seen, advice) for severity, server, seen, advice in found if "clock" in seen}
        assert status == 0
        assert told == {
            "ahead": ("warning", "its clock is 2 h ahead of the one of this machine", CLOCKS),
            "behind": ("warning", "its clock is 15 min behind the one of this machine", CLOCKS),
        }
        # It is asked without credentials and without beginning anything.
        assert [each.verb for each in ahead.requests].count("HEAD") == 1


def test_the_clock_of_this_machine_that_is_wrong() -> None:
    (finding,) = judged({"a": 90_000.0, "b": 90_050.0})
    assert (finding.server_id, finding.seen) == (
        None,
        "the clock of this machine is 1.04 days behind those of all HTTP servers",
    )
    assert [each.server_id for each in judged({"a": 90_000.0, "b": 90_500.0})] == ["a", "b"]
    assert [each.server_id for each in judged({"a": 90_000.0, "b": 0.0})] == ["a"]
    assert judged({"a": 299.0, "b": -299.0}) == judged({}) == []


def test_tls_that_is_not_verified_or_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    servers = {
        "open": {"url": f"https://127.0.0.1:{unused_port()}/mcp", "tls": {"verify": False}},
        "plain": {"url": "http://no-such-host.invalid/mcp", "auth": {"type": "bearer", "token": "s3cr3t-token"}},
    }
    _, found = examine(tmp_path, capsys, servers)
    warnings = {server: seen for severity, server, seen, _ in found if severity == "warning"}
    assert warnings == {
        "open": "it accepts every certificate: tls.verify is false",
        "plain": "credentials or headers are sent without encryption",
    }
    assert "s3cr3t" not in json.dumps(found)


# The configuration and the fleet


def test_a_configuration_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = examine(tmp_path, capsys, {"a": {"url": "${NO_SUCH_VARIABLE}/mcp"}})
    severity, seen, _ = only(found)
    assert (status, severity) == (1, "error")
    assert "the environment variable NO_SUCH_VARIABLE is not set" in seen


def test_warnings_of_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = examine(tmp_path, capsys, {"a": {**stdio_server_config(), "request_timeout": 5}})
    severity, seen, advice = only(found)
    assert (status, severity, advice) == (0, "warning", "correct or remove it in the file")
    assert re.search(r"did you mean '?request_timeout_s", seen)


def test_a_rule_that_matches_no_tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rules.json"
    servers = {"a": {**stdio_server_config(), "tools": {"allow": ["echo", "ad"]}}}
    path.write_text(json.dumps({"servers": servers}), encoding="utf-8")
    assert main(["doctor", str(path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert (found["severity"], found["server_id"]) == ("warning", "a")
    assert found["seen"] == "no tool of the server matches: tools.allow has 'ad' (did you mean 'add'?)"


def test_a_suspended_server_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = examine(tmp_path, capsys, {"a": {**stdio_server_config(), "instances": 0}})
    assert (status, only(found)[:2]) == (0, ("note", "it is suspended: instances is 0"))


def test_tools_of_the_same_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = examine(tmp_path, capsys, {"a": stdio_server_config(), "b": stdio_server_config()})
    severity, seen, _ = only(found)
    assert (status, severity) == (0, "note")
    assert seen == "several servers have tools of the same name: echo (a, b), add (a, b), sleep (a, b)"


def test_tools_that_are_too_many_or_twice() -> None:
    many = [f"tool{index}" for index in range(200)]
    found = examine_tools({"a": many, "b": ["x", "x"]})
    assert [(each.severity, each.server_id) for each in found] == [("warning", "b"), ("warning", None)]
    assert found[0].seen == "it lists tools twice: x"
    assert found[1].seen.startswith("the fleet has 202 tools")


@pytest.mark.slow
def test_a_limit_of_open_files_that_is_too_low(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    servers = {f"s{index}": {"url": "http://127.0.0.1:9/mcp", "instances": 0} for index in range(3)}
    servers["many"] = {"url": f"http://127.0.0.1:{unused_port()}/{{i}}/mcp", "instances": 60}
    path.write_text(json.dumps({"servers": servers}), encoding="utf-8")
    command = f"ulimit -S -n 128; exec {' '.join(COMMAND)} doctor {path} --json"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    limits = [each for each in json.loads(done.stdout)["findings"] if each["server_id"] is None]
    assert [(each["severity"], each["advice"]) for each in limits] == [("warning", "ulimit -n 184")]


def test_a_certificate_that_is_not_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = Authority(tmp_path).issue("127.0.0.1").load()
    with StrictTlsServer(context) as server:
        _, found = examine(tmp_path, capsys, {"a": {"url": f"https://127.0.0.1:{server.port}/mcp"}})
    severity, seen, advice = only(found)
    assert severity == "error"
    assert "certificate" in seen
    assert "tls.ca_file" in advice


def test_in_a_pipe_every_finding_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fleet.json"
    servers = {"a": {"command": "no-such-command"}, "b": {"url": "http://h/mcp", "instances": 0}}
    path.write_text(json.dumps({"servers": servers}), encoding="utf-8")
    assert main(["doctor", str(path)]) == 1
    header, first, second, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["SEVERITY", "SERVER", "SEEN", "TO", "DO"]
    assert first.startswith("error     a       the command no-such-command is not in PATH")
    assert second.startswith("note      b       it is suspended")
    assert last == "2 servers: 1 error, 1 note"
