"""``--json`` and ``--quiet``: nothing but JSON on standard output, for results and failures of every verb."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from support.processes import PROGRAMS, unused_port

from mcp_manager.cli import main
from mcp_manager.cli.demo_servers.processes import stdio_server_config

DESCRIBED = {"command": sys.executable, "args": [str(PROGRAMS / "described_stdio.py")]}


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    """A file with two servers that work, and one out of reach."""
    gone = {"url": f"http://127.0.0.1:{unused_port()}/mcp"}
    path = tmp_path / "fleet.json"
    servers = {"works": stdio_server_config(), "described": DESCRIBED, "gone": gone}
    path.write_text(json.dumps({"servers": servers}), encoding="utf-8")
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """Run a command with ``--json``; return its status and what it printed, which is JSON and harmless."""
    status = main([*arguments, "--json"])
    shown = capsys.readouterr()
    assert shown.err == ""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u200b]", shown.out)
    return status, json.loads(shown.out)


@pytest.mark.parametrize(
    ("arguments", "status", "count"),
    [
        (["check", "FLEET"], 1, 3),
        (["list", "FLEET"], 0, 3),
        (["status", "FLEET"], 1, 3),
        (["tools", "FLEET"], 1, 3 + 7 + 1),
        (["tools", "FLEET", "described"], 0, 7),
        (["resources", "FLEET"], 1, 2 + 1),
        (["prompts", "FLEET", "described"], 0, 1),
        (["prompts", "FLEET", "works"], 0, 0),
    ],
)
def test_a_list_is_an_array(
    fleet: str, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, count: int
) -> None:
    found, listed = run(capsys, *(fleet if each == "FLEET" else each for each in arguments))
    assert (found, len(listed)) == (status, count)
    assert all(isinstance(each, dict) for each in listed)


def test_what_failed_is_in_the_list(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, listed = run(capsys, "resources", fleet)
    (failed,) = [each for each in listed if "error" in each]
    assert failed["server_id"] == "gone"
    assert failed["error"]["type"] == "ConnectError"
    assert (failed["error"]["delivery"], failed["error"]["retryable"]) == ("not_sent", True)


def test_the_other_verbs(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, snapshot = run(capsys, "status", fleet, "--snapshot")
    assert (status, len(snapshot["servers"])) == (1, 3)
    status, told = run(capsys, "doctor", fleet)
    assert (status, told["servers"]) == (1, 3)
    assert {(each["severity"], each["server_id"]) for each in told["findings"]} == {("error", "gone")}
    assert run(capsys, "call", fleet, "works", "add", "a=1", "b=2")[1]["content"][0]["text"] == "3"
    assert run(capsys, "call", fleet, "works", "ping")[1]["result"] == {}
    assert run(capsys, "login", fleet, "works")[1]["logged_in"] is False
    assert len(run(capsys, "help")[1]) > 30
    assert run(capsys, "help", "retries")[1]["topic"] == "retries"
    assert run(capsys, "completion", "bash")[1]["shell"] == "bash"


@pytest.mark.slow
def test_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    status, told = run(capsys, "demo")
    assert (status, {each["held"] for each in told["claims"]}) == (0, {True})


def test_the_logs_are_an_object_a_line(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", fleet, "gone", "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["error"]["type"] == "ConnectError"


ERROR = {"type", "message", "hint", "server_id", "delivery", "retryable"}


@pytest.mark.parametrize(
    ("arguments", "status", "kind", "server"),
    [
        (["call", "FLEET", "gone", "echo"], 1, "ConnectError", "gone"),
        (["call", "FLEET", "gone", "ping"], 1, "ConnectError", "gone"),
        (["call", "FLEET", "nobody", "ping"], 2, "ServerNotFoundError", "nobody"),
        (["call", "FLEET", "works", "ecko"], 2, "ToolNotFoundError", None),
        (["call", "FLEET", "works", "add", "a=x"], 2, "InvalidRequestError", None),
        (["call", "FLEET", "works", "echo", "text=a", "--timeout", "-1"], 2, "InvalidRequestError", None),
        (["call", "FLEET"], 2, "UsageError", None),
        (["tools", "FLEET", "nobody"], 2, "ServerNotFoundError", "nobody"),
        (["resources", "FLEET", "nobody"], 2, "ServerNotFoundError", "nobody"),
        (["prompts", "FLEET", "nobody"], 2, "ServerNotFoundError", "nobody"),
        (["logs", "FLEET", "nobody"], 2, "ServerNotFoundError", "nobody"),
        (["login", "FLEET", "nobody"], 2, "ServerNotFoundError", "nobody"),
        (["help", "nothing-like-it"], 2, "UsageError", None),
        (["completion", "csh"], 2, "BadParameter", None),
        (["demo", "--fast"], 2, "NoSuchOption", None),
        (["frobnicate"], 2, "NoSuchCommand", None),
        (["status", "FLEET", "--watch", "--snapshot"], 2, "UsageError", None),
        *((
            [verb, "no-such-file.toml", *more], 2, "ConfigError", None
        ) for verb, *more in (
            ["check"], ["doctor"], ["list"], ["status"], ["tools"], ["resources"], ["prompts"], ["logs", "a"],
            ["login", "a"], ["call", "a", "b"],
        )),
        (["check", "ftp://host/mcp"], 2, "ConfigError", None),
        (["check", "http://host:port/mcp"], 2, "ConfigError", "host:port"),
    ],
)  # fmt: skip
def test_a_failure_is_one_object(
    fleet: str, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, kind: str, server: str | None
) -> None:
    found, told = run(capsys, *(fleet if each == "FLEET" else each for each in arguments))
    assert (found, set(told)) == (status, {"error"})
    assert (told["error"]["type"], told["error"]["server_id"]) == (kind, server)
    assert set(told["error"]) >= ERROR
    assert ("problems" in told["error"], "retry_after_s" in told["error"]) == (
        kind == "ConfigError",
        kind == "ConnectError",
    )
    assert told["error"]["message"]


def test_an_error_of_the_server_has_its_code(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = run(capsys, "call", fleet, "works", "echo", "--method")
    assert (status, told["error"]["code"]) == (1, -32601)


def test_a_tool_that_fails_is_a_result(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = run(capsys, "call", fleet, "described", "failing")
    assert (status, told["isError"]) == (1, True)


def test_json_after_the_command_line_of_a_program_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--", "no-such-program-here", "--json"]) == 0
    assert capsys.readouterr().out.startswith("SERVER ")


def test_quiet_prints_results_and_errors_alone(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", fleet, "--quiet"]) == 1
    shown = capsys.readouterr()
    assert "Add two numbers." in shown.out
    assert re.fullmatch(r"mcp-manager: .*'gone'.*\n", shown.err)


def test_a_warning_of_the_configuration_is_shown_unless_it_is_to_be_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fleet.json"
    servers = {"a": {"url": "http://h/mcp", "request_timeout": 3}}
    path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    assert main(["list", str(path)]) == 0
    assert re.fullmatch(r"mcp-manager: warning: .*request_timeout_s.*\n", capsys.readouterr().err)
    assert main(["list", str(path), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["list", str(path), "--log-level", "warning", "--log-format", "json"]) == 0
    line = json.loads(capsys.readouterr().err)
    assert line["level"].lower() == "warning"
    assert line["logger"].startswith("mcp_manager.config")
    assert "request_timeout_s" in line["message"]
