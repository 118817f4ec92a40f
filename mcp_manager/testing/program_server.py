"""A faulty server over stdio: the program is a pipe, and what it says is decided in the process of the test."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mcp_manager.testing.control import FaultControl
from mcp_manager.testing.faults import servers
from mcp_manager.testing.pipe_instructions import Instruction, instructions_for, is_played_by_programs
from mcp_manager.testing.scripted import Fault, Request
from mcp_manager.testing.scripted.stateless import META, STATELESS, meta_of, refusal
from mcp_manager.testing.tools import Era, Tool

__all__ = ["FaultyProgram"]

_PROGRAM: Final = Path(__file__).with_name("pipe_program.py")
_SAID: Final = "/__said"


class FaultyProgram(FaultControl):
    """An MCP server over stdio that fails as a test tells it to.

    The client under test starts the program: deploy :attr:`spec`. However often it is started anew, the script goes on and
    the ledger stays, because both are in the process of the test. ``with`` starts and ends what they are reached by.

    Parameters
    ----------
    era
        ``"handshake"`` (2025-11-25) or ``"stateless"`` (2026-07-28).
    tools
        Its tools by name. Default: ``echo``, which returns its argument ``text``.
    port
        The port of 127.0.0.1 by which it is controlled; 0 for any free one.
    seed
        The seed of the delays of ``slow``.
    """

    def __init__(
        self, era: Era = "handshake", tools: Mapping[str, Tool] | None = None, *, port: int = 0, seed: int = 0
    ) -> None:
        super().__init__(era, {"echo": Tool()} if tools is None else tools, port=port, seed=seed)
        self.pids: list[int] = []
        self._ignores_sigterm = False
        self._flood = 0
        self._questions: dict[Any, dict[str, Any]] = {}

    @property
    def command(self) -> list[str]:
        """The command line of the program."""
        return [sys.executable, "-I", str(_PROGRAM), f"http://127.0.0.1:{self.port}{_SAID}"]

    @property
    def spec(self) -> dict[str, Any]:
        """What to deploy, and what a file of an MCP client says: ``command`` and ``args``."""
        program, *arguments = self.command
        return {"command": program, "args": arguments}

    def check(self, fault: Fault) -> None:
        """Raise ``ValueError`` for what is no fault, or one of HTTP."""
        super().check(fault)
        if not isinstance(fault, servers.ServerFault) and not is_played_by_programs(fault):
            raise ValueError(f"{type(fault).__name__} is a fault of HTTP, and does not exist for a program")

    # Faults of the server itself

    def ignore_sigterm(self) -> None:
        """Go on after SIGTERM, from the next start on."""
        self._ignores_sigterm = True

    def flood_stderr(self, size: int) -> None:
        """Write to standard error with every request."""
        self._flood = size

    def clear_faults(self) -> None:
        """Forget all faults, and answer correctly again; what was executed stays in the ledger."""
        super().clear_faults()
        self._ignores_sigterm, self._flood = False, 0

    def answer(self, request: Request) -> tuple[int, dict[str, str], dict[str, Any] | None]:
        """Refuse what is for a server of HTTP."""
        return 404, {}, refusal(request.id, -32600, message="this server is a program: start its command")

    # What the program asks

    def controlled(self, verb: str, path: str, body: bytes) -> object | None:
        """Answer the program, or whoever controls it."""
        if (verb, path) != ("POST", _SAID):
            return super().controlled(verb, path, body)
        # Not msgspec: it refuses half a surrogate pair, and rounds large numbers.
        said = json.loads(body)
        if not isinstance(said, dict) or not {"pid", "message"} <= said.keys():
            raise ValueError("a program says its pid and a message")
        return {"do": self.begun(said["pid"]) if said["message"] is None else self.take(said["message"], said["pid"])}

    def begun(self, pid: int) -> list[Instruction]:
        """Return what the program does at its start."""
        with self._lock:
            self.pids.append(pid)
        self.news()
        return [{"ignore_sigterm": True}] if self._ignores_sigterm else []

    def take(self, message: Any, pid: int) -> list[Instruction]:
        """Return what the program does about one message of its client."""
        if not isinstance(message, dict):
            return []
        request = self.record(
            Request(number=-1, connection=-1, verb="POST", path="", headers={}, body=b"", message=message)
        )
        asked = self._questions.pop(message.get("id"), None) if request.method is None else None
        if asked is not None:
            return [{"write": self._reply(asked, pid)}]
        if request.method is None or request.id is None:
            return []
        code = self.take_exit(request)
        if code is not None:
            return [{"exit": code}]
        do: list[Instruction] = [{"stderr": self._flood}] if self._flood else []
        delay_s = self.delay_s()
        if delay_s:
            do.append({"sleep": delay_s})
        fault = self.take_fault(request)
        if fault is None:
            return [*do, {"write": self._reply(message, pid)}]
        return do + instructions_for(fault, message, lambda: self._reply(message, pid), self._questions)

    def _reply(self, message: dict[str, Any], pid: int) -> dict[str, Any]:
        meta = meta_of(message.get("params"))
        if self.era == "stateless":
            if meta is None:
                return refusal(message.get("id"), -32602, message="this server speaks 2026-07-28 only")
            version = meta[f"{META}protocolVersion"]
            if version != STATELESS:
                return refusal(message.get("id"), -32022, {"supported": [STATELESS], "requested": version})
        return self._answers.reply(message, pid)
