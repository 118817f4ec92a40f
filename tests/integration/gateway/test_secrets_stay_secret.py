"""Secrets of clients, servers and the gateway, in whatever place a client shows them: nothing that is told has them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from mcp_manager.gateway.gateway import Gateway
from mcp_manager.gateway.security.api_keys import made_key
from mcp_manager.gateway.security.keys_file import write_keys

ADMIN = "admin-token-of-more-than-32-characters"
SEALING = "session-key-of-more-than-32-characters"
OF_SERVERS = {
    "in the URL": "url-secret-of-a-server",
    "in a field": "field-secret-of-a-server",
    "as a token": "token-secret-of-a-server",
    "in the environment": "env-secret-of-a-server",
}
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":{"name":"t","version":"1"}}}'
)
CALL = b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"far__x","arguments":{"a":"%b"}}}'
SERVERS: dict[str, Any] = {
    "far": {
        "url": f"http://127.0.0.1:1/mcp?key={OF_SERVERS['in the URL']}",
        "headers": {"X-Secret": OF_SERVERS["in a field"]},
        "auth": {"type": "bearer", "token": OF_SERVERS["as a token"]},
    },
    "program": {"command": "/nothing/there", "env": {"SECRET": OF_SERVERS["in the environment"]}},
}


async def answer(gateway: Gateway, line: str, *fields: str, body: bytes = b"") -> str:
    """Send a request on a connection of its own, and return the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    lines = [
        f"{line} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        *fields,
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    writer.write("\r\n".join(lines).encode("latin-1") + body)
    received = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await writer.wait_closed()
    return received.decode("latin-1")


def misplaced(secret: str) -> list[tuple[str, tuple[str, ...], bytes]]:
    """Return requests with a secret where it does not belong, or not so."""
    json, right = "Content-Type: application/json", f"Authorization: Bearer {secret}"
    shown = [
        (f"Authorization: Basic {secret}",),
        (f"Authorization: {secret}",),
        (f"Authorization: Bearer {secret}, {secret}",),
        (right, right),
        (f"Authorization: Bearer {secret}\xff",),
        (f"Authorization: Bearer x{secret}",),
        (f"X-API-Key: {secret}\x01",),
        (f"X-API-Key: {secret}x",),
        (f"Cookie: token={secret}",),
        (f"Origin: http://{secret}.example",),
        (f"Mcp-Session-Id: {secret}",),
        (right, f"Mcp-Session-Id: {secret}"),
        (right, f"Last-Event-ID: {secret}"),
        (right, f"MCP-Protocol-Version: {secret}"),
        (right, f"Content-Encoding: {secret}", f"Accept: {secret}"),
        (f"mcp-manager-sibling: {secret}",),
        (f"{secret}",),
    ]
    found = [(line, (json, *each), INITIALIZE) for line in ("POST /mcp", "PUT /mcp") for each in shown]
    found += [("GET /mcp", ("Accept: text/event-stream", *each), b"") for each in shown]
    found += [("GET /api/v1/config", each, b"") for each in shown]
    for path in ("/mcp", "/metrics", "/api/v1/servers", "/ui", "/ready"):
        found.append((f"GET {path}?access_token={secret}", (), b""))
    found += [("POST /mcp", (json, right), body) for body in (secret.encode(), b'{"a":"%b' % secret.encode())]
    found.append(("POST /mcp", (json, right), INITIALIZE.replace(b"2025-11-25", secret.encode())))
    return found


async def test_secrets_are_told_to_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (key, kept), (operator, also) = made_key("ann"), made_key("operator")
    keys, audit = tmp_path / "keys", tmp_path / "audit"
    write_keys(str(keys), [kept, also])
    serve: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "session_keys": [SEALING],
        "auth": {"type": "api_key", "keys_file": str(keys), "operators": ["operator"]},
        "admin": {"token": ADMIN},
        "audit": {"path": str(audit)},
        "list_changed_delay_s": 0.01,
    }
    told: list[str] = []
    async with Gateway({"servers": SERVERS}, serve=serve) as gateway:
        for secret in (key, ADMIN):
            for line, fields, body in misplaced(secret):
                told.append(await answer(gateway, line, *fields, body=body))
        json = "Content-Type: application/json"
        begun = await answer(gateway, "POST /mcp", json, f"X-API-Key: {key}", body=INITIALIZE)
        session = next(each for each in begun.split("\r\n") if each.startswith("Mcp-Session-Id"))
        told.append(begun)
        failed = await answer(gateway, "POST /mcp", json, session, f"X-API-Key: {key}", body=CALL % key.encode())
        assert '"error"' in failed
        told.append(failed)
        told += [await answer(gateway, f"GET {each}", f"X-API-Key: {operator}") for each in ("/", "/metrics", "/ready")]
        pages = ("config", "snapshot", "servers", "servers/far", "servers/far/flights", "servers/far/tools")
        for path in (*pages, "servers/program/stderr", "openapi.json", "views"):
            shown = await answer(gateway, f"GET /api/v1/{path}", f"Authorization: Bearer {ADMIN}")
            assert shown.startswith(("HTTP/1.1 200 ", "HTTP/1.1 502 ", "HTTP/1.1 504 ")), (path, shown)
            told.append(shown)
        told.append(repr(gateway.serve))
        told.append(repr(gateway.manager.snapshot()))
    written = audit.read_text()
    assert "authentication" in written and "far" in written
    for secret in (key, operator, ADMIN, SEALING, *OF_SERVERS.values()):
        for what in (*told, written, caplog.text):
            at = what.lower().find(secret.lower())
            assert at < 0, (secret, what[max(0, at - 300) : at + 100])
