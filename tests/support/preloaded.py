"""Programs that are all run with the same imports, which are made once: each is a fork of a process that has made them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["preloaded"]

_PROGRAMS: Final = Path(__file__).with_name("programs")


@contextmanager
def preloaded(*names: str) -> Iterator[list[str]]:
    """Import once, and yield the command that runs programs with what was imported.

    A program is a process of its own, with its own arguments, environment, working directory and standard streams, and
    with warnings as errors.

    Parameters
    ----------
    names
        What to import: modules, or ``module:name`` for what a module loads with its first use.
    """
    if sys.platform != "linux":
        yield [sys.executable, "-W", "error"]
        return
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/socket"
        host = [sys.executable, "-W", "error", str(_PROGRAMS / "preloaded_host.py"), socket, *names]
        with subprocess.Popen(host, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == b"ready\n"
                yield [sys.executable, "-I", "-S", str(_PROGRAMS / "preloaded_run.py"), socket]
            finally:
                process.kill()
