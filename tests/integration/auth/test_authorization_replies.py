"""What real authorization servers answer to registrations and grants: all that is harmless is taken, and no refusal is missed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
from aiohttp import web
from support.authorization import ProtectedServer, Seen, authorized

from mcp_manager import AuthError, FileTokenStore, McpManager, MemoryTokenStore

Reply = Callable[[], web.Response]


async def call(manager: McpManager) -> Any:
    return await manager.call_tool("a", "echo", {})


def with_members(**members: Any) -> Callable[[Seen, dict[str, Any]], web.Response]:
    return lambda _, body: web.json_response({**body, **members})


def without(name: str) -> Callable[[Seen, dict[str, Any]], web.Response]:
    return lambda _, body: web.json_response({key: value for key, value in body.items() if key != name})


def as_text(
    write: Callable[[dict[str, Any]], str | bytes], kind: str
) -> Callable[[Seen, dict[str, Any]], web.Response]:
    def reply(_: Seen, body: dict[str, Any]) -> web.Response:
        written = write(body)
        return web.Response(body=written if isinstance(written, bytes) else written.encode(), content_type=kind)

    return reply


TOKENS = {
    "expires_in as text": with_members(expires_in="3600"),
    "expires_in as a fraction in text": with_members(expires_in="3599.5"),
    "expires_in null": with_members(expires_in=None, refresh_token=None, scope=None),
    "expires_in 0": with_members(expires_in=0),
    "expires_in negative": with_members(expires_in=-1),
    "expires_in nonsense": with_members(expires_in=["3600"]),
    "expires_in that overflows": as_text(
        lambda body: json.dumps({**body, "expires_in": 0}).replace(": 0", ": 1" + "0" * 400), "application/json"
    ),
    "expires_in absurd": with_members(expires_in=10**15),
    "refresh_token that cannot be sent": as_text(
        lambda body: json.dumps({**body, "refresh_token": "\ud83d\n"}), "application/json"
    ),
    "scope a list": with_members(scope=["a", "b"]),
    "scope empty": with_members(scope=""),
    "token_type BEARER": with_members(token_type="BEARER"),
    "token_type of Slack": with_members(token_type="user"),
    "token_type null": with_members(token_type=None),
    "token_type missing": without("token_type"),
    "error null beside the token": with_members(error=None, error_description=None),
    "members of others": with_members(id_token="a.b.c", ext_expires_in=1, ok=True),
    "201": lambda _, body: web.json_response(body, status=201),
    "a form": as_text(urlencode, "application/x-www-form-urlencoded"),
    "a form as plain text": as_text(urlencode, "text/plain"),
    "JSON as text": as_text(json.dumps, "text/html"),
    "JSON with a byte order mark": as_text(
        lambda body: b"\xef\xbb\xbf" + json.dumps(body).encode(), "application/json"
    ),
    "JSON with a lone surrogate": as_text(lambda body: json.dumps({**body, "name": "\ud83d"}), "application/json"),
    "JSON with a number too large": as_text(lambda body: json.dumps(body)[:-1] + ', "x": 1e999}', "application/json"),
}


@pytest.mark.parametrize("reply", TOKENS.values(), ids=TOKENS)
async def test_a_token_is_taken_however_it_is_wrapped(reply: Callable[[Seen, dict[str, Any]], web.Response]) -> None:
    with ProtectedServer(token_reply=reply, gives_refresh=True) as server:
        async with authorized(server) as manager:
            await call(manager)
        assert len(server.to("/authorize")) == 1
        assert len(server.to("/token")) == 1


@pytest.mark.parametrize("kind", ["DPoP", "mac", "PoP", "N_A"])
async def test_a_token_that_needs_a_proof_is_not_sent_without(kind: str) -> None:
    with ProtectedServer(token_reply=with_members(token_type=kind)) as server:
        async with authorized(server) as manager:
            with pytest.raises(AuthError, match=f"returned a token of type {kind.lower()}"):
                await call(manager)
        assert [each for each in server.to("/mcp") if "authorization" in each.headers] == []


# What is laid over the reply, and how the client authenticates from then on.
REGISTRATIONS = {
    "method null": ({"token_endpoint_auth_method": None}, "none"),
    "method empty, others null": ({"token_endpoint_auth_method": "", "grant_types": None, "scope": None}, "none"),
    "method null with a secret": ({"token_endpoint_auth_method": None, "client_secret": "s3cret"}, "basic"),
    "post with a secret": ({"token_endpoint_auth_method": "client_secret_post", "client_secret": "s3cret"}, "post"),
    "basic without a secret": ({"token_endpoint_auth_method": "client_secret_basic"}, "none"),
    "a secret for a public client": ({"client_secret": "s3cret"}, "none"),
    "a secret that never expires": (
        {
            "client_secret": "s3cret",
            "client_secret_expires_at": "0",
            "token_endpoint_auth_method": "client_secret_basic",
        },
        "basic",
    ),
    "a secret that expired before it was given": (
        {"client_secret": "s3cret", "client_secret_expires_at": 1, "token_endpoint_auth_method": "client_secret_post"},
        "post",
    ),
    "a method that it does not have": ({"token_endpoint_auth_method": "client_secret_jwt"}, "none"),
    "client_id a number": ({"client_id": 12345}, "none"),
    "everything optional null": ({"client_secret": None, "client_secret_expires_at": None, "contacts": None}, "none"),
}


def authentication(seen: Seen) -> str:
    """Tell how a client proved who it is."""
    if "authorization" in seen.headers:
        return "basic"
    return "post" if "client_secret" in seen.form else "none"


@pytest.mark.parametrize(("laid_over", "expected"), REGISTRATIONS.values(), ids=REGISTRATIONS)
@pytest.mark.parametrize("status", [200, 201])
async def test_a_registration_is_what_its_reply_makes_it(laid_over: dict[str, Any], expected: str, status: int) -> None:
    with ProtectedServer(registration=laid_over, registration_status=status) as server:
        async with authorized(server) as manager:
            await call(manager)
        (sent,) = server.to("/token")
        assert authentication(sent) == expected
        assert sent.form["client_id"] == server.to("/authorize")[0].query["client_id"]


async def test_a_method_that_only_the_server_has_is_refused_before_the_user_is_asked() -> None:
    offered = {"token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    laid_over = {"token_endpoint_auth_method": "private_key_jwt"}
    with ProtectedServer(metadata=offered, registration=laid_over) as server:
        async with authorized(server) as manager:
            with pytest.raises(AuthError, match=r"private_key_jwt, which was not asked for") as caught:
                await call(manager)
        assert "auth.client_id" in caught.value.hint
        assert server.to("/authorize") == []


async def test_a_client_registers_for_what_it_asks_for() -> None:
    with ProtectedServer(scope_needed="read write", registrable=frozenset({"read", "write"})) as server:
        async with authorized(server) as manager:
            await call(manager)
        (registered,) = server.to("/register")
        assert registered.form["scope"] == server.to("/authorize")[0].query["scope"] == "read write"


async def test_a_client_that_asks_for_more_registers_for_all_of_it() -> None:
    with ProtectedServer(scope_needed="read", call_scope="write") as server:
        async with authorized(server) as manager:
            await manager.list_tools("a")
            await call(manager)
        assert [each.form["scope"] for each in server.to("/register")] == ["read", "read write"]


async def test_scopes_that_nobody_may_register_for_are_left_out_and_asked_for_all_the_same() -> None:
    with ProtectedServer(scope_needed="read", registrable=frozenset()) as server:
        async with authorized(server) as manager:
            await call(manager)
        assert [each.form.get("scope") for each in server.to("/register")] == ["read", None]
        assert server.to("/authorize")[0].query["scope"] == "read"


async def test_a_refused_registration_says_where_why_and_what_to_do() -> None:
    refusal = {"client_id": None, "error": "invalid_redirect_uri", "error_description": "only https is allowed"}
    with ProtectedServer(registration=refusal, registration_status=400) as server:
        async with authorized(server) as manager:
            with pytest.raises(AuthError) as caught:
                await call(manager)
        text = str(caught.value)
        assert f"{server.origin}/as1/register" in text
        assert "invalid_redirect_uri, only https is allowed" in text
        assert "auth.client_id" in caught.value.hint


async def test_who_asks_is_told_beside_the_header_and_left_out_where_that_is_too_much() -> None:
    def strict(seen: Seen, body: dict[str, Any]) -> web.Response:
        if "authorization" in seen.headers and "client_id" in seen.form:
            error = {"error": "invalid_request", "error_description": "Cannot supply multiple client credentials."}
            return web.json_response(error, status=400)
        return web.json_response(body)

    with ProtectedServer(token_reply=strict, metadata={"token_endpoint_auth_methods_supported": None}) as server:
        server.challenges = Rereadable()
        async with authorized(server, client_id="c d", client_secret="s/3+c~r: %") as manager:
            await call(manager)
        first, second = server.to("/token")
        assert first.form["client_id"] == "c d"
        assert "client_id" not in second.form
        assert first.headers["authorization"] == second.headers["authorization"]
        pair = base64.b64decode(first.headers["authorization"].removeprefix("Basic ")).decode()
        assert [unquote(each) for each in pair.split(":")] == ["c d", "s/3+c~r: %"]
        assert len(server.to("/authorize")) == 1


class Rereadable(dict[str, dict[str, str]]):
    """Codes that stay good: who refuses the client has not looked at its code."""

    def pop(self, key: str, *_: Any) -> dict[str, str]:  # type: ignore[override]
        return self[key]


REFUSALS: dict[str, Reply] = {
    "400 invalid_grant": lambda: web.json_response({"error": "invalid_grant"}, status=400),
    "400 with another member": lambda: web.json_response({"error_code": "refresh_token_not_found"}, status=400),
    "400 without JSON": lambda: web.Response(status=400, text="Bad Request"),
    "400 empty": lambda: web.Response(status=400),
    "401 invalid_client": lambda: web.json_response({"error": "invalid_client"}, status=401),
    "403 text": lambda: web.Response(status=403, text="no"),
    "404": lambda: web.Response(status=404),
    "200 bad_refresh_token": lambda: web.json_response({"error": "bad_refresh_token", "error_description": "expired"}),
    "200 bad_refresh_token as a form": lambda: web.Response(
        text="error=bad_refresh_token&error_description=expired", content_type="application/x-www-form-urlencoded"
    ),
    "200 ok false": lambda: web.json_response({"ok": False, "error": "invalid_refresh_token"}),
    "200 with a nested error": lambda: web.json_response({"error": {"code": "INVALID", "message": "expired"}}),
    "200 login page": lambda: web.Response(text="<html>Sign in</html>", content_type="text/html"),
    "200 empty": lambda: web.Response(),
    "200 null token": lambda: web.json_response({"access_token": None}),
    "204": lambda: web.Response(status=204),
    "302 to a login page": lambda: web.Response(status=302, headers={"Location": "/login?next=x"}),
    "303 to elsewhere": lambda: web.Response(status=303, headers={"Location": "https://sso.example.com/"}),
    "500 invalid_grant": lambda: web.json_response({"error": "invalid_grant"}, status=500),
    "200 a token that needs a proof": lambda: web.json_response({"access_token": "x", "token_type": "mac"}),
}


@pytest.mark.parametrize("reply", REFUSALS.values(), ids=REFUSALS)
async def test_a_dead_refresh_token_asks_the_user_once_and_is_dropped(reply: Reply) -> None:
    store = MemoryTokenStore()
    with ProtectedServer(gives_refresh=True, refresh_reply=reply) as server:
        async with authorized(server, token_store=store) as manager:
            await call(manager)
            server.valid.clear()
            await asyncio.gather(*(call(manager) for _ in range(8)))
            await call(manager)
        assert len(server.to("/authorize")) == 2
        refreshes = [each.form["refresh_token"] for each in server.to("/token") if "refresh_token" in each.form]
        assert len(refreshes) == 1


@pytest.mark.parametrize("reply", [REFUSALS["200 bad_refresh_token"], REFUSALS["302 to a login page"]])
async def test_a_dead_refresh_token_is_not_tried_after_a_restart_either(reply: Reply) -> None:
    store = MemoryTokenStore()
    with ProtectedServer(gives_refresh=True, refresh_reply=reply) as server:

        async def absent(url: str) -> str:
            raise LookupError("nobody is there")

        async with authorized(server, token_store=store) as manager:
            await call(manager)
        for _ in range(2):
            server.valid.clear()
            async with authorized(server, absent, token_store=store) as manager:
                with pytest.raises(AuthError, match="LookupError"):
                    await call(manager)
        assert len([each for each in server.to("/token") if "refresh_token" in each.form]) == 1


TRANSIENT: dict[str, Reply] = {
    "429": lambda: web.json_response({"error": "slow down"}, status=429),
    "500": lambda: web.json_response({"error": "server_error"}, status=500),
    "502 page": lambda: web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html"),
    "503 whatever it says": lambda: web.json_response({"error": "invalid_grant"}, status=503),
    "504": lambda: web.Response(status=504),
    "400 temporarily_unavailable": lambda: web.json_response({"error": "temporarily_unavailable"}, status=400),
    "200 ratelimited": lambda: web.json_response({"ok": False, "error": "ratelimited"}),
}


@pytest.mark.parametrize("reply", TRANSIENT.values(), ids=TRANSIENT)
async def test_what_is_no_verdict_keeps_the_refresh_token(reply: Reply) -> None:
    store = MemoryTokenStore()
    with ProtectedServer(gives_refresh=True, refresh_reply=reply) as server:
        async with authorized(server, token_store=store) as manager:
            await call(manager)
            server.valid.clear()
            with pytest.raises(AuthError, match="is not available") as caught:
                await call(manager)
            assert caught.value.retryable
            assert caught.value.delivery in ("rejected", "not_sent")
        server.refresh_reply = None
        async with authorized(server, token_store=store) as manager:
            await call(manager)
        assert len(server.to("/authorize")) == 1
        used = [each.form["refresh_token"] for each in server.to("/token") if "refresh_token" in each.form]
        assert len(used) == 2
        assert len(set(used)) == 1


@pytest.mark.both_loops
async def test_a_network_that_is_gone_keeps_the_refresh_token() -> None:
    with ProtectedServer(gives_refresh=True) as server:
        async with authorized(server) as manager:
            await call(manager)
            server.valid.clear()
            server.metadata = {"token_endpoint": "http://127.0.0.1:1/token"}
            with pytest.raises(AuthError, match=r"http://127\.0\.0\.1:1/token cannot be reached") as caught:
                await call(manager)
            assert caught.value.retryable
            with pytest.raises(AuthError, match="cannot be reached"):
                await call(manager)
        assert len(server.to("/authorize")) == 1


async def test_no_secret_that_a_server_sends_back_is_shown(tmp_path: Any) -> None:
    def echo(seen: Seen, _: dict[str, Any]) -> web.Response:
        said = " ".join([*map(str, seen.form.values()), seen.headers.get("authorization", "")])
        return web.json_response({"error": seen.form["code"], "error_description": said[:190]}, status=400)

    for client in ({}, {"client_id": "c", "client_secret": "sentinel-secret"}):
        with ProtectedServer(token_reply=echo, metadata={"token_endpoint_auth_methods_supported": None}) as server:
            async with authorized(server, token_store=FileTokenStore(tmp_path), **client) as manager:
                with pytest.raises(AuthError) as caught:
                    await call(manager)
            sent = server.to("/token")[0]
            text = f"{caught.value}{caught.value!r}{caught.value.hint}"
            assert "the token endpoint at" in text
            secrets = [sent.form["code"], sent.form["code_verifier"], "sentinel-secret"]
            secrets += sent.headers.get("authorization", "").split()[1:]
            assert [each for each in secrets if each in text or each[:12] in text] == []
