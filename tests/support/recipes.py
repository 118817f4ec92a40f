"""The recipes in ``examples/``, run as their users run them."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil
import pytest
from packaging.requirements import Requirement
from support.orphans import no_orphans

__all__ = ["EXAMPLES", "ROOT", "Program", "command_of", "environment", "folder_of", "run", "running"]

ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLES: Final = ROOT / "examples"
VARIABLE: Final = "MCP_MANAGER_RECIPES"
"""Set, a recipe whose packages are not installed fails its tests; otherwise these are skipped."""
_WAIT_S: Final = 60.0


def folder_of(recipe: str) -> Path:
    """Return the folder of a recipe; skip the test if a package of its ``requirements.txt`` is not installed."""
    missing = _missing(recipe)
    if missing:
        reason = f"{' and '.join(missing)} not installed: pip install -r examples/{recipe}/requirements.txt"
        if os.environ.get(VARIABLE):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason, allow_module_level=True)
    return EXAMPLES / recipe


@functools.cache
def _missing(recipe: str) -> tuple[str, ...]:
    listed = EXAMPLES / recipe / "requirements.txt"
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    wanted = [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]
    return tuple(str(each) for each in wanted if not _is_installed(each))


def _is_installed(requirement: Requirement) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def environment(**variables: str) -> dict[str, str]:
    """Return the variables for a program of a recipe: it finds this package, and shows each warning as an error."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    # Programs of the environment that runs the tests: gunicorn, celery, uvicorn.
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **own, "PATH": programs, **variables}


def run(*command: str, folder: Path, env: Mapping[str, str] | None = None, timeout: float = 60) -> str:
    """Run a program to its end; return what it prints.

    It must succeed, print nothing to stderr, and leave no process behind.
    """
    with no_orphans():
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(env or environment()),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def command_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process; an empty one if it has ended since it was listed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


class Program:
    """A program that runs: its lines on stdout and stderr, in the order in which they came."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._is_over = False
        self._reader = threading.Thread(target=self._read, name="recipe-output")
        self._reader.start()

    @property
    def output(self) -> str:
        """All lines until now."""
        return "".join(self.lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first match of a pattern in a line; fail if the program ends, or 60 s pass, without one."""
        seen = 0
        with self._changed:
            while True:
                for line in self.lines[seen:]:
                    if found := re.search(pattern, line):
                        return found
                seen = len(self.lines)
                if self._is_over or not self._changed.wait(_WAIT_S):
                    pytest.fail(f"no line has {pattern!r}:\n{self.output}", pytrace=False)

    def end(self, signal: int) -> int:
        """Send a signal, wait for the program's end and that of its output; return its exit status."""
        self.process.send_signal(signal)
        status = self.process.wait(_WAIT_S)
        self._reader.join()
        return status

    def close(self) -> None:
        """Kill the program if it still runs."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


@contextlib.contextmanager
def running(*command: str, folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Start a program, and kill it at the end if it still runs. It must leave no process behind."""
    with no_orphans():
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(env or environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        program = Program(process)
        try:
            yield program
        finally:
            program.close()
