"""Gateways whose clients authenticate, and that count and record what these do: what each of it costs a call.

``SECURED`` names the steps from a plain view to one with tokens, a limit and an audit log.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["SECURED", "serving"]

SECURED: Final = ("view", "view+jwt", "view+jwt+limit", "view+jwt+audit", "view+jwt+limit+audit")
_AUDIENCE: Final = "https://gateway.example"


@asynccontextmanager
async def serving(parts: str, backend: str, request: bytes) -> AsyncIterator[tuple[str, str]]:
    """Serve a backend at ``/mcp/bench``; yield its URL, and the header field of its client, "" for none.

    Parameters
    ----------
    parts
        One of :data:`SECURED`.
    backend
        The URL of the server.
    request
        A call to connect with.
    """
    from mcp_manager.gateway.gateway import Gateway  # noqa: PLC0415 - each process loads only what it measures

    with tempfile.TemporaryDirectory() as directory:
        async with _issuer() as (issuer, token):
            serve: dict[str, Any] = {"listen": "127.0.0.1:0"}
            field = ""
            if "jwt" in parts:
                serve["auth"] = {"type": "jwt", "issuer": issuer, "jwks_url": f"{issuer}/keys", "audience": [_AUDIENCE]}
                field = f"Bearer {token}"
            if "limit" in parts:
                serve["limits"] = [{"rate": 1e6, "burst": 1_000_000}]
            if "audit" in parts:
                serve["audit"] = {"path": str(Path(directory) / "audit")}
            fleet = {
                "servers": {"bench": {"url": backend}},
                "views": {"bench": {"servers": ["bench"], "names": "short"}},
            }
            async with Gateway(fleet, serve=serve) as gateway:
                await gateway.manager.execute_raw("bench", request)
                yield f"{gateway.url}/mcp/bench", field


@asynccontextmanager
async def _issuer() -> AsyncIterator[tuple[str, str]]:
    """Serve the keys of an authorization server; yield its identifier, and a token."""
    from aiohttp import web  # noqa: PLC0415 - as above
    from joserfc import jwt  # noqa: PLC0415 - as above
    from joserfc.jwk import ECKey  # noqa: PLC0415 - as above

    key = ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256", "use": "sig"})
    app = web.Application()

    async def keys(_: web.Request) -> web.Response:
        return web.json_response({"keys": [key.as_dict(private=False)]})

    app.router.add_get("/keys", keys)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
        now = int(time.time())
        claims = {
            "iss": issuer,
            "aud": _AUDIENCE,
            "sub": "bench",
            "iat": now,
            "exp": now + 86_400,
            "client_id": "bench",
        }
        yield issuer, jwt.encode({"alg": "ES256", "kid": "one", "typ": "at+jwt"}, claims, key)
    finally:
        await runner.cleanup()
