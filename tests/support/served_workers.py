"""``mcp-manager serve --workers N`` as real processes, which tests kill."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

__all__ = ["ServedWorkers"]

_END_S = 20.0


class ServedWorkers:
    """The processes; ``with`` starts them, and ends them all.

    Parameters
    ----------
    directory
        Where the configuration file is written.
    config
        The configuration.
    count
        How many workers.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any], count: int = 2) -> None:
        self.file = directory / "fleet.json"
        self._count = count
        self.write(config)
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None
        self.places: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile("w+")
        command = [sys.executable, "-m", "mcp_manager", "serve", str(self.file)]
        options = ["--listen", "127.0.0.1:0", "--workers", str(self._count), "--json", "--log-level", "info"]
        self._process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=self._errors, stdin=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.end()
            raise RuntimeError("the workers did not start")
        self.places = json.loads(line)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def write(self, config: Mapping[str, Any]) -> None:
        """Write the configuration; :meth:`reload` applies it."""
        self.file.write_text(json.dumps(config))

    def reload(self) -> None:
        """Let the workers read the configuration again."""
        self._running.send_signal(signal.SIGHUP)

    @property
    def root(self) -> str:
        """The URL of the root."""
        return str(self.places["url"]).removesuffix("/mcp")

    @property
    def log(self) -> str:
        """What the processes have written to standard error."""
        assert self._errors is not None
        self._errors.seek(0)
        return self._errors.read()

    def url(self, server_id: str) -> str:
        """Return the URL of the endpoint of a server."""
        return f"{self.root}/servers/{server_id}/mcp"

    @property
    def pid(self) -> int:
        """The process id of the parent."""
        return self._running.pid

    def pids(self) -> list[int]:
        """Return the process ids of the workers that run."""
        text = Path(f"/proc/{self._running.pid}/task/{self._running.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    async def restarted(self, before: list[int]) -> list[int]:
        """Wait until there are as many workers as before, and return their process ids."""
        async with asyncio.timeout(_END_S):
            while len(pids := self.pids()) < self._count or pids == before:
                await asyncio.sleep(0.01)
        return pids

    def end(self) -> int:
        """End the service with SIGTERM, or SIGKILL if that takes long; return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            assert process.stdout is not None
            process.stdout.close()
            if self._errors is not None:
                self._errors.close()

    def kill(self) -> None:
        """Kill the parent, and wait until its workers have ended as well."""
        ends = [os.pidfd_open(pid) for pid in self.pids()]
        try:
            self._running.kill()
            for end in ends:
                assert select.select([end], [], [], _END_S)[0], "a worker is still there"
        finally:
            for end in ends:
                os.close(end)

    @property
    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process
