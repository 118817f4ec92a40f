"""A scripted authorization server that exchanges tokens, and MCP servers of both eras that admit only its tokens."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from typing import Any, Final, Self

from aiohttp import web
from support.era_server import EraServer, Response

from mcp_manager.testing.scripted import Request

__all__ = ["AuthorizationServer", "ExchangingServer", "subject_of"]

_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TYPE: Final = "urn:ietf:params:oauth:token-type:"

Form = dict[str, str]


class AuthorizationServer:
    """Exchange tokens at ``/token``; ``with`` starts and ends it.

    The token for a JWT about ``alice`` is ``alice@RESOURCE#N``, where ``N`` counts all of them, and ``RESOURCE`` is the
    audience or the port of the resource. ``/idp`` gives identity assertions, and ``/token`` tokens for those.

    Attributes
    ----------
    forms
        The token requests, each with the ``Authorization`` of the gateway as ``client``.
    refusal
        The status and the error code of all replies; ``None``: it gives tokens.
    lifetime_s
        ``expires_in`` of the tokens.
    hold
        Cleared, it lets requests wait.
    """

    def __init__(self) -> None:
        self.forms: list[Form] = []
        self.refusal: tuple[int, str] | None = None
        self.lifetime_s: int | None = 3600
        self.port = 0
        self.hold = threading.Event()
        self.hold.set()
        self._count = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def subjects(self) -> list[str]:
        """Return the tokens of clients that it was given."""
        return [each["subject_token"] for each in self.forms if "subject_token" in each]

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/{path:token|idp}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _serve(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").removeprefix("Basic ")
        client = base64.b64decode(given).decode() if given else ""
        form = {**{name: str(value) for name, value in (await request.post()).items()}, "client": client}
        self.forms.append(form)
        while not self.hold.is_set():
            await asyncio.sleep(0.005)
        if self.refusal is not None:
            status, code = self.refusal
            return web.json_response({"error": code, "error_description": "sentinel-of-the-idp"}, status=status)
        self._count += 1
        if request.path == "/idp":
            assertion = f"assertion-of-{form['subject_token']}"
            return web.json_response(
                {"access_token": assertion, "issued_token_type": _TYPE + "id-jag", "token_type": "N_A"}
            )
        if form["grant_type"] == _BEARER:
            who = subject_of(form["assertion"].removeprefix("assertion-of-"))
            where = "jag"
        else:
            assert form["grant_type"] == _EXCHANGE
            who = subject_of(form["subject_token"])
            where = form.get("audience") or form.get("resource", "").rpartition(":")[2].partition("/")[0]
        reply = {
            "access_token": f"{who}@{where}#{self._count}",
            "issued_token_type": _TYPE + "access_token",
            "token_type": "Bearer",
        }
        if self.lifetime_s is not None:
            reply["expires_in"] = self.lifetime_s  # type: ignore[assignment]
        return web.json_response(reply)


class ExchangingServer(EraServer):
    """Admit requests whose token was made for this server, and say in each result who has called.

    ``tools/list`` has a tool that is named like the caller. ``own`` is the token of the gateway itself, if it has one.
    ``refused`` has tokens that are no longer admitted. ``keeps`` are the header fields that results repeat.
    """

    def __init__(self, *speaks: str, own: str | None = None, audience: str | None = None, open: bool = False) -> None:
        super().__init__(*speaks, token=None)
        self.own = own
        self.audience = audience
        self.open = open
        self.refused: set[str] = set()
        self.keeps: tuple[str, ...] = ()
        self.seen: dict[str, set[str]] = {}

    def bytes_seen(self) -> str:
        """Return all that has arrived, as text."""
        return json.dumps([[each.verb, dict(each.headers), each.message] for each in self.requests])

    def tokens(self) -> set[str]:
        """Return the tokens that have arrived."""
        return {each.headers.get("authorization", "").removeprefix("Bearer ") for each in self.requests}

    def answer(self, request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        where = self.audience or str(self.port)
        who, _, rest = token.partition("@")
        is_own = self.own is not None and token == self.own
        if not self.open and not is_own and (rest.partition("#")[0] != where or token in self.refused):
            return 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}, None
        kept = {name: request.headers.get(name) for name in self.keeps}
        who = "gateway" if is_own else who
        status, headers, reply = super().answer(request)
        session = request.headers.get("mcp-session-id") or headers.get("Mcp-Session-Id")
        if session:
            self.seen.setdefault(session, set()).add(json.dumps([who, kept], sort_keys=True))
        if reply is not None and "result" in reply and request.method in ("tools/call", "tools/list"):
            reply = json.loads(json.dumps(reply))
            result: dict[str, Any] = reply["result"]
            result.setdefault("_meta", {})["caller"] = {"who": who, "session": session, "token": token, **kept}
            if request.method == "tools/list":
                result["tools"] = [
                    *result["tools"],
                    {"name": f"of_{who or 'nobody'}", "inputSchema": {"type": "object"}},
                ]
        return status, headers, reply


def subject_of(token: str) -> str:
    """Return whom a JWT is about, or what a plain text names before its first dot."""
    parts = token.split(".")
    if len(parts) != 3:
        return parts[0]
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    return str(claims["sub"])
