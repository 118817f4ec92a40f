"""The files of installed clients are found, and become one fleet.toml that means the same and holds no secret."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mcp_manager.config import load_manager_config
from mcp_manager.config.clients import (
    ClientFile,
    ImportedFleet,
    NeededVariable,
    find_client_files,
    fleet_toml,
    import_fleet,
    write_fleet_file,
)
from mcp_manager.config.load import load_fleet_file
from mcp_manager.errors import ConfigError

SECRET = "ghp_0123456789abcdefABCDEF"
OTHER = "s3cr3t-of-another-kind"


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def servers(**settings: Any) -> dict[str, Any]:
    return {"mcpServers": settings}


def imported(folder: Path, *contents: Any, environment: dict[str, str] | None = None) -> ImportedFleet:
    files = [
        ClientFile(client, write(folder / f"{index}" / "mcp.json", content), "user")
        for index, (client, content) in enumerate(zip(("Cursor", "Windsurf", "Cline"), contents, strict=False))
    ]
    return import_fleet(files, environment or {})


# Finding


def test_files_are_found_where_each_system_has_them(tmp_path: Path) -> None:
    places = {
        "linux": {
            "Claude Desktop": ".config/Claude/claude_desktop_config.json",
            "VS Code": ".config/Code/User/mcp.json",
            "Cline": ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
            "Zed": ".config/zed/settings.json",
            "Goose": ".config/goose/config.yaml",
            "Claude Code": ".claude.json",
        },
        "darwin": {
            "Claude Desktop": "Library/Application Support/Claude/claude_desktop_config.json",
            "VS Code": "Library/Application Support/Code/User/mcp.json",
            "Zed": ".config/zed/settings.json",
            "Codex": ".codex/config.toml",
        },
        "win32": {
            "Claude Desktop": "AppData/Roaming/Claude/claude_desktop_config.json",
            "VS Code": "AppData/Roaming/Code/User/mcp.json",
            "Zed": "AppData/Roaming/Zed/settings.json",
            "Goose": "AppData/Roaming/Block/goose/config/config.yaml",
            "Crush": "AppData/Local/crush/crush.json",
        },
    }
    for system, expected in places.items():
        home = tmp_path / system
        for name in expected.values():
            write(home / name, {})
        found = find_client_files(home, system=system)
        assert {each.client: each.path for each in found} == {client: home / name for client, name in expected.items()}
        assert {each.scope for each in found} == {"user"}


def test_those_of_the_project_come_first_and_variables_name_folders(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for path in (project / ".mcp.json", project / ".vscode/mcp.json", tmp_path / "xdg/Code/User/mcp.json"):
        write(path, {})
    (project / ".cursor/mcp.json").mkdir(parents=True)
    found = find_client_files(tmp_path, project, environment={"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, system="linux")
    assert [(each.client, each.scope) for each in found] == [
        ("Claude Code", "project"),
        ("VS Code", "project"),
        ("VS Code", "user"),
    ]


def test_a_file_that_is_of_the_home_and_of_the_project_is_found_once(tmp_path: Path) -> None:
    write(tmp_path / ".cursor/mcp.json", {})
    assert len(find_client_files(tmp_path, tmp_path, system="linux")) == 1


# Merging


def test_the_same_server_of_two_clients_is_one_and_another_of_its_name_is_renamed(tmp_path: Path) -> None:
    same = {"command": "run", "env": {"GITHUB_TOKEN": SECRET}}
    fleet = imported(
        tmp_path,
        servers(a=same, b={"command": "x"}),
        servers(a={**same, "description": "the same"}, b={"command": "y"}),
        servers(
            b={"command": "z", "timeout": 5, "type": "stdio"}, a={"command": "run", "env": {"GITHUB_TOKEN": OTHER}}
        ),
    )
    assert {name: each.fields["command"] for name, each in fleet.servers.items()} == {
        "a": "run",
        "b": "x",
        "b-windsurf": "y",
        "b-cline": "z",
        "a-cline": "run",
    }
    assert fleet.conflicts == {"b-windsurf": "b", "b-cline": "b", "a-cline": "a"}
    assert fleet.servers["a"].fields["env"] == {"GITHUB_TOKEN": "${GITHUB_TOKEN}"}
    assert fleet.servers["a-cline"].fields["env"] == {"GITHUB_TOKEN": "${A_CLINE_GITHUB_TOKEN}"}
    assert (fleet.servers["b"].client, fleet.servers["b"].path) == ("Cursor", tmp_path / "0" / "mcp.json")


def test_warnings_name_the_file_and_what_is_wrong_costs_one_server_or_one_file(tmp_path: Path) -> None:
    fleet = imported(
        tmp_path,
        servers(
            a={"command": "run", "timeout": 5}, b={}, c={"type": "inMemory", "isActive": True}, d={"command": "run"}
        ),
        "{",
        {"theme": "dark"},
    )
    assert list(fleet.servers) == ["a", "d"]
    first, second = tmp_path / "0/mcp.json", tmp_path / "1/mcp.json"
    assert fleet.warnings == (
        f"{first}: mcpServers.a: timeout is read as request_timeout_s",
        f"{first}: mcpServers.c: is part of Cherry Studio (inmemory), and no server of its own; it is left out",
        f"{first}:1:56: mcpServers.b.url: missing (give url for an HTTP server or command for a stdio server)",
        f"{second}:1:2: malformed JSON: Expecting property name enclosed in double quotes",
    )


# Secrets


SECRETS = {
    "a": {
        "command": "run",
        "env": {"API_KEY": OTHER, "LEVEL": "debug", "PLAIN": SECRET, "HOME_DIR": "/srv/data/of/me"},
    },
    "b": {
        "url": f"https://u.example.com/{SECRET}/mcp?token=abcdef&page=2",
        "headers": {"X-Api-Key": OTHER, "X-A": "b"},
    },
    "c": {"url": "https://h/mcp", "headers": {"Authorization": f"Bearer {OTHER}"}},
    "d": {
        "command": "run",
        "args": ["--api-key", OTHER, f"--token={OTHER}", "--name", "x", f"Cookie: {OTHER}", SECRET],
    },
    "e": {"url": "https://h/mcp", "bearerToken": OTHER},
    "f": {"url": "https://h/mcp", "oauth": {"clientId": "c", "clientSecret": OTHER}},
    "g": {"command": "run", "args": [f"postgres://me:{OTHER}@db/x"]},
    "h": {"url": "https://h/mcp", "headers": {"X-A": "${X}", "Authorization": "Bearer ${TOKEN}"}},
}


def test_no_literal_secret_is_written(tmp_path: Path) -> None:
    fleet = imported(tmp_path, servers(**SECRETS))
    text = fleet_toml(fleet)
    assert OTHER not in text
    assert SECRET not in text
    assert "abcdef&" not in text
    shown = {name: each.fields for name, each in fleet.servers.items()}
    assert shown["a"]["env"] == {
        "API_KEY": "${API_KEY}",
        "LEVEL": "debug",
        "PLAIN": "${A_PLAIN}",
        "HOME_DIR": "/srv/data/of/me",
    }
    assert shown["b"]["url"] == "https://u.example.com/${A_PLAIN}/mcp?token=${B_TOKEN}&page=2"
    assert shown["b"]["headers"] == {"X-Api-Key": "${API_KEY}", "X-A": "b"}
    assert shown["c"]["headers"] == {"Authorization": "Bearer ${API_KEY}"}
    assert shown["d"]["args"][1:3] == ["${API_KEY}", "--token=${API_KEY}"]
    assert shown["d"]["args"][5:] == ["Cookie: ${API_KEY}", "${A_PLAIN}"]
    assert shown["e"]["auth"] == {"type": "bearer", "token": "${API_KEY}"}
    assert shown["f"]["auth"]["client_secret"] == "${API_KEY}"
    assert shown["g"]["args"] == ["postgres://me:${API_KEY}@db/x"]
    assert shown["h"]["headers"] == {"X-A": "${X}", "Authorization": "Bearer ${TOKEN}"}
    place = f"{tmp_path / '0/mcp.json'}, mcpServers"
    assert fleet.variables == (
        NeededVariable("API_KEY", False, f"{place}.a (API_KEY)"),
        NeededVariable("A_PLAIN", False, f"{place}.a (PLAIN)"),
        NeededVariable("B_TOKEN", False, f"{place}.b (token)"),
        NeededVariable("TOKEN", False),
        NeededVariable("X", False),
    )
    assert text.startswith(
        f"# These environment variables are needed:\n# ${{API_KEY}}: is not set; its value is in {place}.a"
    )


def test_a_variable_that_is_set_to_something_else_is_not_taken(tmp_path: Path) -> None:
    settings = servers(a={"command": "run", "env": {"API_KEY": OTHER}})
    fleet = imported(tmp_path, settings, environment={"API_KEY": "another"})
    assert fleet.servers["a"].fields["env"] == {"API_KEY": "${A_API_KEY}"}
    fleet = imported(tmp_path, settings, environment={"API_KEY": OTHER})
    assert fleet.servers["a"].fields["env"] == {"API_KEY": "${API_KEY}"}
    assert fleet.variables[0].is_set


def test_what_stands_in_another_file_is_a_secret(tmp_path: Path) -> None:
    write(tmp_path / ".env", "LEVEL=debugging\nMODE=a\n")
    path = write(tmp_path / ".vscode/mcp.json", {"servers": {"a": {"command": "run", "envFile": ".env"}}})
    fleet = import_fleet([path], {})
    assert fleet.servers["a"].fields["env"] == {"LEVEL": "${A_LEVEL}", "MODE": "a"}
    assert fleet.servers["a"].client == "VS Code"


# Writing


def test_the_file_means_what_the_files_of_the_clients_mean(tmp_path: Path) -> None:
    environment = {"TOKEN": "a-token", "X": "1"}
    content = servers(**SECRETS, off={"command": "run", "disabled": True}, sse={"url": "https://h/s", "type": "sse"})
    fleet = imported(tmp_path, content, environment=environment)
    path = tmp_path / "fleet.toml"
    write_fleet_file(path, fleet_toml(fleet))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    values = {"API_KEY": OTHER, "A_PLAIN": SECRET, "B_TOKEN": "abcdef", **environment}
    ours = load_fleet_file(path, environment=values)
    theirs = load_fleet_file(tmp_path / "0/mcp.json", environment=environment)
    assert ours.switched_off == theirs.switched_off == ("off",)
    assert list(ours.config.servers) == list(theirs.config.servers)
    for name, server in theirs.config.servers.items():
        mine = ours.config.servers[name]
        for field in server.__struct_fields__:
            if field not in ("extras", "hidden_texts"):
                assert getattr(mine, field) == getattr(server, field), (name, field)


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "fleet.toml", "mine")
    with pytest.raises(ConfigError, match="it exists already"):
        write_fleet_file(path, "theirs")
    assert path.read_text() == "mine"
    path.chmod(0o644)
    write_fleet_file(path, "theirs", overwrite=True)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("theirs", 0o600)
    with pytest.raises(ConfigError, match="No such file"):
        write_fleet_file(tmp_path / "gone" / "fleet.toml", "x")


def test_an_odd_name_of_a_folder_cannot_add_lines(tmp_path: Path) -> None:
    folder = tmp_path / "a\n[servers.evil]\ncommand = 'x'"
    fleet = imported(folder, servers(a={"command": "run", "env": {"API_KEY": OTHER}}))
    assert set(tomllib.loads(fleet_toml(fleet))["servers"]) == {"a"}


def test_nothing_is_a_fleet_too(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    write_fleet_file(path, fleet_toml(import_fleet([], {})))
    assert load_manager_config(path).servers == {}
