"""Every code block of README, manual and recipes does what the text says."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.authority import Authority
from support.documents import DOCUMENTS, Block, Example, blocks_of, examples_of
from support.orphans import no_orphans
from support.preloaded import preloaded
from support.suites import run_suite

from mcp_manager import load_manager_config
from mcp_manager.cli import main
from mcp_manager.config import parse_server_config

ROOT = Path(__file__).resolve().parents[3]
README = DOCUMENTS["readme"].read_text(encoding="utf-8")
SET_UP = re.compile(r"python3 -m venv \.venv && \.venv/bin/pip install -e (\S+) && \.venv/bin/(.+)")
VARIABLES = {
    "SEARCH_TOKEN": "t",
    "GATEWAY_SECRET": "s",
    "ADMIN_TOKEN": "t" * 32,
    "HOME": "/home/x",
    "PYTHON": sys.executable,
}
PROGRAMS = [example for name in DOCUMENTS for example in examples_of(name)]
EXAMPLES = [example for example in PROGRAMS if not example.is_suite]
BLOCKS = [block for path in DOCUMENTS.values() for block in blocks_of(path)]


def blocks(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_every_block_is_of_a_kind_that_is_tried_here() -> None:
    assert {block.language for block in BLOCKS} == {"bash", "json", "python", "text", "toml"}
    for path in DOCUMENTS.values():
        kinds = [block.language for block in blocks_of(path)]
        assert all(before == "python" for before, kind in itertools.pairwise(kinds) if kind == "text")
    # Each of them prints something: what it shows is seen.
    assert [example.name for example in EXAMPLES if not example.output] == []


@pytest.fixture(scope="module")
def interpreter() -> Iterator[list[str]]:
    """The command of an interpreter that has imported what every manager imports, and no more."""
    pool = "mcp_manager.transports.http.connections.pool"
    with preloaded("mcp_manager:McpManager", "mcp_manager:PyMcpManager", pool) as command:
        yield command


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_a_program_prints_what_the_text_shows(example: Example, interpreter: list[str], tmp_path: Path) -> None:
    for name, text in example.files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    script = tmp_path / "example.py"
    script.write_text(example.code, encoding="utf-8")
    with no_orphans():
        done = subprocess.run(
            [*interpreter, str(script)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stderr, done.stdout) == ("", example.output)


@pytest.mark.parametrize("example", [each for each in PROGRAMS if each.is_suite], ids=lambda each: each.name)
def test_a_suite_of_tests_passes(example: Example, tmp_path: Path) -> None:
    ran = run_suite(tmp_path, example.code, "-o", "asyncio_mode=auto", plugins=("asyncio",))
    assert ran.returncode == 0, ran.stdout + ran.stderr


# The README


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 600
    (example,) = examples_of("readme")
    assert len([line for line in example.code.splitlines() if line]) <= 15


def test_the_links_of_the_readme_lead_somewhere() -> None:
    places = re.findall(r"\]\(([^)]+)\)", README)
    assert [each for each in places if "://" not in each and not (ROOT / each).exists()] == []


def test_both_commands_set_themselves_up_and_name_what_exists(tmp_path: Path) -> None:
    lines = [block.text.strip() for block in blocks_of(DOCUMENTS["readme"]) if block.language == "bash"]
    assert lines[0] == f"pip install {tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['name']}"
    commands = [SET_UP.fullmatch(line) for line in lines[1:]]
    assert all(commands)
    (plain, demo), (extra, test) = [(command[1], command[2]) for command in commands if command is not None]
    assert (plain, demo) == (".", "mcp-manager demo")
    assert (shlex.split(extra), test) == ([".[test]"], "pytest -n 2 --dist loadfile")
    # Continuous integration takes the command from there.
    assert len(re.findall(r"python3 -m venv \.venv && .*\.venv/bin/pytest.*", README)) == 1
    # The installation before it is what this very run began with; the demonstration itself is run here.
    program = Path(sys.executable).parent / "mcp-manager"
    if not program.exists():
        pytest.skip("the package is on the path but not installed: there is no mcp-manager command to run")
    done = subprocess.run([str(program), "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


# Commands and configurations, wherever they are


@pytest.mark.parametrize("block", blocks("bash"), ids=lambda block: block.section)
def test_a_command_is_one_that_exists(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in block.text.splitlines():
        program, *arguments = shlex.split(line)
        if program == "python3":
            assert SET_UP.fullmatch(line)
        elif program == "pip":
            found = re.fullmatch(r"pymcp-manager(?:\[(\w+)\])?", arguments[1])
            assert arguments[0] == "install"
            assert found is not None
            assert found[1] is None or found[1] in extras
        else:
            assert program == "mcp-manager"
            status = main(arguments)
            # There is no such file here, so that a command that is well formed comes as far as that.
            is_help = arguments[0] == "help"
            assert status == (0 if is_help else 2)
            assert is_help or "fleet.toml: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.section)
def test_a_file_loads(block: Block, tmp_path: Path) -> None:
    text = block.text
    if "/etc/ssl/company.pem" in text:
        authority = Authority(tmp_path)
        text = text.replace("/etc/ssl/company.pem", str(authority.ca_file))
        text += '\n[servers.a]\nurl = "https://a.test/mcp"\n'
    path = tmp_path / "fleet.toml"
    path.write_text(text, encoding="utf-8")
    servers = load_manager_config(path, environment=VARIABLES).servers
    assert sorted(servers) == sorted(tomllib.loads(text)["servers"])
    assert servers
    for server in servers.values():
        assert server.extras == {}


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.section)
def test_a_json_configuration_is_accepted(block: Block, tmp_path: Path) -> None:
    if "mcpServers" not in block.text:
        assert parse_server_config(block.text, server_id="a").extras == {}
        return
    path = tmp_path / "mcp.json"
    path.write_text(block.text, encoding="utf-8")
    servers = load_manager_config(path, environment=VARIABLES).servers
    assert [server.command for server in servers.values()] == ["npx", "uvx", "docker"]
    assert servers["files"].args == ("-y", "@modelcontextprotocol/server-filesystem", "/data")


def test_the_files_of_the_manual_say_what_the_text_says(tmp_path: Path) -> None:
    (block,) = [
        each for each in blocks_of(DOCUMENTS["manual"]) if (each.language, each.section) == ("toml", "Configuration")
    ]
    path = tmp_path / "fleet.toml"
    path.write_text(block.text, encoding="utf-8")
    config = load_manager_config(path, environment=VARIABLES)
    assert config.servers["files"].args == ("/home/x",)
    assert config.servers["search"].request_timeout_s == 20
    assert config.max_connections == 500
