"""The command line in a pseudo-terminal: width, colours, progress, the watched table, and how it leaves the terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.orphans import no_orphans
from support.processes import PROGRAMS, unused_port
from support.terminal import COMMAND, Terminal, shown_at

from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.cli.status_watch import first_of, worst_first

# The narrowest in every run, the others with the slow tests.
WIDTHS = (60, *(pytest.param(columns, marks=pytest.mark.slow) for columns in (80, 140)))
DESCRIBED = {"command": sys.executable, "args": [str(PROGRAMS / "described_stdio.py")]}
LONG_ID = "a-server-with-a-rather-long-identifier"


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    """A file with a server that works, a hostile one, one out of reach, one that crashes and one that is suspended."""
    crash = "import sys; sys.exit('\\x1b[31mlicence\\nexpired')"
    return write(
        tmp_path,
        {
            "works": {**stdio_server_config(), "name": "The one", "tags": ["demo"], "instances": 2},
            "hostile": DESCRIBED,
            "gone": {"url": f"http://127.0.0.1:{unused_port()}/mcp"},
            "crashes": {"command": sys.executable, "args": ["-c", crash]},
            LONG_ID: {"url": "http://127.0.0.1:9/a/rather/long/path/of/an/endpoint/mcp", "instances": 0},
        },
    )


def write(folder: Path, servers: dict[str, Any]) -> str:
    path = folder / "fleet.json"
    path.write_text(json.dumps({"servers": servers}), encoding="utf-8")
    return str(path)


def words_of(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


# Width


@pytest.mark.slow
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("verb", ["check", "list", "status", "tools", "resources", "prompts", "doctor"])
def test_nothing_leaves_the_terminal_and_no_id_is_broken(fleet: str, verb: str, columns: int) -> None:
    lines = shown_at(columns, verb, fleet, status=0 if verb == "list" else 1)
    shown = words_of(lines)
    assert (LONG_ID if verb in ("check", "list", "status", "doctor") else "hostile") in shown.split()
    # Texts of servers are there as they are, without their escape codes.
    if verb == "tools":
        assert "[bold red]not markup[/] [link=http://evil] :smile: [/nothing]" in shown
        assert "工具🚀" in shown
    if verb in ("check", "status", "tools"):
        assert "licence | expired" in shown


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize(
    "arguments",
    [
        ["call", "--help"],
        *(pytest.param([*each], marks=pytest.mark.slow) for each in (["--help"], ["help"], ["help", "limitations"])),
    ],
)
def test_help_fits_the_terminal(arguments: list[str], columns: int) -> None:
    assert len(shown_at(columns, *arguments)) > 10


@pytest.mark.parametrize("columns", WIDTHS)
def test_errors_are_wrapped(fleet: str, columns: int) -> None:
    lines = shown_at(columns, "call", fleet, "nobody", "echo", status=2)
    assert words_of(lines).endswith(f"(configured: works, hostile, gone, crashes, {LONG_ID})")


@pytest.mark.slow
def test_a_table_is_a_list_of_blocks_where_it_does_not_fit(fleet: str) -> None:
    assert shown_at(140, "list", fleet)[0].split()[0] in ("SERVER", "works")
    assert shown_at(60, "list", fleet)[:4] == [
        "works",
        "  type: mcp  transport: stdio  instances: 2  priority: 0",
        "  name: The one",
        f"  where: {sys.executable}",
    ]


@pytest.mark.slow
def test_long_descriptions_are_shortened_with_a_mark_unless_all_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, {"hostile": DESCRIBED})
    short = "".join(shown_at(80, "tools", path))
    assert ("…" in short, short.count("w") < 190) == (True, True)
    assert "--full" in short
    whole = "".join(shown_at(80, "tools", path, "--full"))
    assert ("…" in whole, whole.count("w") >= 190) == (False, True)
    assert "--full" not in "".join(shown_at(80, "tools", path, "--quiet"))


# Colours


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        pytest.param({"TERM": "dumb"}, False, marks=pytest.mark.slow),
        pytest.param({"FORCE_COLOR": "0"}, False, marks=pytest.mark.slow),
    ],
)
def test_colours_are_for_terminals_that_want_them(tmp_path: Path, environment: dict[str, str], coloured: bool) -> None:
    path = write(tmp_path, {"works": stdio_server_config()})
    with Terminal([*COMMAND, "check", path], 80, environment=environment) as terminal:
        assert terminal.finish() == 0
        assert (b"\x1b[32myes" in terminal.raw) is coloured
        assert (b"\x1b[3" in terminal.raw) is coloured
        assert "yes" in terminal.text


@pytest.mark.parametrize(("force", "coloured"), [pytest.param("", False, marks=pytest.mark.slow), ("1", True)])
def test_a_pipe_is_coloured_if_that_is_forced(tmp_path: Path, force: str, coloured: bool) -> None:
    path = write(tmp_path, {"works": stdio_server_config()})
    environment = {**os.environ, "NO_COLOR": "", "FORCE_COLOR": force}
    done = subprocess.run([*COMMAND, "check", path], env=environment, capture_output=True, timeout=30, check=True)
    assert (b"\x1b[32myes\x1b[0m" in done.stdout) is coloured
    assert done.stderr == b""
    # One line for each row all the same.
    assert len(done.stdout.splitlines()) == 2


# Progress


def test_progress_is_shown_while_servers_start_and_is_gone_at_the_end(tmp_path: Path) -> None:
    slow = {**DESCRIBED, "args": [*DESCRIBED["args"], "--slow", "1.2"]}
    path = write(tmp_path, {"works": stdio_server_config(), "slow": slow})
    with Terminal([*COMMAND, "check", path], 60) as terminal:
        terminal.wait_until(lambda it: "1 of 2 up, waiting for slow" in it.text)
        assert terminal.finish() == 0
        assert (terminal.overflowing, terminal.is_restored) == ([], True)
        assert "waiting" not in terminal.text
        assert "still starting" not in terminal.text


@pytest.mark.slow
def test_progress_of_a_call_is_shown(tmp_path: Path) -> None:
    with Terminal([*COMMAND, "call", write(tmp_path, {"it": DESCRIBED}), "it", "slow"], 80) as terminal:
        terminal.wait_until(lambda it: "it: 1 of 2, half [31mred [0m ]0;title 2J bell back tab line break" in it.text)
        assert terminal.finish() == 0
        assert (terminal.text, terminal.overflowing, terminal.is_restored) == ("", [], True)


@pytest.mark.slow
def test_progress_is_not_shown_if_it_is_to_be_quiet(tmp_path: Path) -> None:
    slow = {**DESCRIBED, "args": [*DESCRIBED["args"], "--slow", "0.8"]}
    with Terminal([*COMMAND, "check", write(tmp_path, {"slow": slow}), "--quiet"], 60) as terminal:
        assert terminal.finish() == 0
        assert b"waiting" not in terminal.raw
        assert b"\x1b[?25l" not in terminal.raw


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_signal_ends_what_is_starting_and_restores_the_terminal(tmp_path: Path, number: signal.Signals) -> None:
    slow = {**DESCRIBED, "args": [*DESCRIBED["args"], "--slow", "60"]}
    with no_orphans(), Terminal([*COMMAND, "check", write(tmp_path, {"slow": slow})], 60) as terminal:
        terminal.wait_until(lambda it: "waiting for slow" in it.text)
        children = psutil.Process(terminal.process.pid).children()
        status = terminal.finish(number)
        assert status == (130 if number is signal.SIGINT else -number)
        assert terminal.is_restored
        assert "Traceback" not in terminal.text
        assert [child for child in children if child.is_running()] == []


# The watched table


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_watched_table_fits_and_ends_with_a_key(fleet: str, columns: int) -> None:
    with no_orphans(), Terminal([*COMMAND, "status", fleet, "--watch"], columns) as terminal:
        terminal.wait_until(lambda it: "2/2" in it.text and it.text.count("Unhealthy") >= 3)
        assert terminal.overflowing == []
        head, titles, *rows = terminal.display
        assert "2 Unhealthy, 1 Stopped, 2 Healthy" in head
        assert titles.split()[:3] == ["SERVER", "STATE", "READY"]
        assert [row.split()[0] for row in rows[:4]] == ["works", "hostile", "gone", "crashes"]
        terminal.type("q")
        assert terminal.finish() == 0
        assert terminal.is_restored


@pytest.mark.slow
def test_the_watched_table_follows_the_states_and_the_size(tmp_path: Path) -> None:
    path = write(tmp_path, {"works": {**stdio_server_config(), "restart": {"initial_s": 1.0}}})
    with Terminal([*COMMAND, "status", path, "--watch"], 80) as terminal:
        terminal.wait_until(lambda it: "1 Healthy" in it.text)
        terminal.resize(40, 24)
        for child in psutil.Process(terminal.process.pid).children():
            child.kill()
        terminal.wait_until(lambda it: "0/1" in it.text)
        terminal.wait_until(lambda it: "1/1" in it.text)
        # What was drawn before the program knew of the new size is blanked; the next drawing fits.
        terminal.resize(40, 24)
        drawn = len(terminal.raw)
        terminal.wait_until(lambda it: len(it.raw) > drawn)
        assert terminal.overflowing == []
        terminal.type("q")
        assert terminal.finish() == 0


@pytest.mark.slow
def test_the_worst_are_shown_first_if_not_all_fit(tmp_path: Path) -> None:
    servers: dict[str, Any] = {f"asleep{index}": {"url": "http://h/mcp", "instances": 0} for index in range(20)}
    servers["gone"] = {"url": f"http://127.0.0.1:{unused_port()}/mcp"}
    with Terminal([*COMMAND, "status", write(tmp_path, servers), "--watch"], 80, lines=10) as terminal:
        terminal.wait_until(lambda it: it.display[2:3] != [] and it.display[2].split()[:2] == ["gone", "Unhealthy"])
        head, _, first, *_, last = terminal.display
        assert "20 Stopped" in head
        assert first.startswith("gone ")
        assert last == "and 14 more, in no worse state"
        assert len(terminal.display) == 10
        terminal.type("q")
        assert terminal.finish() == 0


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_the_watched_table_and_restores_the_terminal(tmp_path: Path, number: signal.Signals) -> None:
    path = write(tmp_path, {"works": stdio_server_config()})
    with no_orphans(), Terminal([*COMMAND, "status", path, "--watch"], 80) as terminal:
        terminal.wait_until(lambda it: "1 Healthy" in it.text)
        assert not terminal.is_restored
        assert terminal.finish(number) == (130 if number is signal.SIGINT else -number)
        assert terminal.is_restored


@pytest.mark.slow
def test_control_c_ends_the_watched_table(tmp_path: Path) -> None:
    path = write(tmp_path, {"works": stdio_server_config()})
    with no_orphans(), Terminal([*COMMAND, "status", path, "--watch"], 80) as terminal:
        terminal.wait_until(lambda it: "1 Healthy" in it.text)
        terminal.type("\x03")
        assert terminal.finish() == 130
        assert terminal.is_restored


@pytest.mark.slow
def test_in_a_pipe_every_change_is_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, {"works": {**stdio_server_config(), "restart": {"initial_s": 1.0}}})
    command = [*COMMAND, "status", path, "--watch", "--json"]
    with no_orphans(), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        changes = map(json.loads, watch.stdout)
        up = next(each for each in changes if each["ready"])
        psutil.Process(up["pids"][0]).kill()
        down = next(each for each in changes if not each["ready"])
        again = next(each for each in changes if each["ready"])
        assert [each["id"] for each in (up, down, again)] == ["works"] * 3
        assert again["pids"] != up["pids"]
        # Whoever read it has seen enough: the next change ends it.
        watch.stdout.close()
        psutil.Process(again["pids"][0]).kill()
        assert (watch.wait(15), watch.stderr.read()) == (1, "")


@pytest.mark.slow
def test_the_order_of_views_is_kept_within_a_state(tmp_path: Path) -> None:
    path = write(tmp_path, {name: {"url": "http://h/mcp", "instances": 0} for name in "cab"})
    done = subprocess.run([*COMMAND, "status", path], capture_output=True, text=True, timeout=30, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["c", "a", "b"]
    assert worst_first([]) == []


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        ("Invalid config file /a: b/fleet.toml: cannot be read: gone", "cannot be read: gone"),
        ("Invalid config file /a: b/fleet.toml:3:1: servers.a: missing", "fleet.toml:3:1: servers.a: missing"),
        (
            "Invalid config file /a: b/fleet.toml: 3 problems\n/a: b/fleet.toml:2:1: first\n/a: b/fleet.toml:3:1: next",
            "fleet.toml:2:1: first (and 2 more)",
        ),
        ("/a: b/fleet.toml: cannot be read", "/a: b/fleet.toml: cannot be read"),
    ],
)
def test_of_a_file_that_is_not_applied_the_first_problem_is_told(problem: str, told: str) -> None:
    assert first_of(problem, "/a: b/fleet.toml") == told
