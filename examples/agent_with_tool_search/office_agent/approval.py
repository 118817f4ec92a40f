"""Who approves calls: a person at the terminal, or everybody or nobody for runs without one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from mcp_manager import FleetTool


async def approve_all(tool: FleetTool, arguments: Mapping[str, Any]) -> bool:
    """Approve every call."""
    print(f"    Approved: {described(tool, arguments)}", flush=True)
    return True


async def approve_none(tool: FleetTool, arguments: Mapping[str, Any]) -> bool:
    """Approve no call."""
    print(f"    Not approved: {described(tool, arguments)}", flush=True)
    return False


class TerminalApproval:
    """Ask on standard output and read ``y`` or ``n`` from standard input, one question at a time.

    It blocks neither the event loop nor a thread, so that Ctrl-C and the deadline of a run end the wait at once. At the
    end of the input, nobody is there to approve: the answer is no.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._read = b""

    async def __call__(self, tool: FleetTool, arguments: Mapping[str, Any]) -> bool:
        """Ask whether a call may be made."""
        async with self._turn:
            print(f"    Approve {described(tool, arguments)}? [y/N]", flush=True)
            answer = await self._line()
            return answer.strip().lower() in ("y", "yes")

    async def _line(self) -> str:
        loop = asyncio.get_running_loop()
        # Python starts without one if the descriptor is closed.
        if sys.stdin is None:
            return ""
        while b"\n" not in self._read:
            readable = asyncio.Event()
            try:
                loop.add_reader(sys.stdin.fileno(), readable.set)
            except (OSError, ValueError):
                # A file, which cannot be waited for.
                return ""
            try:
                await readable.wait()
            finally:
                loop.remove_reader(sys.stdin.fileno())
            data = os.read(sys.stdin.fileno(), 4096)
            if not data:
                return ""
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line.decode(errors="replace")


def described(tool: FleetTool, arguments: Mapping[str, Any]) -> str:
    """Return a call on one line."""
    return printable(f"{tool.name} {json.dumps(arguments, ensure_ascii=False)}")


def printable(text: str) -> str:
    """Return a text without what could change what a terminal shows: models and servers write anything."""
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)
