"""A real Prometheus on a free port of the loopback interface, and what its HTTP API answers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from support.calls import eventually

__all__ = ["Prometheus", "prometheus_unavailable", "promtool"]

_PACKAGE: Final = "prometheus"
# Debian's Prometheus has no receiver for OTLP, so what is pushed comes by remote write.
_FLAGS: Final = ("--web.enable-remote-write-receiver", "--enable-feature=native-histograms")
_STOP_S: Final = 20.0


def prometheus_unavailable() -> str:
    """Return why tests that need Prometheus cannot run here, "" if they can."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not found on the path (Debian's package {_PACKAGE} has both)" if missing else ""


def promtool(*arguments: str) -> str:
    """Run ``promtool`` and return its output; fail unless it succeeds."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """A Prometheus with the given configuration, written as JSON; ``async with`` starts and ends it.

    Parameters
    ----------
    directory
        Where it keeps its data.
    config
        Its configuration.
    """

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        self._directory = directory
        self._config = config
        self._port = 0

    async def __aenter__(self) -> Self:
        self._process = self._started()
        try:
            self.http = aiohttp.ClientSession()
            await eventually(self._listens, "Prometheus listens")
            # It refuses queries until it has read its data; a request waits for the listener's backlog.
            await self._ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._port}"

    async def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that are the answer to a query of this moment."""
        found: list[dict[str, Any]] = (await self.get("query", query=expression))["result"]
        return found

    async def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the API."""
        async with self.http.get(f"{self.url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]

    def _started(self) -> subprocess.Popen[bytes]:
        path, self._log = self._directory / "prometheus.yaml", self._directory / "prometheus.log"
        # JSON is YAML.
        path.write_text(json.dumps(self._config), encoding="utf-8")
        data = self._directory / "data"
        command = [
            *("prometheus", f"--config.file={path}", f"--storage.tsdb.path={data}"),
            "--web.listen-address=127.0.0.1:0",
            *_FLAGS,
        ]
        with self._log.open("wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _listens(self) -> bool:
        text = self._log.read_text(encoding="utf-8", errors="replace")
        assert self._process.poll() is None, text
        found = re.search(r'Listening on"[^\n]* address=127\.0\.0\.1:(\d+)', text)
        if found is not None:
            self._port = int(found[1])
        return found is not None

    async def _ready(self) -> None:
        is_ready = False
        while not is_ready:
            assert self._process.poll() is None, self._log.read_text(encoding="utf-8", errors="replace")
            async with self.http.get(f"{self.url}/-/ready") as response:
                is_ready = response.status == 200
