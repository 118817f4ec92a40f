"""Real MCP servers as child processes: over HTTP on an ephemeral port, and always reaped, or as stdio commands."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self

__all__ = [
    "PROGRAMS",
    "HttpServerProcess",
    "StdioCommand",
    "era_stdio",
    "fastmcp_http",
    "fastmcp_stdio",
    "git_stdio",
    "scripted_stdio",
    "sdk_http",
    "sdk_stdio",
    "time_stdio",
    "unused_port",
]

PROGRAMS = Path(__file__).resolve().parent / "programs"

_START_S = 30.0
_STOP_S = 5.0


class HttpServerProcess:
    """An HTTP server program on a port of the loopback interface; ``with`` starts it and always ends it.

    Parameters
    ----------
    program
        A file in ``support/programs`` that serves an inherited socket (``--fd``) and prints ``ready``.
    arguments
        Further command line arguments.
    """

    def __init__(self, program: str, *arguments: str) -> None:
        self._command = [sys.executable, str(PROGRAMS / program), *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The URL of the MCP endpoint, the same after a restart."""
        return f"http://127.0.0.1:{self.port}/{'sse' if '--sse' in self._command else 'mcp'}"

    @property
    def pid(self) -> int:
        """The process id; valid only while the process runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs, suspended or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program, on the same port as before if there was one; return as soon as it serves."""
        assert self._process is None, "it runs already"
        self._errors = tempfile.TemporaryFile()
        # Only the child keeps the listener, so that connections are refused after its end.
        with socket.create_server(("127.0.0.1", self.port), backlog=512) as listener:
            self.port = listener.getsockname()[1]
            self._process = subprocess.Popen(
                [*self._command, "--fd", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process with SIGKILL and reap it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def stop(self) -> None:
        """End the process with SIGTERM, or after 5 s with SIGKILL, and reap it."""
        if self._process is not None:
            self._process.terminate()
            self._reap()

    def suspend(self) -> None:
        """Suspend the process with SIGSTOP and wait until it is: its sockets stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Resume the process after :meth:`suspend`."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill the process and start it again on the same port, without its sessions."""
        self.kill()
        self.start()

    def wait_exit(self) -> int:
        """Wait until the process ends by itself, reap it, and return its exit status (negative for a signal)."""
        assert self._process is not None
        status = self._process.wait(_STOP_S)
        self._reap()
        return status

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        deadline = time.monotonic() + _START_S
        seen = b""
        while b"ready\n" not in seen:
            readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(process.stdout.fileno(), 4096) if readable else b""
            if not chunk:
                raise RuntimeError(f"{self._command[1]} did not get ready: {self._error_text()}")
            seen += chunk

    def _error_text(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace")[-2000:]

    def _reap(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._errors = None


class StdioCommand:
    """The command of a stdio server."""

    def __init__(self, *command: str, cwd: str | None = None) -> None:
        self.command = command[0]
        self.args = list(command[1:])
        self.cwd = cwd

    def config(self, **settings: object) -> dict[str, object]:
        """Return a server configuration with this command and further settings."""
        where = {} if self.cwd is None else {"cwd": self.cwd}
        return {"command": self.command, "args": self.args, **where, **settings}


def sdk_http(
    *, json_replies: bool = False, stateless: bool = False, sse: bool = False, ledger: Path | None = None
) -> HttpServerProcess:
    """Return the official SDK's server over streamable HTTP, not yet started.

    It answers with event streams, or with ``json_replies`` with JSON. It keeps sessions unless ``stateless``. With
    ``sse`` it speaks HTTP+SSE.
    """
    flags = {"--json": json_replies, "--stateless": stateless, "--sse": sse}
    arguments = [flag for flag, is_on in flags.items() if is_on]
    if ledger is not None:
        arguments += ["--ledger", str(ledger)]
    return HttpServerProcess("sdk_http.py", *arguments)


def fastmcp_http() -> HttpServerProcess:
    """Return a fastmcp server over streamable HTTP, not yet started."""
    return HttpServerProcess("fastmcp_http.py")


def fastmcp_stdio() -> StdioCommand:
    """Return a fastmcp server over stdio."""
    return StdioCommand(sys.executable, str(PROGRAMS / "fastmcp_stdio.py"))


def sdk_stdio(ledger: Path | None = None) -> StdioCommand:
    """Return the official SDK's server over stdio."""
    return StdioCommand(sys.executable, str(PROGRAMS / "sdk_stdio.py"), *([str(ledger)] if ledger else []))


def scripted_stdio(script: Mapping[str, object] | None = None) -> StdioCommand:
    """Return the scripted stdio server; see ``programs/scripted_stdio.py`` for what a script may say."""
    return StdioCommand(sys.executable, str(PROGRAMS / "scripted_stdio.py"), json.dumps(script or {}))


def era_stdio(log: Path, *speaks: str, **script: object) -> StdioCommand:
    """Return the stdio server of either era, which logs what arrives; see ``programs/era_stdio.py``."""
    told = json.dumps({"speaks": speaks, "log": str(log), **script})
    return StdioCommand(sys.executable, str(PROGRAMS / "era_stdio.py"), told)


def time_stdio() -> StdioCommand:
    """Return ``mcp-server-time``, fixed to UTC."""
    return StdioCommand(sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC")


def git_stdio(repository: Path) -> StdioCommand:
    """Return ``mcp-server-git`` for one repository."""
    return StdioCommand(sys.executable, "-m", "mcp_server_git", "--repository", str(repository))


def unused_port() -> int:
    """Return a port of the loopback interface on which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
