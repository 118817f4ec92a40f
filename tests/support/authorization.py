"""A protected MCP server and its authorization server on a thread of their own; tests configure their faults."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiohttp import web

from mcp_manager import McpManager, RedirectHandler, TokenStore
from mcp_manager.testing.scripted.watching import Watched

__all__ = ["PATIENT", "ProtectedServer", "Seen", "authorized", "oauth"]

PATIENT: dict[str, Any] = {"health": {"enabled": False}, "connect": "lazy", "connect_timeout_s": 20.0}
"""Settings under which only calls connect, and leave the user time to agree."""


def oauth(**auth: Any) -> dict[str, Any]:
    """Return the settings of a server that uses OAuth."""
    return {**PATIENT, "auth": {"type": "oauth", **auth}}


@contextlib.asynccontextmanager
async def authorized(
    server: ProtectedServer,
    redirect_handler: RedirectHandler | None = None,
    token_store: TokenStore | None = None,
    **auth: Any,
) -> AsyncIterator[McpManager]:
    """Run a manager that has a server deployed as ``a``; without ``redirect_handler`` the user agrees to everything."""
    async with McpManager(redirect_handler=redirect_handler or server.agree, token_store=token_store) as manager:
        await manager.deploy("a", {"url": server.url, **oauth(**auth)})
        yield manager


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; ``form`` has the fields of its form or JSON object."""

    verb: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, Any]


@dataclass
class ProtectedServer(Watched):
    """Serve ``/mcp`` to clients with a token, and issue tokens at ``/as1`` and ``/as2``. ``with`` starts and ends it.

    ``metadata`` and ``resource`` override members of the documents, or with ``None`` remove them. ``documents``
    replaces all documents by well-known path; ``{origin}`` in its texts is filled in. ``resource_metadata`` is the URL
    of the resource's document in the challenge. ``registration`` overrides members of the reply to a registration, and
    ``registrable`` are the scopes that a client can be registered for. ``token_reply`` makes the reply to a token
    request from the tokens that would be issued, ``refresh_reply`` the reply to a refresh token.
    """

    metadata: dict[str, Any] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    has_resource_metadata: bool = True
    issuer: str = "as1"
    iss: str | None = None
    scope_needed: str = ""
    call_scope: str = ""
    names_call_scope: bool = True
    lifetime_s: float | None = 3600.0
    gives_refresh: bool = False
    refuses_all: bool = False
    token_status: int = 200
    token_error: str = "invalid_grant"
    nonce: str = ""
    token_type: str = "Bearer"
    first_number: int = 1
    other_challenges: tuple[str, ...] = ()
    has_stream: bool = False
    speaks_sse: bool = False
    more_issuers: tuple[str, ...] = ()
    documents: dict[str, Any] | None = None
    resource_metadata: str = ""
    registration: dict[str, Any] = field(default_factory=dict)
    registration_status: int = 201
    registrable: frozenset[str] | None = None
    refuses_resource: bool = False
    token_reply: Callable[[Seen, dict[str, Any]], web.Response] | None = None
    refresh_reply: Callable[[], web.Response] | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self.valid: dict[str, set[str]] = {}
        self.challenges: dict[str, dict[str, str]] = {}
        self.port = 0
        self._count = self.first_number - 1
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._streams: list[web.StreamResponse] = []
        self._ended = asyncio.Event()
        self.streams_opened: list[str] = []
        # How many calls with an argument "late" wait for release(); their answers are already determined.
        self.late = 0
        self._released = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.end_streams()
        self._run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/mcp"

    def end_streams(self) -> None:
        """End every event stream."""

        async def end() -> None:
            self._ended.set()
            self._ended = asyncio.Event()

        self._run(end())

    def release(self) -> None:
        """Send the answers of waiting "late" calls; later ones wait again."""

        async def let_out() -> None:
            self._released.set()
            self._released = asyncio.Event()
            self.late = 0

        self._run(let_out())

    def to(self, path: str) -> list[Seen]:
        """Return the requests whose path ends with ``path``, those for well-known documents excepted."""
        return [each for each in list(self.seen) if each.path.endswith(path) and ".well-known" not in each.path]

    async def wait_for(self, path: str, count: int) -> None:
        """Wait until ``count`` requests to a path have arrived; see :meth:`to`."""
        await self.wait_until(lambda: len(self.to(path)) >= count)

    async def agree(self, url: str) -> str:
        """Play the user who agrees: return the redirect that the authorization server would send."""
        query = dict(parse_qsl(urlsplit(url).query))
        issuer = urlsplit(url).path.split("/")[1]
        self._note(Seen("GET", urlsplit(url).path, {}, query, {}))
        code = self._next("code")
        self.challenges[code] = query
        answer = {"code": code, "state": query["state"]}
        iss = f"{self.origin}/{issuer}" if self.iss is None else self.iss
        if iss:
            answer["iss"] = iss
        return f"{query['redirect_uri']}?{urlencode(answer)}"

    def _note(self, seen: Seen) -> None:
        self.seen.append(seen)
        self.news()

    def _next(self, what: str) -> str:
        self._count += 1
        return f"sentinel-{what}-{self._count}"

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        is_json = request.content_type == "application/json"
        form = await request.json() if is_json and request.can_read_body else dict(await request.post())
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(request.method, request.path, headers, dict(request.query), form)
        self._note(seen)
        if request.path == "/mcp" and not (request.method == "POST" and self.speaks_sse):
            answer = self._mcp(seen)
            if answer.status == 405 and self.has_stream:
                return await self._stream(request)
            if seen.form.get("method") == "tools/call" and seen.form["params"].get("arguments", {}).get("late"):
                self.late += 1
                self.news()
                await self._released.wait()
            return self._with_others(answer)
        if request.path == "/messages":
            answer = self._mcp(seen)
            if answer.status != 200:
                return self._with_others(answer)
            await self._streams[-1].write(b"data: " + (answer.body or b"") + b"\n\n")  # type: ignore[operator]
            return web.Response(status=202)
        if self.documents is not None and "/.well-known/" in request.path:
            found = self.documents.get(request.path)
            if found is None:
                return web.Response(status=404, text="no such page")
            return web.Response(
                text=json.dumps(found).replace("{origin}", self.origin), content_type="application/json"
            )
        if "/.well-known/oauth-protected-resource" in request.path:
            if not self.has_resource_metadata:
                return web.Response(status=404)
            issuers = [*self.more_issuers, f"{self.origin}/{self.issuer}"]
            return _json({"resource": self.url, "authorization_servers": issuers}, self.resource)
        if request.path.startswith("/.well-known/oauth-authorization-server/"):
            return self._as_metadata(request.path.rpartition("/")[2])
        if self._is(request.path, "registration_endpoint", "/register"):
            return self._register(seen)
        if self._is(request.path, "token_endpoint", "/token", "/access_token"):
            return self._token(seen)
        return web.Response(status=404)

    def _is(self, path: str, endpoint: str, *usual: str) -> bool:
        """Tell whether a path is that of an endpoint: ``documents`` names it, or it ends as usual."""
        named = {document.get(endpoint) for document in (self.documents or {}).values()}
        return path.endswith(usual) or f"{{origin}}{path}" in named

    def _with_others(self, answer: web.Response) -> web.Response:
        if answer.status in (401, 403):
            own = answer.headers.popall("WWW-Authenticate")
            for each in (*self.other_challenges, *own):
                answer.headers.add("WWW-Authenticate", each)
        return answer

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        self._streams.append(stream)
        self.streams_opened.append(request.headers["Authorization"])
        await stream.write(b"event: endpoint\ndata: /messages\n\n" if self.speaks_sse else b": open\n\n")
        self.news()
        await self._ended.wait()
        return stream

    def _as_metadata(self, name: str) -> web.Response:
        issuer = f"{self.origin}/{name}"
        document = {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "registration_endpoint": f"{issuer}/register",
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "authorization_response_iss_parameter_supported": True,
        }
        return _json(document, self.metadata)

    def _register(self, seen: Seen) -> web.Response:
        asked = set(seen.form.get("scope", "").split())
        if self.registrable is not None and not asked <= self.registrable:
            error = {"error": "invalid_client_metadata", "error_description": "not permitted to use these scopes"}
            return web.json_response(error, status=403)
        method = seen.form.get("token_endpoint_auth_method")
        document = {"client_id": self._next("client"), "token_endpoint_auth_method": method, **self.registration}
        return web.json_response(document, status=self.registration_status)

    def _token(self, seen: Seen) -> web.Response:
        if self.nonce and self.nonce != _nonce_of(seen.headers.get("dpop", "")):
            return web.json_response({"error": "use_dpop_nonce"}, status=400, headers={"DPoP-Nonce": self.nonce})
        if self.token_status != 200:
            return web.json_response({"error": self.token_error}, status=self.token_status)
        form = seen.form
        if form["grant_type"] == "refresh_token" and self.refresh_reply is not None:
            return self.refresh_reply()
        scopes = set(form.get("scope", "").split())
        if form["grant_type"] == "authorization_code":
            asked = self.challenges.pop(form["code"])
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
            wanted = None if self.refuses_resource else self.resource.get("resource", self.url)
            if not form.get("resource") == asked.get("resource") == wanted:
                return web.json_response({"error": "invalid_target"}, status=400)
            scopes = set(asked.get("scope", "").split())
        token = self._next("token")
        self.valid[token] = scopes
        body: dict[str, Any] = {"access_token": token, "token_type": self.token_type}
        if self.lifetime_s is not None:
            body["expires_in"] = self.lifetime_s
        if self.gives_refresh:
            body["refresh_token"] = self._next("refresh")
        return web.json_response(body) if self.token_reply is None else self.token_reply(seen, body)

    def _mcp(self, seen: Seen) -> web.Response:
        scheme, _, token = seen.headers.get("authorization", "").partition(" ")
        place = self.resource_metadata or f"{self.origin}/.well-known/oauth-protected-resource/mcp"
        where = f'resource_metadata="{place}"'
        if not self.has_resource_metadata:
            where = 'realm="x"'
        if scheme != self.token_type or token not in self.valid or self.refuses_all:
            needed = f', scope="{self.scope_needed}"' if self.scope_needed else ""
            return web.Response(status=401, headers={"WWW-Authenticate": f"{self.token_type} {where}{needed}"})
        if self.nonce and self.nonce != _nonce_of(seen.headers.get("dpop", "")):
            says = f'DPoP error="use_dpop_nonce", {where}'
            return web.Response(status=401, headers={"WWW-Authenticate": says, "DPoP-Nonce": self.nonce})
        method = seen.form.get("method")
        if method == "tools/call" and self.call_scope and self.call_scope not in self.valid[token]:
            named = f', scope="{self.call_scope}"' if self.names_call_scope else ""
            says = f'Bearer error="insufficient_scope"{named}, {where}'
            return web.Response(status=403, headers={"WWW-Authenticate": says})
        result: dict[str, Any]
        if seen.verb != "POST":
            return web.Response(status=405)
        if "id" not in seen.form:
            return web.Response(status=202)
        if method == "initialize":
            result = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "protected", "version": "1"},
            }
        elif method == "tools/list":
            result = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        elif method == "tools/call":
            result = {"content": [{"type": "text", "text": "done"}]}
        else:
            error = {"code": -32601, "message": "no such method"}
            return web.json_response({"jsonrpc": "2.0", "id": seen.form["id"], "error": error})
        headers = {"Mcp-Session-Id": "one"} if method == "initialize" else {}
        return web.json_response({"jsonrpc": "2.0", "id": seen.form["id"], "result": result}, headers=headers)


def _json(document: dict[str, Any], over: dict[str, Any]) -> web.Response:
    merged = {**document, **over}
    return web.json_response({name: value for name, value in merged.items() if value is not None})


def _nonce_of(proof: str) -> object:
    parts = proof.split(".")
    return json.loads(base64.urlsafe_b64decode(parts[1] + "==")).get("nonce") if len(parts) == 3 else None
