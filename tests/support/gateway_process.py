"""``mcp-manager serve`` as a process of its own, before given servers."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final, Self

__all__ = ["GatewayProcess"]

_START_S: Final = 30.0
_STOP_S: Final = 10.0


class GatewayProcess:
    """A gateway on a port of the loopback interface; ``with`` starts it and always ends it.

    Parameters
    ----------
    directory
        Where its configuration file is written.
    servers
        The configuration of each server.
    views, serve
        The tables ``views`` and ``serve`` of the file.
    listen
        Where it listens.

    Attributes
    ----------
    config
        Its configuration file.
    """

    def __init__(
        self,
        directory: Path,
        servers: Mapping[str, Any],
        *,
        views: Mapping[str, Any] | None = None,
        serve: Mapping[str, Any] | None = None,
        listen: str = "127.0.0.1:0",
    ) -> None:
        self._listen = listen
        self.config = directory / "fleet.json"
        tables = {"servers": dict(servers), "views": dict(views or {}), "serve": dict(serve or {})}
        self.config.write_text(json.dumps({name: table for name, table in tables.items() if table}), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._root = ""

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        command = [sys.executable, "-P", "-W", "error", "-m", "mcp_manager", "serve", str(self.config)]
        self._process = subprocess.Popen(
            [*command, "--listen", self._listen, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        try:
            places = json.loads(self._first_line(self._process))
        except BaseException:
            self._process.kill()
            self._end()
            raise
        self._root = places["url"].removesuffix("/mcp")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._end()

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return self._root + path

    @property
    def errors(self) -> str:
        """What it has printed on stderr."""
        if self._errors is None:
            return ""
        # The process writes with an offset of its own.
        return os.pread(self._errors.fileno(), 1_000_000, 0).decode("utf-8", "replace")

    def _first_line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        deadline = time.monotonic() + _START_S
        seen = b""
        while not seen.endswith(b"\n"):
            readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(process.stdout.fileno(), 65_536) if readable else b""
            if not chunk:
                raise RuntimeError(f"the gateway did not start: {self.errors[-2000:]}")
            seen += chunk
        return seen

    def _end(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdout, self._errors):
            if stream is not None:
                stream.close()
        self._errors = None
