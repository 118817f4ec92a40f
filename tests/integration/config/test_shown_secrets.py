"""A credential that was filled into a path, and that the server says back, stands in nothing that anybody is shown."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from pathlib import Path

import msgspec
import pytest
from support.calls import CALM, echo

from mcp_manager import CallError, McpManager, RpcError, load_manager_config
from mcp_manager.cli import main
from mcp_manager.testing.scripted import Connection, Request, ScriptedServer

SECRET = "sk-S3cr3tV4lue99"


class Echo:
    """Refuse a request, quoting the credential in several forms: by a status, or by a JSON-RPC error."""

    def __init__(self, status: int) -> None:
        self._status = status

    async def play(self, connection: Connection, request: Request | None) -> None:
        assert request is not None
        said = f"no {SECRET} and no {base64.b64encode(SECRET.encode()).decode()} here"
        error = {"code": -32000, "message": said, "data": {"token": SECRET}}
        body = {"jsonrpc": "2.0", "id": request.id, "error": error} if self._status == 200 else {"detail": said}
        await connection.respond(self._status, {"Content-Type": "application/json"}, json.dumps(body).encode())


async def test_what_was_filled_in_and_comes_back_is_shown_nowhere(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("T", SECRET)
    path = tmp_path / "fleet.json"
    shown: list[str] = []
    with ScriptedServer() as server:
        servers = {
            "path": {"url": server.url.replace("/mcp", "/${T}/mcp"), **CALM},
            "dead": {"url": "http://127.0.0.1:9/${T}/mcp", **CALM},
            "program": {"command": "/no/such/${T}/program", "args": ["--for=${T}"], **CALM},
        }
        path.write_text(json.dumps({"servers": servers}))
        server.script("tools/call", Echo(500), Echo(200))
        config = load_manager_config(path)
        shown.append(repr(config))
        async with McpManager(config) as manager:
            for _ in range(2):
                for server_id in servers:
                    with pytest.raises((CallError, RpcError)) as failure:
                        await manager.call_tool(server_id, "echo", {}, timeout=5)
                    shown += [f"{failure.value!r} {failure.value}", repr(vars(failure.value))]
            shown += [repr(manager.servers()), repr(manager.flight_records()), manager.metrics_text()]
            shown.append(msgspec.json.encode(manager.snapshot()).decode())
            assert json.loads(await manager.execute_raw("path", echo("x")))["result"]
    assert await asyncio.to_thread(main, ["list", "--json", str(path)]) == 0
    shown += [capsys.readouterr().out, caplog.text]
    told = "".join(shown)
    assert "/***/mcp" in told
    assert "no *** and no *** here" in told
    for form in (SECRET, SECRET.lower(), base64.b64encode(SECRET.encode()).decode()):
        assert form not in told
