"""Published servers as processes: the files in their directory, and the start and end of those over HTTP."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Any, Final, Self

import psutil
from support.processes import unused_port
from support.published_servers import Command, Published

from mcp_manager.transports.stdio.child import child_environment

__all__ = ["PublishedProcess", "prepare", "stdio_config"]

_START_S: Final = 60.0
_POLL_S: Final = 0.01


def prepare(directory: Path) -> None:
    """Create the files that servers of the table use in a directory."""
    (directory / "greeting.txt").write_text("hello there\n", encoding="utf-8")
    (directory / "empty.db").touch()
    git = shutil.which("git")
    if git is not None:
        quiet = [git, "init", "--quiet", "--initial-branch=trunk", str(directory / "repository")]
        subprocess.run(quiet, check=True)


def stdio_config(command: Command) -> dict[str, Any]:
    """Return the configuration of a stdio server with this command."""
    program, *arguments = command.argv
    environment = {**command.environment, "HOME": str(command.directory)}
    return {"command": program, "args": arguments, "env": environment, "cwd": str(command.directory)}


class PublishedProcess:
    """An HTTP server on a port of the loopback interface; ``with`` starts it, and ends it with all its descendants.

    Parameters
    ----------
    server
        The server's row of the table.
    installation, directory
        Where the servers are installed, and the directory for this one's files.
    """

    def __init__(self, server: Published, installation: Path, directory: Path) -> None:
        self._place = (server, installation, directory)
        self._port = unused_port()
        self._command = server.command(installation, directory, self._port)
        self._errors: IO[bytes] | None = None
        self._process: psutil.Popen | None = None
        self.url = f"http://127.0.0.1:{self._port}{server.path}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server and return as soon as it listens."""
        self._errors = tempfile.TemporaryFile()
        self._process = psutil.Popen(
            self._command.argv,
            env=child_environment({**self._command.environment, "HOME": str(self._command.directory)}),
            cwd=self._command.directory,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            start_new_session=True,
        )
        try:
            self._wait_until_it_listens(self._process)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the server and its descendants with SIGKILL, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        # Suspended first, so that it cannot start further processes.
        process.send_signal(signal.SIGSTOP)
        for each in [*process.children(recursive=True), process]:
            each.kill()
        process.wait()
        assert self._errors is not None
        self._errors.close()

    def descendants(self) -> set[psutil.Process]:
        """Return its descendant processes; valid only while it runs."""
        assert self._process is not None
        return set(self._process.children(recursive=True))

    def another(self) -> PublishedProcess:
        """Return another process of the same server on its own port, not yet started."""
        return PublishedProcess(*self._place)

    def restart(self) -> None:
        """Kill the server and start it again on the same port, without its sessions."""
        self.kill()
        self.start()

    def _wait_until_it_listens(self, process: psutil.Popen) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1.0).close()
                return
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self._command.argv} does not listen: {self._said()}") from None
            time.sleep(_POLL_S)

    def _said(self) -> str:
        assert self._errors is not None
        end = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), 2000, max(0, end - 2000)).decode(errors="replace")
