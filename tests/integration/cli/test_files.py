"""Configuration files on the command line: ``import``, ``schema``, ``--lenient``, and how mistakes are told."""

from __future__ import annotations

import json
import os
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.terminal import shown_at

from mcp_manager.cli import main
from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.config import load_manager_config
from mcp_manager.config.schema import config_schema

WEB = {"url": "https://example.com/mcp", "headers": {"X-Api-Key": "s3cr3t-value"}}
WRONG = """\
[servers.place]
url = "htp:/x"
[servers.field]
command = "python3"
tmeout = 3
[servers.off]
command = "python3"
disabled = true
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the files of two clients, which have a server of the same name."""
    cursor, codex = tmp_path / ".cursor", tmp_path / ".codex"
    cursor.mkdir()
    codex.mkdir()
    servers = {"web": WEB, "off": {"command": "uvx", "args": ["x"], "disabled": True}, "bad": {"url": 5}}
    (cursor / "mcp.json").write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    (codex / "config.toml").write_text('[mcp_servers.web]\ncommand = "npx"\nodd = 1\n', encoding="utf-8")
    for name, value in (("HOME", tmp_path), ("USERPROFILE", tmp_path), ("XDG_CONFIG_HOME", tmp_path / ".config")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("WEB_X_API_KEY", raising=False)
    return tmp_path


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    """A file with two servers that are wrong, one that works and one that is switched off."""
    works = stdio_server_config()
    lines = [
        WRONG,
        "[servers.works]",
        f"command = {json.dumps(works['command'])}",
        f"args = {json.dumps(works['args'])}",
    ]
    path = tmp_path / "wrong.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


# Import


def test_what_clients_have_becomes_a_file_that_loads(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "fleet.toml"
    assert main(["import", "--output", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    rows = {line.split()[0]: line for line in shown.err.splitlines() if line}
    assert rows["Cursor"].split()[1:] == [str(home / ".cursor" / "mcp.json"), "web,", "off", "(off)"]
    assert rows["Codex"].split()[1:] == [str(home / ".codex" / "config.toml"), "web-codex"]
    for told in ("mcpServers.bad.url: expected", "ignored: odd", "the id web is taken", "WEB_X_API_KEY: is not set"):
        assert told in shown.err
    assert "s3cr3t" not in path.read_text(encoding="utf-8") + shown.err
    assert os.name == "nt" or stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = load_manager_config(path, environment={"WEB_X_API_KEY": "s3cr3t-value"})
    assert loaded.servers.keys() == {"web", "web-codex"}
    assert loaded.servers["web"].headers["X-Api-Key"] == "s3cr3t-value"


def test_without_output_the_file_is_printed_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import"]) == 0
    shown = capsys.readouterr()
    assert tomllib.loads(shown.out)["servers"].keys() == {"web", "off", "web-codex"}
    assert "Codex" in shown.err
    assert main(["import", "--quiet"]) == 0
    assert capsys.readouterr() == (shown.out, "")


def test_a_file_is_overwritten_only_by_force(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "fleet.toml"
    path.write_text("mine", encoding="utf-8")
    assert main(["import", "--output", str(path)]) == 2
    assert "--force to overwrite it" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == "mine"
    assert main(["import", "--output", str(path), "--force"]) == 0
    assert "[servers.web]" in path.read_text(encoding="utf-8")


def test_files_can_be_named_and_a_project_added(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--from", str(home / ".codex" / "config.toml")]) == 0
    assert tomllib.loads(capsys.readouterr().out)["servers"].keys() == {"web"}
    project = home / "project"
    project.mkdir()
    (project / ".mcp.json").write_text(json.dumps({"mcpServers": {"own": {"command": "x"}}}), encoding="utf-8")
    assert main(["import", "--project", str(project)]) == 0
    assert tomllib.loads(capsys.readouterr().out)["servers"].keys() == {"own", "web", "off", "web-codex"}


def test_an_import_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--json"]) == 0
    shown = capsys.readouterr()
    told: dict[str, Any] = json.loads(shown.out)
    assert shown.err == ""
    assert [(each["client"], each["scope"]) for each in told["files"]] == [("Cursor", "user"), ("Codex", "user")]
    assert [(each["id"], each["disabled"], each["renamed_from"]) for each in told["servers"]] == [
        ("web", False, None),
        ("off", True, None),
        ("web-codex", False, "web"),
    ]
    assert (len(told["warnings"]), told["variables"][0]["name"], told["output"]) == (3, "WEB_X_API_KEY", None)
    assert "web" in tomllib.loads(told["toml"])["servers"]


def test_the_command_line_exports_nothing_and_needs_no_extra_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    works = stdio_server_config()
    path = tmp_path / "fleet.json"
    exported = {"metrics": True, "traces": {"ratio": 1}, "endpoint": "http://127.0.0.1:9"}
    path.write_text(json.dumps({"manager": {"telemetry": exported}, "servers": {"works": works}}), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().err == ""


def test_where_there_is_nothing_nothing_is_written(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "none"))
    assert main(["import", "--output", str(tmp_path / "new.toml")]) == 1
    assert capsys.readouterr() == ("", "mcp-manager: no files of MCP clients found (--from names one)\n")
    assert main(["import", "--from", str(tmp_path / "gone.json"), "--output", str(tmp_path / "new.toml")]) == 1
    assert "gone.json: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "new.toml").exists()


def test_without_the_extra_it_is_told_what_to_install(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tomli_w", None)
    assert main(["import"]) == 2
    assert "pip install 'pymcp-manager[clients]'" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_what_is_imported_fits_the_terminal(home: Path, columns: int) -> None:
    lines = shown_at(columns, "import", "--output", str(home / f"{columns}.toml"))
    assert "web-codex" in " ".join(lines)


# The schema


def test_the_schema_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(json.dumps(config_schema()))
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema
    path = tmp_path / "fleet.schema.json"
    assert main(["schema", "--output", str(path)]) == 0
    assert json.loads(path.read_text(encoding="utf-8")) == schema
    assert capsys.readouterr() == ("", f"mcp-manager: wrote {path}\n")
    assert main(["schema", "--output", str(path), "--json"]) == 2
    assert "--force" in json.loads(capsys.readouterr().out)["error"]["hint"]


# Mistakes


def test_every_mistake_is_a_line_with_its_place(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(wrong)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": servers.")[0] for line in lines] == [
        f"mcp-manager: {wrong}:2:1",
        f"mcp-manager: {wrong}:5:1",
    ]
    assert main(["check", str(wrong), "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)["error"]["problems"]
    assert [(each["line"], each["column"]) for each in problems] == [(2, 1), (5, 1)]


def test_a_lenient_verb_uses_the_others_and_tells_once(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(wrong), "--lenient"]) == 0
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()] == ["SERVER", "works"]
    assert shown.err.count("the server is left out") == len(shown.err.splitlines()) == 2


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_what_is_told_of_mistakes_fits_the_terminal(wrong: Path, columns: int) -> None:
    lenient = " ".join(shown_at(columns, "list", str(wrong), "--lenient"))
    assert lenient.count("mcp-manager: warning:") == 2
    strict = " ".join(shown_at(columns, "list", str(wrong), status=2))
    assert strict.count("mcp-manager: ") == 2


def test_the_list_has_what_is_switched_off_and_left_out(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", str(wrong), "--lenient"]) == 0
    assert "\n  switched off: off\n" in capsys.readouterr().out
    assert main(["list", str(wrong), "--lenient", "--json"]) == 0
    works, off, left_out = json.loads(capsys.readouterr().out)
    assert (works["id"], works["enabled"]) == ("works", True)
    assert off == {"id": "off", "enabled": False}
    assert [each["line"] for each in left_out["error"]["problems"]] == [2, 5]


def test_the_doctor_examines_the_rest_of_a_file(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(wrong), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    found = [(each["severity"], each["server_id"], each["seen"].partition(" ")[0]) for each in told["findings"]]
    assert found == [("error", None, f"{wrong}:2:1:"), ("error", None, f"{wrong}:5:1:"), ("note", "off", "it")]
    assert told["servers"] == 3
