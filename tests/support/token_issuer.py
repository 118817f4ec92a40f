"""An authorization server for clients of a gateway: metadata, keys and introspection, with the faults that tests set."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections import Counter
from typing import Any, Final, Self

import msgspec
from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

__all__ = ["AUDIENCE", "ISSUED", "Request", "TokenIssuer", "made_key"]

AUDIENCE: Final = "https://gateway.example.com/mcp"
ISSUED: Final = {"RS256": "RSA", "PS256": "RSA", "ES256": "P-256", "ES384": "P-384", "EdDSA": "Ed25519"}


def made_key(algorithm: str) -> Key:
    """Make a private key for an algorithm."""
    kind = ISSUED[algorithm]
    if kind == "RSA":
        return RSAKey.generate_key(2048)
    return OKPKey.generate_key("Ed25519") if kind == "Ed25519" else ECKey.generate_key(kind)


class Request:
    """A request of a client of the gateway."""

    def __init__(self, path: str = "/mcp", host: bytes | None = b"127.0.0.1:1", **fields: bytes) -> None:
        self.on_gone: Any = None
        self.method = "POST"
        self.path = path
        self.body = b""
        self._fields = {name.replace("_", "-").encode(): value for name, value in fields.items()}
        if host is not None:
            self._fields[b"host"] = host

    @classmethod
    def bearing(cls, token: str, path: str = "/mcp") -> Request:
        """Make a request with a token."""
        return cls(path, authorization=b"Bearer " + token.encode())

    def header(self, name: bytes) -> bytes | None:
        """Return a header field."""
        return self._fields.get(name)

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return all header fields."""
        return list(self._fields.items())

    def reply(self, status: int, body: bytes, fields: bytes = b"") -> None:
        """Do not take a response."""
        raise AssertionError

    def open_events(self, fields: bytes = b"") -> Any:
        """Do not take a stream."""
        raise AssertionError


class _Registry(jws.JWSRegistry):
    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]

    def check_header(self, header: Any) -> None:
        """Sign whatever a test wants."""


class TokenIssuer:
    """Serve on a free port of the running loop, in an ``async with`` block.

    Parameters
    ----------
    tls
        The certificate to serve TLS with; ``None`` for none.

    Attributes
    ----------
    keys
        The private keys by id; their public parts are published.
    published
        Members of the JWK Set in place of those.
    status
        The status of all responses.
    is_open
        Cleared, it holds responses back.
    seen
        How often each path was asked for; ``forms`` are those of the introspection endpoint.
    answers
        What introspection answers about a token: an object, or a status.
    metadata
        Members of the metadata in place of the usual ones; ``None`` leaves one out.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.keys: dict[str, Key] = {}
        self.published: list[dict[str, Any]] | None = None
        self.status = 200
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.seen: Counter[str] = Counter()
        self.forms: list[dict[str, Any]] = []
        self.authorized: list[str] = []
        self.answers: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.waiting = 0
        self.most_waiting = 0
        self.redirects: dict[str, str] = {}
        self._runner: web.AppRunner | None = None
        self.origin = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.origin = f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        self.is_open.set()
        await self._runner.cleanup()

    def token(self, key_id: str, algorithm: str = "ES256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Sign a token; a claim or member of the header that is ``None`` is left out."""
        now = int(time.time())
        whole = {"iss": self.origin, "aud": AUDIENCE, "sub": "alice", "exp": now + 600, "iat": now, **claims}
        parts = {"alg": algorithm, "typ": "at+jwt", "kid": key_id, **(header or {})}
        return jws.serialize_compact(
            {name: value for name, value in parts.items() if value is not None},
            msgspec.json.encode({name: value for name, value in whole.items() if value is not None}),
            self.keys[key_id],
            registry=_Registry(strict_check_header=False),
        )

    async def _serve(self, request: web.Request) -> web.Response:
        self.seen[request.path] += 1
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            await self.is_open.wait()
        finally:
            self.waiting -= 1
        if self.status != 200:
            return web.Response(status=self.status)
        if request.path in self.redirects:
            return web.Response(status=302, headers={"Location": self.redirects[request.path]})
        if request.path == "/.well-known/oauth-authorization-server":
            usual = {"issuer": self.origin, "jwks_uri": f"{self.origin}/keys"}
            usual["introspection_endpoint"] = f"{self.origin}/introspect"
            document = {**usual, **self.metadata}
            return web.json_response({name: value for name, value in document.items() if value is not None})
        if request.path == "/keys":
            public = [{**key.as_dict(private=False), "kid": name, "use": "sig"} for name, key in self.keys.items()]
            return web.json_response({"keys": public if self.published is None else self.published})
        if request.path == "/introspect":
            form = dict(await request.post())
            self.forms.append(form)
            self.authorized.append(base64.b64decode(request.headers["Authorization"].partition(" ")[2]).decode())
            answer = self.answers.get(str(form["token"]), {"active": False})
            return web.Response(status=answer) if isinstance(answer, int) else web.json_response(answer)
        return web.Response(status=404)
