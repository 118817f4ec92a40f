"""The command line: what it prints, what it exits with, and that it leaves nothing running."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.orphans import no_orphans
from support.processes import unused_port

import mcp_manager
from mcp_manager.cli import main
from mcp_manager.cli.demo import Demo
from mcp_manager.cli.demo_servers.processes import stdio_server_config

COMMAND = [sys.executable, "-P", "-W", "error", "-m", "mcp_manager"]
SERVERS = ("alpha", "beta", "gamma", "delta", "epsilon")


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A file with a server that works, one out of reach, one that crashes and one that is suspended."""
    servers = {
        "works": {**stdio_server_config(), "name": "The one", "tags": ["demo"], "instances": 2},
        "gone": {"url": f"http://127.0.0.1:{unused_port()}/mcp", "auth": {"type": "bearer", "token": "s3cr3t"}},
        "crashes": {
            "command": sys.executable,
            "args": ["-c", "import sys; sys.exit('\\x1b[31mlicence\\nexpired')", "s3cr3t"],
            "env": {"KEY": "s3cr3t"},
        },
        "later": {"url": "http://127.0.0.1:9/mcp", "instances": 0},
    }
    return write(tmp_path / "fleet.json", {"servers": servers})


@pytest.fixture
def working(tmp_path: Path) -> Path:
    """A file with one server, which works."""
    return write(tmp_path / "working.json", {"servers": {"works": stdio_server_config()}})


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def first_child(pid: int) -> int:
    """Wait until a process has a child, and return that child's process id."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        children = psutil.Process(pid).children()
        if children:
            return children[0].pid
        time.sleep(0.01)
    raise AssertionError("the process started no child")


def assert_plain(text: str) -> None:
    """Require what a pipe is owed: no escape codes, and no blanks at the ends of lines."""
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def rows_of(text: str) -> dict[str, list[str]]:
    """Read the rows of a printed table by their first column."""
    body = re.split(r"^SERVER +[A-Z].*\n", text, maxsplit=1, flags=re.MULTILINE)[1].split("\n\n")[0]
    return {line.split()[0]: line.split()[1:] for line in body.splitlines()}


# The demonstration


@pytest.mark.slow
def test_the_demo_shows_what_it_claims(tmp_path: Path) -> None:
    with no_orphans():
        done = subprocess.run([*COMMAND, "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert_plain(done.stdout)

    chapters = re.split(r"\n\d\. ", done.stdout)
    normal, dead, back, replaced = (rows_of(chapter) for chapter in chapters[1:])
    for table in (normal, dead, back, replaced):
        assert tuple(table) == SERVERS
    for table, victim in ((normal, ""), (dead, "beta"), (back, "beta"), (replaced, "delta")):
        for server, (transport, state, circuit, succeeded, failed, *_) in table.items():
            assert transport == ("stdio" if server in ("delta", "epsilon") else "http")
            assert int(succeeded) > 0
            if server != victim:
                assert (state, circuit, failed) == ("Healthy", "Closed", "0"), (server, table)
    assert dead["beta"][1:3] == ["Unhealthy", "Open"]
    assert re.search(r"\d+ not_sent, \d+ unknown", " ".join(dead["beta"]))
    assert back["beta"][1:3] == ["Healthy", "Closed"]
    assert int(replaced["delta"][4]) > 0

    # In one line, or on a busy machine in two.
    assert re.search(r"beta +(?:.+, )?circuit Closed → Open", done.stdout)
    assert re.search(r"beta +(?:.+, )?Healthy → Unhealthy", done.stdout)
    assert re.search(r"beta +circuit Open → HalfOpen", done.stdout)
    assert re.search(r"beta +circuit HalfOpen → Closed", done.stdout)
    children = re.findall(r"delta +child process (\d+) answers", done.stdout)
    assert len(set(children)) == 2
    claims = re.findall(r"^  (yes|no ) ", done.stdout, re.MULTILINE)
    assert len(claims) == 12
    assert set(claims) == {"yes"}


@pytest.mark.slow
async def test_the_demo_fails_if_the_server_does_not_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    status = await Demo(restart=False, phase_s=0.4, patience_s=5.0).run()
    shown = capsys.readouterr()
    assert status == 1
    assert re.search(r"^  no   it recovered by itself", shown.out, re.MULTILINE)
    assert shown.err.startswith("mcp-manager: 2 of 12 claims did not hold")


async def test_the_demo_gives_up_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert await Demo(limit_s=1.0).run() == 1
    assert capsys.readouterr().err == "mcp-manager: the demonstration was not over within 1 s\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals, status: int) -> None:
    with (
        no_orphans(),
        subprocess.Popen([*COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo,
    ):
        assert demo.stdout is not None
        assert demo.stderr is not None
        for line in demo.stdout:
            if "SIGKILL" in line:
                break
        demo.send_signal(number)
        assert (demo.wait(15), demo.stderr.read()) == (status, "")


def test_a_reader_that_has_seen_enough_ends_the_demo_quietly() -> None:
    with (
        no_orphans(),
        subprocess.Popen([*COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo,
    ):
        assert demo.stdout is not None
        assert demo.stderr is not None
        demo.stdout.readline()
        demo.stdout.close()
        assert (demo.wait(15), demo.stderr.read()) == (1, "")


# The verbs of a fleet


def test_check_tells_who_can_be_reached(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(fleet)]) == 1
    shown = capsys.readouterr()
    rows = rows_of(shown.out)
    assert {server: row[1:3] for server, row in rows.items()} == {
        "works": ["yes", "2/2"],
        "gone": ["no", "0/1"],
        "crashes": ["no", "0/1"],
        "later": ["suspended", "0/0"],
    }
    assert rows["works"][3] == "2025-11-25"
    assert_plain(shown.out)
    problems = " ".join(shown.out.split())
    assert re.search(
        r"^  gone: cannot connect to http://127\.0\.0\.1:\d+: Connection refused \(check that the server runs, and its url\)$",
        shown.out,
        re.M,
    )
    assert "crashes: the server process exited with status 1 (its stderr ends: licence | expired)" in problems
    assert shown.err == ""


def test_check_of_a_fleet_that_works(working: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(working), "--json"]) == 0
    (server,) = json.loads(capsys.readouterr().out)
    assert (server["id"], server["reachable"], server["state"]) == ("works", True, "Healthy")
    assert server["connect_ms"] > 0


def test_check_connects_also_what_is_lazy(tmp_path: Path) -> None:
    lazy = {**stdio_server_config(), "connect": "lazy"}
    assert main(["check", str(write(tmp_path / "lazy.json", {"servers": {"works": lazy}}))]) == 0


def starting_after(seconds: float, **settings: object) -> dict[str, object]:
    """Configure a server that answers after that long, and for which a deployment waits a tenth of a second."""
    module = "mcp_manager.cli.demo_servers.stdio_server"
    code = f"import runpy, time; time.sleep({seconds}); runpy.run_module({module!r}, run_name='__main__')"
    return {"command": sys.executable, "args": ["-P", "-c", code], "connect_timeout_s": 0.1, **settings}


@pytest.mark.slow
def test_check_waits_for_programs_that_are_still_starting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    servers = {"slow": starting_after(1.0), "stuck": starting_after(300, start_timeout_s=2)}
    assert main(["check", str(write(tmp_path / "slow.json", {"servers": servers}))]) == 1
    shown = capsys.readouterr()
    rows = rows_of(shown.out)
    assert rows["slow"][1:3] == ["yes", "1/1"]
    assert float(rows["slow"][4].replace(",", "")) > 1000
    assert rows["stuck"][1:3] == ["no", "0/1"]
    assert "mcp-manager: slow is still starting; waiting up to 60 s (start_timeout_s)\n" in shown.err
    assert "mcp-manager: stuck is still starting; waiting up to 2 s (start_timeout_s)\n" in shown.err
    assert "stuck: no handshake within start_timeout_s (2 s)" in shown.out


@pytest.mark.slow
def test_tools_and_call_wait_for_a_program_that_is_still_starting(tmp_path: Path) -> None:
    slow = starting_after(1.0, request_timeout_s=0.3)
    path = str(write(tmp_path / "slow.json", {"servers": {"slow": slow}}))
    assert main(["tools", path]) == 0
    assert main(["call", path, "slow", "ping"]) == 0
    assert main(["call", path, "slow", "ping", "--timeout", "0.3"]) == 1


def test_list_neither_connects_nor_tells_secrets(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(fleet)]) == 0
    table = capsys.readouterr().out
    assert_plain(table)
    assert list(rows_of(table)) == ["works", "gone", "crashes", "later"]
    assert main(["list", str(fleet), "--json"]) == 0
    listed = capsys.readouterr().out
    assert json.loads(listed)[0] == {
        "id": "works",
        "name": "The one",
        "server_type": "mcp",
        "transport": "stdio",
        "where": sys.executable,
        "instances": 2,
        "priority": 0,
        "tags": ["demo"],
        "enabled": True,
    }
    assert "s3cr3t" not in table + listed


def test_status_shows_states_and_why(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(fleet)]) == 1
    table = capsys.readouterr().out
    assert_plain(table)
    rows = rows_of(table)
    assert rows["works"][:3] == ["Healthy", "Closed", "2/2"]
    assert rows["gone"][0] == "Unhealthy"
    assert rows["later"][0] == "Stopped"
    assert main(["status", str(fleet), "--json"]) == 1
    states = {server["id"]: server["state"] for server in json.loads(capsys.readouterr().out)}
    assert states == {"works": "Healthy", "gone": "Unhealthy", "crashes": "Unhealthy", "later": "Stopped"}


def test_tools_of_one_server(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", str(fleet), "works"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2) for line in lines[1:]] == [
        ["works", "echo", "Return the text."],
        ["works", "add", "Add two numbers."],
        ["works", "sleep", "Answer after the given seconds, at most 300."],
    ]


def test_tools_of_all_are_listed_although_some_servers_fail(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", str(fleet), "--json"]) == 1
    shown = capsys.readouterr()
    assert [
        (each["server_id"], each.get("name"), each.get("error", {}).get("type")) for each in json.loads(shown.out)
    ] == [
        ("works", "echo", None),
        ("works", "add", None),
        ("works", "sleep", None),
        ("gone", None, "ConnectError"),
        ("crashes", None, "ServerExitedError"),
    ]
    assert shown.err == ""
    assert main(["tools", str(fleet)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith("mcp-manager: Execution failed on server 'gone': ")
    assert errors[1].startswith("mcp-manager: Execution failed on server 'crashes': ")


def test_call_prints_the_response(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = '{"name": "add",\n "arguments": {"a": 12345678901234567890, "b": 0}}'
    assert main(["call", str(fleet), "works", "tools/call", params]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["result"]["content"][0]["text"] == "12345678901234567890"
    assert (shown.out.count("\n"), shown.err) == (1, "")


def test_call_of_a_method_the_server_lacks_prints_its_error(working: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", str(working), "works", "no/such"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == -32601


def test_call_of_a_notification_prints_null(working: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", str(working), "works", "notifications/message", "{}"]) == 0
    assert capsys.readouterr().out == "null\n"


def test_an_interrupted_call_ends_with_its_server(working: Path, tmp_path: Path) -> None:
    # A process started in the background may inherit that SIGINT is ignored, so the default is set.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from mcp_manager.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    params = '{"name": "sleep", "arguments": {"seconds": 60}}'
    command = [sys.executable, "-P", "-W", "error", "-c", program, "call", str(working), "works", "tools/call", params]
    with (
        no_orphans(),
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as call,
    ):
        child = first_child(call.pid)
        call.send_signal(signal.SIGINT)
        assert (call.wait(15), *call.communicate()) == (130, "", "")
        assert not psutil.pid_exists(child)


# Errors


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["call", "FLEET", "gone", "ping"], 1, r"Execution failed on server 'gone': .*Connection refused.*not_sent"),
        (["call", "FLEET", "crashes", "ping"], 1, r"exited with status 1 .*licence \| expired"),
        (["call", "FLEET", "works", "tools/call", '{"name": "sleep", "arguments": {"seconds": 9}}', "--timeout", "0.8"],
         1, r"delivery: unknown"),
        (["call", "FLEET", "later", "ping"], 1, r"suspended"),
        (["call", "FLEET", "nobody", "ping"], 2, r"Server nobody not found \(configured: works, gone, crashes, later\)"),
        (["tools", "FLEET", "nobody"], 2, r"Server nobody not found"),
        (["call", "FLEET", "works", "ping", "{"], 2, r"Invalid request: PARAMS_JSON is not JSON"),
        (["call", "FLEET", "works", "ping", "[" * 100_000], 2, r"Invalid request"),
        (["call", "FLEET", "works", "ping", "3"], 2, r"Invalid request: params"),
        (["call", "FLEET", "works", "ping", "\udcff"], 2, r"Invalid request: .*UTF-8"),
        (["call", "FLEET", "works", "ping", "--timeout", "nan"], 2, r"--timeout"),
        (["check", "no-such-file.toml"], 2, r"no-such-file\.toml: cannot be read: No such file"),
        (["check", "\x1b[31m.toml"], 2, r"\.toml: cannot be read"),
        (["list", "README"], 2, r"must end in \.json"),
        (["frobnicate"], 2, r"no such command 'frobnicate' \(see mcp-manager --help\)"),
        ([], 2, r"nothing to do: try mcp-manager demo.*--help"),
        (["call", "FLEET"], 2, r"missing argument SERVER, .* \(see mcp-manager call --help\)"),
        (["call", "FLEET", "works"], 2, r"missing argument: the name of a tool or method"),
        (["call", "FLEET", "works", "ping", "{}", "{}"], 2, r"unexpected argument '{}'"),
        (["chekc", "FLEET"], 2, r"did you mean 'check'\?"),
        (["check", "FLEET", "--jsno"], 2, r"did you mean '--json'\?"),
        (["check", "FLEET", "works"], 2, r"unexpected extra argument"),
        (["tools", "FLEET", "works", "echo"], 2, r"unexpected argument 'echo'"),
        (["tools", "FLEET", "wroks"], 2, r"Server wroks not found \(did you mean works\?"),
        (["tools", "--"], 2, r"give the command line of a program after --"),
        (["tools", "FLEET", "--env", "A"], 2, r"--env is for the program of a command line"),
        (["status", "FLEET", "--watch", "--snapshot"], 2, r"exclude each other"),
        (["logs", "FLEET"], 2, r"missing argument SERVER: one of works, gone, crashes, later"),
        (["login", "FLEET"], 2, r"missing argument SERVER: no server in .* has auth\.type = \"oauth\""),
        (["completion", "csh"], 2, r"'csh' is not one of"),
        (["demo", "--fast"], 2, r"no such option"),
        (["bench"], 2, r"not installed any more: run python -m benchmarks at the root of a checkout"),
        (["bench", "--quick", "--case", "json/100/16"], 2, r"run python -m benchmarks"),
        (["bench", "--help"], 2, r"run python -m benchmarks"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_on_standard_error(
    fleet: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert main([str(fleet) if each == "FLEET" else each for each in arguments]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(rf"(?i)mcp-manager: .*{message}.*\n", shown.err), shown.err
    assert "\x1b" not in shown.err


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"servers": {"a": {"url": "ftp://host/"}}}, r"servers\.a\.url"),
        ({"servers": {"a": {"url": "http://host/mcp", "priority": 300}}}, r"servers\.a\.priority"),
        ({"servers": {"a": {}}}, r"servers\.a"),
        ({"nothing": 1}, r"none of the known tables"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "list", "status", "tools"])
def test_a_malformed_config_is_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, document: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "bad.json", document)
    assert main([verb, str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(rf"mcp-manager: {path}(:\d+:\d+)?: .*{message}.*\n", shown.err), shown.err


def test_a_fleet_of_none_is_said_to_be_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "empty.json", {"servers": {}})
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"no servers in {path}\n"


# The program


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mcp-manager {mcp_manager.__version__}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "Begin with: mcp-manager demo." in shown
    for verb in ("demo", "check", "doctor", "list", "status", "tools", "resources", "prompts", "call", "logs", "login"):
        assert f"\n  {verb} " in shown
    assert "bench" not in shown


def test_the_console_script_is_this_main() -> None:
    scripts = [each for each in entry_points(group="console_scripts") if each.name == "mcp-manager"]
    if not scripts:
        pytest.skip("the package is not installed, only on the path")
    assert scripts[0].load() is main


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_colours_are_for_terminals_without_no_color(working: Path, terminal: tuple[int, int], no_colour: str) -> None:
    reading, writing = terminal
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": no_colour}
    subprocess.run([*COMMAND, "check", str(working)], stdout=writing, env=environment, timeout=30, check=True)
    shown = os.read(reading, 65536).decode()
    assert ("\x1b[32myes" in shown) is (no_colour == "")
    assert ("\x1b" in shown) is (no_colour == "")
