"""``status --watch`` follows its file: what changes is applied, also at once by SIGHUP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.orphans import no_orphans
from support.terminal import COMMAND, Terminal

from mcp_manager.cli.demo_servers.processes import stdio_server_config

ASLEEP = {"url": "http://127.0.0.1:9/mcp", "instances": 0}


def write(path: Path, text: str) -> None:
    """Replace a file in one step."""
    path.with_suffix(".part").write_text(text, encoding="utf-8")
    path.with_suffix(".part").replace(path)


def fleet(*ids: str, **servers: Any) -> str:
    return json.dumps({"servers": {**dict.fromkeys(ids, ASLEEP), **servers}})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.json"
    write(path, fleet("one"))
    return path


@pytest.fixture
def watch(path: Path) -> Iterator[subprocess.Popen[str]]:
    """``status --watch --json`` of a fleet of one server, which has been shown."""
    command = [*COMMAND, "status", str(path), "--watch", "--json"]
    with no_orphans(), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["id"] == "one"
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == -signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.slow
def test_a_file_that_changes_is_applied(watch: subprocess.Popen[str], path: Path) -> None:
    assert watch.stdout is not None
    write(path, fleet("one", works=stdio_server_config()))
    changes = map(json.loads, watch.stdout)
    assert next(each for each in changes if each.get("ready"))["id"] == "works"
    write(path, fleet("one"))
    removal = next(each for each in changes if each.get("removed"))
    assert removal.keys() == {"time", "id", "removed"}
    assert removal["id"] == "works"


def test_a_hangup_reads_the_file_at_once_and_a_bad_one_changes_nothing(
    watch: subprocess.Popen[str], path: Path
) -> None:
    assert watch.stderr is not None
    write(path, '{"servers": {"one": {"url": 5}}}')
    said = watch.stderr.readline()
    assert "was not applied, nothing was changed" in said
    assert "servers.one.url" in said
    watch.send_signal(signal.SIGHUP)
    assert watch.stderr.readline() == said


@pytest.mark.slow
def test_the_table_tells_that_a_file_was_not_applied(path: Path) -> None:
    with no_orphans(), Terminal([*COMMAND, "status", str(path), "--watch"], 60) as terminal:
        terminal.wait_until(lambda it: "1 Stopped" in it.text)
        write(path, '{"servers": {"one": {"url": 5}}}')
        terminal.wait_until(lambda it: "not applied: fleet.json:1:22: servers.one.url: " in it.text)
        assert terminal.overflowing == []
        # The warning of the log does not run over the table, and is there at its end.
        assert "was not applied, nothing" not in terminal.text
        write(path, fleet("one", "two"))
        terminal.wait_until(lambda it: "2 Stopped" in it.text and "not applied:" not in it.text)
        terminal.type("q")
        assert terminal.finish() == 0
        assert terminal.is_restored
        assert b"was not applied, nothing was changed" in terminal.raw.rpartition(b"\x1b[?1049l")[2]


@pytest.mark.parametrize("as_json", [True, False])
def test_servers_that_are_left_out_are_named(path: Path, as_json: bool) -> None:
    command = [*COMMAND, "status", str(path), "--watch", "--lenient", *(["--json"] if as_json else [])]
    with no_orphans(), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "one" in process.stdout.readline()
            write(path, fleet("two", one={"url": 5}))
            said = next(each for each in process.stdout if "invalid" in each)
            if as_json:
                assert json.loads(said).items() >= {"id": "one", "invalid": True}.items()
            else:
                assert said.split()[1:] == ["one", "invalid"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == -signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.slow
def test_the_table_names_the_servers_that_are_left_out(path: Path) -> None:
    with no_orphans(), Terminal([*COMMAND, "status", str(path), "--watch", "--lenient"], 60) as terminal:
        terminal.wait_until(lambda it: "1 Stopped" in it.text)
        write(path, fleet("two", one={"url": 5}))
        terminal.wait_until(lambda it: "2 Stopped" in it.text and "invalid and not applied: one" in it.text)
        assert terminal.overflowing == []
        write(path, fleet("one", "two"))
        terminal.wait_until(lambda it: "not applied:" not in it.text)
        terminal.type("q")
        assert terminal.finish() == 0


def test_a_terminal_that_is_closed_ends_it(path: Path) -> None:
    with no_orphans(), Terminal([*COMMAND, "status", str(path), "--watch"], 80) as terminal:
        terminal.wait_until(lambda it: "1 Stopped" in it.text)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, terminal._master)
        os.close(nothing)
        assert terminal.process.wait(15) != 0
