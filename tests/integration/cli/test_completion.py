"""Completion in real shells; zsh and fish are tried where they are installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.terminal import COMMAND, Terminal

BASH = """
eval "$(mcp-manager completion bash)"
complete_words() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  _mcp_manager_completion mcp-manager 2>/dev/null
  echo "${COMPREPLY[@]}"
}
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with the command ``mcp-manager``, and a file with servers in the working directory."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = programs / "mcp-manager"
    start = f"import sys; sys.argv[0] = 'mcp-manager'; sys.path[:0] = {[os.environ.get('PYTHONPATH', '')]!r}"
    code = f"{start}; from mcp_manager.cli import main; sys.exit(main())"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -P -c {shlex.quote(code)} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    (tmp_path / "fleet.toml").write_text(
        '[servers.files]\nurl = "${UNSET_URL}"\n[servers.web]\nurl = "http://h/mcp"\nheaders = {X-A = "${UNSET}"}\n'
    )
    (tmp_path / "broken.toml").write_text("[servers")
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}


def completed_by_bash(environment: dict[str, str], folder: Path, *lines: str) -> list[str]:
    """Let bash complete the last word of each line; return what it offers."""
    script = "\n".join([BASH, *(f"complete_words {line}" for line in lines)])
    done = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return [line.strip() for line in done.stdout.split("\n")[:-1]]


def test_bash_completes_a_verb_and_a_server(environment: dict[str, str], tmp_path: Path) -> None:
    assert completed_by_bash(environment, tmp_path, "mcp-manager ch", "mcp-manager tools fleet.toml w") == [
        "check",
        "web",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["ch"], "check"),
        (["co"], "completion"),
        (["lo"], "logs login"),
        (["status", "--w"], "--watch"),
        (["call", "--t"], "--timeout --tool"),
        (["completion", ""], "bash zsh fish"),
        (["check", "--log-level", "w"], "warning"),
        (["tools", "fleet.toml", ""], "files web"),
        (["tools", "fleet.toml", "w"], "web"),
        (["call", "fleet.toml", "f"], "files"),
        (["tools", "fleet.toml", "files", ""], ""),
        (["tools", "broken.toml", ""], ""),
        (["tools", "http://h/mcp", ""], ""),
        (["logs", "missing.toml", ""], ""),
    ],
)
def test_bash(environment: dict[str, str], tmp_path: Path, words: list[str], completed: str) -> None:
    assert completed_by_bash(environment, tmp_path, shlex.join(["mcp-manager", *words])) == [completed]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("mcp-manager ch", ["check"]),
        ("mcp-manager status --w", ["--watch"]),
        ("mcp-manager tools fleet.toml ", ["files", "web"]),
        ("mcp-manager tools fl", ["fleet.toml"]),
    ],
)
def test_fish(environment: dict[str, str], tmp_path: Path, line: str, completed: list[str]) -> None:
    script = f"mcp-manager completion fish | source; complete -C {shlex.quote(line)}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert [each.split("\t")[0] for each in done.stdout.splitlines()] == completed


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh(environment: dict[str, str], tmp_path: Path) -> None:
    command = ["sh", "-c", f"cd {tmp_path} && exec zsh -f -i"]
    with Terminal(command, 100, environment={**environment, "PS1": "ready> "}) as terminal:
        terminal.wait_until(lambda it: "ready>" in it.text)
        terminal.type(
            'autoload -U compinit && compinit -u -D && eval "$(mcp-manager completion zsh)" && echo lo""aded\n'
        )
        terminal.wait_until(lambda it: "\nloaded" in it.text)
        terminal.type("mcp-manager chec\t")
        terminal.wait_until(lambda it: it.text.rstrip().endswith("mcp-manager check"))
        terminal.type("\x15mcp-manager tools fleet.toml w\t")
        terminal.wait_until(lambda it: it.text.rstrip().endswith("tools fleet.toml web"))


@pytest.mark.slow
def test_a_shell_that_is_not_known_is_named() -> None:
    done = subprocess.run([*COMMAND, "completion", "csh"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr
