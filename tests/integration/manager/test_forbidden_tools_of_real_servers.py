"""What real servers execute is never a forbidden tool, whatever the request looks like: their ledgers prove it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from support.calls import CALM
from support.odd_params import ALLOWED, DENIED, frames
from support.processes import sdk_http, sdk_stdio

from mcp_manager import CallError, InvalidRequestError, PyMcpManager, ToolNotAllowedError

PATIENT: dict[str, Any] = {**CALM, "connect_timeout_s": 30.0, "validate_output": False}
PLAIN = '{"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}'
FREE, STRICT, SAFE = "free", "strict", "safe"
RULES = {FREE: {}, STRICT: {"deny": [DENIED]}, SAFE: {"allow": [ALLOWED]}}


@dataclass
class Peers:
    """The same server three times: without rules, with a forbidden tool, with one allowed tool."""

    manager: PyMcpManager
    ledgers: dict[str, Path]

    def executed(self, server_id: str) -> set[str]:
        """Return the tools that a server has executed."""
        ledger = self.ledgers[server_id]
        return {line.split()[0] for line in ledger.read_text().splitlines()} if ledger.exists() else set()


KINDS = [
    pytest.param("http", "handshake"),
    *(
        pytest.param(*kind, marks=pytest.mark.slow)
        for kind in (("stdio", "stateless"), ("stdio", "handshake"), ("http", "stateless"), ("sse", "handshake"))
    ),
]


@contextlib.contextmanager
def started(transport: str, era: str, path: Path) -> Iterator[Peers]:
    ledgers = {each: path / each for each in RULES}
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(PyMcpManager())
        for server_id, rules in RULES.items():
            if transport == "stdio":
                where: dict[str, Any] = sdk_stdio(ledgers[server_id]).config()
            else:
                process = stack.enter_context(sdk_http(sse=transport == "sse", ledger=ledgers[server_id]))
                where = {"url": process.url, "transport": transport}
            config = {**where, **PATIENT, "protocol_version": era, "tools": rules}
            manager.deploy_server(server_id, config)
        yield Peers(manager, ledgers)


def send(manager: PyMcpManager, server_id: str, frame: str) -> None:
    """Send a frame, whatever becomes of it."""
    try:
        # The SDK does not answer some malformed requests at all.
        manager.execute(server_id, frame, timeout=0.5)
    except InvalidRequestError:
        pass
    except CallError as error:
        assert server_id != FREE or not isinstance(error, ToolNotAllowedError)


@pytest.mark.parametrize(("transport", "era"), KINDS)
def test_no_frame_makes_a_server_execute_a_forbidden_tool(transport: str, era: str, tmp_path: Path) -> None:
    with started(transport, era, tmp_path) as peers:

        @settings(max_examples=80, suppress_health_check=list(HealthCheck), deadline=None)
        @given(frames())
        @example(PLAIN)
        @example('{"m\\u0065thod":"tools\\/call","params":{"n\\u0061me":"\\u0061dd","arguments":{"a":1,"b":2}}}')
        @example('{"method":"tools/call","params":{"name":"echo","name":"add","arguments":{"a":1,"b":2}}}')
        def attack(frame: str) -> None:
            for server_id in RULES:
                send(peers.manager, server_id, frame)

        attack()
        for server_id in RULES:
            # What was sent before has been executed once this is answered.
            peers.manager.execute(server_id, PLAIN, timeout=30)
        # The frames do their worst where nothing forbids it, so that what follows could fail.
        assert DENIED in peers.executed(FREE)
        assert peers.executed(STRICT) == peers.executed(SAFE) == {ALLOWED}
