"""Every code block of the README does what the README says."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.authority import Authority

from mcp_manager import load_manager_config

README = Path(__file__).resolve().parents[3] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
SET_UP = re.compile(r"python3 -m venv \.venv && \.venv/bin/pip install (\S+) && \.venv/bin/(.+)")


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def examples() -> list[tuple[str, str]]:
    """Each Python block with the text block that follows it: its printed output."""
    pairs = itertools.pairwise(BLOCKS)
    return [(code, output) for (kind, code), (next_kind, output) in pairs if (kind, next_kind) == ("python", "text")]


def test_every_block_is_of_a_kind_that_is_run_here() -> None:
    assert {kind for kind, _ in BLOCKS} == {"bash", "json", "python", "text", "toml"}
    assert len(examples()) == len(blocks("python")) == len(blocks("text")) == 3


@pytest.mark.parametrize(("code", "output"), examples(), ids=["sync", "async", "handlers"])
def test_an_example_prints_what_the_readme_shows(code: str, output: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", output)
    assert len([line for line in blocks("python")[0].splitlines() if line]) <= 15


def test_both_commands_set_themselves_up_and_name_what_exists(tmp_path: Path) -> None:
    commands = [SET_UP.fullmatch(block.strip()) for block in blocks("bash")]
    assert all(commands)
    (_, demo), (extra, test) = [(command[1], command[2]) for command in commands if command is not None]
    assert (demo, shlex.split(extra), test) == ("mcp-manager demo", [".[test]"], "pytest -n 2 --dist loadfile")
    # The installation before it is what this very run began with; the demonstration itself is run here.
    program = Path(sys.executable).parent / "mcp-manager"
    if not program.exists():
        pytest.skip("the package is on the path but not installed: there is no mcp-manager command to run")
    done = subprocess.run([str(program), "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_the_configuration_file_loads(tmp_path: Path) -> None:
    _, block = blocks("toml")
    path = tmp_path / "fleet.toml"
    path.write_text(block, encoding="utf-8")
    config = load_manager_config(path, environment={"SEARCH_TOKEN": "t", "HOME": "/home/x"})
    assert sorted(config.servers) == sorted(tomllib.loads(block)["servers"])
    assert config.servers["files"].args == ("/home/x",)
    assert config.servers["search"].request_timeout_s == 20
    assert config.max_connections == 500


def test_the_defaults_of_tls_and_proxy_load(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    block, _ = blocks("toml")
    path = tmp_path / "fleet.toml"
    assert "/etc/ssl/company.pem" in block
    block = block.replace("/etc/ssl/company.pem", str(authority.ca_file))
    path.write_text(f'{block}\n[servers.a]\nurl = "https://a.test/mcp"\n', encoding="utf-8")
    server = load_manager_config(path).servers["a"]
    assert (server.proxy, server.tls.ca_file) == ("http://proxy.example:3128", str(authority.ca_file))


def test_the_file_of_other_clients_loads(tmp_path: Path) -> None:
    (block,) = blocks("json")
    path = tmp_path / "mcp.json"
    path.write_text(block, encoding="utf-8")
    servers = load_manager_config(path).servers
    assert [server.command for server in servers.values()] == ["npx", "uvx", "docker"]
    assert servers["files"].args == ("-y", "@modelcontextprotocol/server-filesystem", "/data")
