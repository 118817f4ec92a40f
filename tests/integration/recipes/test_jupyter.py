"""The recipe ``jupyter``: the notebook in a real kernel, which is interrupted, ended and killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.notebooks import cells_of, outputs_of, program_of
from support.orphans import no_orphans
from support.recipes import EXAMPLES, environment, folder_of

NOTEBOOK = EXAMPLES / "jupyter" / "fleet.ipynb"
SERVER = "mcp_manager.cli.demo_servers.stdio_server"
WAIT_S = 60.0
LONG_CALLS = (
    'await manager.call_tool("calculator", "sleep", {"seconds": 60}, timeout=90)',
    'blocking.call_tool("calculator", "sleep", {"seconds": 60}, timeout=90)',
)


class Kernel:
    """A kernel that runs, as a notebook application uses it."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager = manager
        self._client = client
        self.pid: int = manager.provisioner.pid

    async def run(self, code: str) -> str:
        """Run a cell to its end; return what it prints."""
        printed, reply = await self.finish(self._client.execute(code))
        assert reply["status"] == "ok", "\n".join(reply.get("traceback", ()))
        return printed

    async def begin(self, code: str) -> str:
        """Start a cell, and return when it has begun."""
        request: str = self._client.execute(f"print('begun', flush=True)\n{code}")
        while (message := await self._client.get_iopub_msg(timeout=WAIT_S))["msg_type"] != "stream":
            pass
        assert message["content"]["text"].strip() == "begun"
        return request

    async def finish(self, request: str) -> tuple[str, dict[str, Any]]:
        """Wait for the end of a cell; return what it printed, and its reply."""
        printed = ""
        while True:
            message = await self._client.get_iopub_msg(timeout=WAIT_S)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "stream":
                printed += message["content"]["text"]
            elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while (reply := await self._client.get_shell_msg(timeout=WAIT_S))["parent_header"].get("msg_id") != request:
            pass
        return printed, reply["content"]

    def servers(self) -> set[int]:
        """Return the process ids of the servers."""
        children = psutil.Process(self.pid).children(recursive=True)
        return {each.pid for each in children if SERVER in each.cmdline()}


@pytest.fixture(autouse=True)
def _directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of("jupyter")
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("COLUMNS", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@contextlib.asynccontextmanager
async def kernel() -> AsyncIterator[Kernel]:
    """Start a kernel, which must leave no process behind."""
    from jupyter_client.manager import start_new_async_kernel  # noqa: PLC0415  # skipped where it is not installed

    with no_orphans():
        manager, client = await start_new_async_kernel(
            startup_timeout=WAIT_S, env=environment(), cwd=str(NOTEBOOK.parent)
        )
        try:
            yield Kernel(manager, client)
        finally:
            client.stop_channels()
            await manager.shutdown_kernel(now=not await manager.is_alive())


def test_the_notebook_shows_what_is_committed(tmp_path: Path) -> None:
    committed = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    # All cells but the first show something.
    assert [name for name, shown in outputs_of(committed).items() if not shown] == ["start"]
    new = tmp_path / "new.ipynb"
    with no_orphans():
        done = subprocess.run(
            ["jupyter-execute", f"--output={new}", NOTEBOOK.name],
            cwd=NOTEBOOK.parent,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert outputs_of(json.loads(new.read_text(encoding="utf-8"))) == outputs_of(committed)


def test_the_notebook_is_valid_and_names_no_place_and_no_time() -> None:
    import nbformat  # noqa: PLC0415  # skipped where it is not installed

    nbformat.validate(nbformat.read(NOTEBOOK, 4))
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not [each for each in (sys.prefix, str(EXAMPLES.parent), "/home/", "/tmp/", '"iopub.') if each in text]
    assert "print(\n    result.data\n    )" in program_of(NOTEBOOK)


async def test_every_cell_can_be_run_again_and_the_kernel_ends_what_is_left() -> None:
    cells = cells_of(NOTEBOOK)
    stop = cells.pop("stop")
    async with kernel() as running:
        for _ in range(2):
            for code in cells.values():
                await running.run(code)
        # Three of one manager, one of the other; none of the first round is left.
        assert len(running.servers()) == 4
        await running.run(stop)
        assert running.servers() == set()
        await running.run(cells["start"])
        await running.run(cells["fleet"])
        assert len(running.servers()) == 3


async def test_an_interrupt_ends_the_cell_and_not_the_fleet_and_programs_end_with_a_killed_kernel() -> None:
    cells = cells_of(NOTEBOOK)
    async with kernel() as running:
        for name in ("start", "fleet", "blocking"):
            await running.run(cells[name])
        servers = running.servers()
        for call in LONG_CALLS:
            request = await running.begin(call)
            await running.manager.interrupt_kernel()
            _, reply = await running.finish(request)
            assert reply["status"] == "error"
            assert reply["ename"] in ("KeyboardInterrupt", "CancelledError")
            assert (await running.run(cells["tools"])).startswith("echo(text)")
            await running.run(cells["blocking"].splitlines()[-1])
        assert running.servers() == servers
        os.kill(running.pid, signal.SIGKILL)
