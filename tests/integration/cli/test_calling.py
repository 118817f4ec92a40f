"""``call`` and ``logs``: tools and methods, what is printed of a result, and what a program writes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.orphans import no_orphans
from support.processes import PROGRAMS, HttpServerProcess, fastmcp_http
from support.terminal import COMMAND, Terminal

from mcp_manager.cli import main
from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.events.child_output import logger_name
from mcp_manager.testing import FaultyServer, Tool

PROGRAM = [sys.executable, str(PROGRAMS / "described_stdio.py")]


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    path = tmp_path / "fleet.json"
    servers = {"it": {"command": PROGRAM[0], "args": PROGRAM[1:]}}
    path.write_text(json.dumps({"servers": servers}), encoding="utf-8")
    return str(path)


def call(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Run ``call`` with the server alone, named by its command line; return what it prints."""
    assert main(["call", *arguments, "--", *PROGRAM]) == status
    return capsys.readouterr().out


def test_arguments_arrive_as_the_schema_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("from a file", encoding="utf-8")
    words = [f"text=@{path}", "whole=1", "number=2.5", "flag=true", "nothing=null", "list=1", "list=2"]
    more = ['object={"a": null}', "colour=green", "maybe=null", 'any:={"b": 1}', "new=x"]
    assert json.loads(call(capsys, "values", *words, *more)) == {
        "text": "from a file",
        "whole": 1,
        "number": 2.5,
        "flag": True,
        "nothing": None,
        "list": [1, 2],
        "object": {"a": None},
        "colour": "green",
        "maybe": None,
        "any": {"b": 1},
        "new": "x",
    }
    assert json.loads(call(capsys, "values", '{"text": "all", "at": "once"}')) == {"text": "all", "at": "once"}


def test_what_is_printed_of_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "blocks") == (
        "first line\nsecond line\n[image: image/png, 5 bytes]\n[audio: audio/wav, malformed]\n[resource: file:///a]\n"
        "embedded\n[resource: file:///c, 5 bytes]\n[new_kind]\n"
    )
    assert json.loads(call(capsys, "structured")) == {"answer": 42}
    assert call(capsys, "工具🚀") == ""
    assert main(["call", "failing", "--", *PROGRAM]) == 1
    shown = capsys.readouterr()
    assert shown.out == "it went wrong\n"
    assert shown.err == "mcp-manager: the tool failing of server 'described_stdio' failed: isError is set\n"


def test_what_helps_a_tool_that_failed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    failing = Tool(is_error=True, result="elicitation via server-initiated requests is unavailable")
    with FaultyServer("stateless", {"ask": failing}) as server:
        assert main(["call", server.url, "ask"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "elicitation via server-initiated requests is unavailable\n"
    assert 'failed: isError is set (set protocol_version = "handshake"' in shown.err


def test_what_a_server_says_does_not_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "hostile")
    assert not {"\x1b", "\x9b", "\x07", "\b", "\r", "\u202e", "\u200b"} & set(shown)
    assert "[bold red]not markup[/]" in shown
    assert shown.count("\n") == 2
    status = main(["call", "no/such", "--", *PROGRAM])
    assert (status, "\x1b" in capsys.readouterr().out) == (1, False)


@pytest.mark.slow
def test_a_reply_is_escaped_on_a_terminal_and_passed_on_in_a_pipe(fleet: str) -> None:
    arguments = ["call", fleet, "it", "tools/call", '{"name": "hostile"}']
    with Terminal([*COMMAND, *arguments], 80) as terminal:
        assert terminal.finish() == 0
        assert b"\\u001b[31mred" in terminal.raw
        assert b"\x1b[31mred" not in terminal.raw
        assert "\\u202e" in terminal.text
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["result"]["content"][0]["text"].startswith("\x1b[31mred")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["valeus"], "Tool valeus not found (did you mean values?)"),
        (["zzz"], "Tool zzz not found (its tools: values, blocks, structured, failing, hostile, "),
        (["values"], "missing: text (text) (its arguments: text, [whole],"),
        (["values", "text"], "'text' is not key=value"),
        (["values", "text=a", "whole=x"], "whole must be a whole number, not 'x'"),
        (["tools/list", "--tool"], "Tool tools/list not found"),
        (["ping", "a=1"], "Tool ping not found"),
    ],
)
def test_a_mistake_is_told_before_anything_is_called(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["call", *arguments, "--", *PROGRAM]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert shown.err.count("\n") == 1


def test_a_method_can_be_any(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(call(capsys, "ping"))["result"] == {}
    assert json.loads(call(capsys, "values", "--method", status=1))["error"]["code"] == -32601
    assert json.loads(call(capsys, "resources/list"))["result"]["resources"][0]["name"] == "r"


def test_a_url_stands_for_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with fastmcp_http() as server:
        assert main(["call", server.url, "echo", "text=from a URL"]) == 0
        assert "from a URL" in capsys.readouterr().out
        assert main(["tools", server.url]) == 0
        assert "echo" in capsys.readouterr().out
        assert main(["check", server.url]) == 0
    assert main(["check", server.url]) == 1


# Logs


def test_logs_end_when_the_server_is_up_or_has_failed(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", fleet, "it"]) == 0
    capsys.readouterr()
    assert main(["logs", "--", sys.executable, "-c", "import sys; sys.exit('\x1b[31mno licence')"]) == 1
    assert "no licence" in capsys.readouterr().err


TALKS = "import sys, runpy; print('\\x1b[31mmany', 'words', file=sys.stderr); print('half', end='', file=sys.stderr)"
ENDS = f"{TALKS}; sys.exit(3)"
SERVES = f"{TALKS}; runpy.run_module('mcp_manager.cli.demo_servers.stdio_server', run_name='__main__')"
ODD_ID = "a.b c/ä"


def one_program(tmp_path: Path, code: str) -> str:
    server = {**stdio_server_config(), "command": sys.executable, "args": ["-c", code]}
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({"servers": {ODD_ID: server}}), encoding="utf-8")
    return str(path)


def test_the_log_has_what_the_program_writes_and_the_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", one_program(tmp_path, ENDS), ODD_ID]) == 1
    lines = [line.split(" ", 1)[1].strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith(f"info    server {ODD_ID!r} deployed")
    assert lines[1:3] == ["|       many words", "|       half"]
    # What a program has written comes before its end.
    assert lines.index("|       half") < next(
        i for i, line in enumerate(lines) if "could not start its program" in line
    )
    assert any(line.startswith(f"warning server {ODD_ID!r} is Unhealthy") for line in lines)


def test_the_log_as_json_has_one_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = one_program(tmp_path, SERVES)
    assert main(["logs", path, ODD_ID, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["logs", path, ODD_ID, "--log-format", "json"]) == 0
    assert [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()][:2] == [
        line["message"] for line in lines[:2]
    ]
    said = next(line for line in lines if line.get("event") == "child_output")
    assert said["logger"] == logger_name(ODD_ID)
    assert (said["message"], said["server_id"], said["level"], said["instance"]) == ("many words", ODD_ID, "DEBUG", 0)
    assert "server_deployed" in [line["event"] for line in lines]
    assert all(line["time"].endswith("Z") for line in lines)


def test_no_line_of_a_program_that_writes_much_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = "import sys; [print('line', each, file=sys.stderr) for each in range(20_000)]"
    path = one_program(tmp_path, f"{many}; {SERVES}")
    assert main(["logs", path, ODD_ID]) == 0
    found = re.findall(r"line (\d+)$", capsys.readouterr().out, re.MULTILINE)
    assert found == [str(number) for number in range(20_000)]


def test_lines_of_programs_are_shown_once_at_the_lowest_level(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", one_program(tmp_path, SERVES), ODD_ID, "--log-level", "debug"]) == 0
    assert capsys.readouterr().out.count("many words") == 1


def test_following_ends_with_control_c(fleet: str) -> None:
    command = [*COMMAND, "logs", fleet, "it", "--follow"]
    with no_orphans(), Terminal(command, 80) as terminal:
        terminal.wait_until(lambda it: "running it; Ctrl-C ends it" in it.text)
        assert terminal.finish(signal.SIGINT) == 130
        assert terminal.is_restored
        assert "Traceback" not in terminal.text


@pytest.mark.slow
def test_the_server_of_the_sdk_is_called(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with HttpServerProcess("sdk_http.py") as server:
        assert main(["call", server.url, "echo", "text=said", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["content"][0]["text"] == "said"
