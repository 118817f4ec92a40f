"""Whatever one reply of the most that is allowed holds, it takes less than four times that in memory."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any, Final

import pytest
from support.processes import PROGRAMS

from mcp_manager import ManagerConfig, McpManager
from mcp_manager.errors import ProtocolError, RpcError

PROGRAM: Final = str(PROGRAMS / "heavy.py")
KINDS: Final = (
    *("text", "escapes", "wide", "wider", "surrogates", "objects", "lists", "numbers", "spaces"),
    *("error", "error text", "unversioned"),
)
LIMIT: Final = 2 << 20
CALM: Final = {"health": {"enabled": False}, "max_response_bytes": LIMIT, "request_timeout_s": 60.0}


@contextlib.contextmanager
def serving(form: str) -> Iterator[dict[str, Any]]:
    """Yield the configuration of a server that answers in a form."""
    arguments = ["-P", PROGRAM, str(LIMIT), form]
    if form == "stdio":
        yield {"command": sys.executable, "args": arguments, **CALM}
        return
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield {"url": f"http://127.0.0.1:{int(process.stdout.readline())}/mcp", **CALM}
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "lanes"),
    [("json", True), ("json", False), ("events", True), ("events", False), ("stdio", True)],
    ids=["json", "ordinary json", "events", "ordinary events", "stdio"],
)
async def test_memory_by_one_reply(form: str, lanes: bool) -> None:
    taken: dict[str, float] = {}
    with serving(form) as config:
        async with McpManager(ManagerConfig(http_lanes=lanes)) as manager:
            await manager.deploy("a", config)
            for kind in KINDS:
                for is_typed in (True, False):
                    taken[f"{kind}, {'typed' if is_typed else 'raw'}"] = await peak_of(manager, kind, is_typed)
    assert len(taken) == 2 * len(KINDS)
    assert {name: share for name, share in taken.items() if share >= 4} == {}


async def peak_of(manager: McpManager, kind: str, is_typed: bool) -> float:
    """Return the most that a call took, in units of what a reply may have."""
    gc.collect()
    tracemalloc.start()
    try:
        if is_typed:
            # Some hold more than is decoded.
            with contextlib.suppress(RpcError, ProtocolError):
                await manager.call_tool("a", kind)
        else:
            reply = await manager.execute_raw(
                "a", json.dumps({"method": "tools/call", "params": {"name": kind}}).encode()
            )
            assert LIMIT * 0.9 < len(reply) <= LIMIT
        return tracemalloc.get_traced_memory()[1] / LIMIT
    finally:
        tracemalloc.stop()
