"""OAuth against a real authorization server: who gets in, how often anybody is asked, and what must never happen."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from pathlib import Path
from typing import Any

import pytest
from support.authorization import ProtectedServer, authorized, oauth

from mcp_manager import AuthError, FileTokenStore, LoopbackRedirect, McpManager, MemoryTokenStore
from mcp_manager.auth.oauth import flow


async def call(manager: McpManager) -> Any:
    return await manager.call_tool("a", "echo", {})


async def test_every_request_carries_the_token_that_was_obtained() -> None:
    with ProtectedServer() as server:
        async with authorized(server) as manager:
            await call(manager)
            await call(manager)
        asked = server.to("/mcp")
        assert [each.headers.get("authorization") for each in asked[1:]] == ["Bearer sentinel-token-3"] * (
            len(asked) - 1
        )
        assert {each.verb for each in asked} >= {"POST", "DELETE"}
        assert len(server.to("/authorize")) == 1
        registered = server.to("/register")[0].form
        assert registered["application_type"] == "native"
        assert registered["grant_types"] == ["authorization_code", "refresh_token"]


async def test_a_stampede_asks_the_user_once() -> None:
    with ProtectedServer() as server:
        async with McpManager(redirect_handler=server.agree) as manager:
            await manager.deploy("a", {"url": server.url, "instances": 4, **oauth()})
            await call(manager)
            server.valid.clear()
            await asyncio.gather(*(call(manager) for _ in range(20)))
        assert len(server.to("/authorize")) == 2


async def test_a_caller_who_gives_up_leaves_the_flow_to_the_others() -> None:
    agreed = asyncio.Event()
    with ProtectedServer() as server:

        async def slowly(url: str) -> str:
            answer = await server.agree(url)
            await agreed.wait()
            return answer

        async with authorized(server, slowly) as manager:
            first, second = asyncio.create_task(call(manager)), asyncio.create_task(call(manager))
            await server.wait_for("/authorize", 1)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            agreed.set()
            await second
        assert len(server.to("/authorize")) == 1


async def test_a_flow_outlives_a_deadline_and_ends_with_the_manager() -> None:
    with ProtectedServer() as server:

        async def never(url: str) -> str:
            await server.agree(url)
            await asyncio.Event().wait()
            return ""

        async with McpManager(redirect_handler=never) as manager:
            await manager.deploy("a", {"url": server.url, **oauth(), "connect_timeout_s": 0.2})
            with pytest.raises(AuthError, match="authorization in progress") as caught:
                await call(manager)
            assert caught.value.retryable
            with pytest.raises(AuthError, match="authorization in progress"):
                await call(manager)
        assert len(server.to("/authorize")) == 1


async def test_nobody_to_ask_is_said_and_not_tried_at_once_again() -> None:
    with ProtectedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **oauth()})
            for _ in range(3):
                with pytest.raises(AuthError, match="redirect_handler") as caught:
                    await call(manager)
                assert caught.value.delivery == "not_sent"
        assert len(server.to("/register")) == 1


async def test_a_token_that_its_server_refuses_does_not_ask_the_user_again_and_again() -> None:
    with ProtectedServer(refuses_all=True) as server:
        async with authorized(server) as manager:
            for _ in range(4):
                with pytest.raises(AuthError):
                    await call(manager)
        assert len(server.to("/authorize")) <= 3


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({"metadata": {"code_challenge_methods_supported": None}}, "PKCE"),
        ({"metadata": {"code_challenge_methods_supported": ["plain"]}}, "PKCE"),
        ({"metadata": {"issuer": "http://127.0.0.1:1/as1"}}, "another issuer"),
        ({"metadata": {"token_endpoint": "http://as.example.com/token"}}, "not https"),
        ({"metadata": {"registration_endpoint": None}}, "registered in advance"),
        ({"resource": {"resource": "https://other.example.com/mcp"}}, "another resource"),
        ({"resource": {"authorization_servers": []}}, "names no authorization server"),
    ],
)
async def test_the_user_is_not_sent_to_an_authorization_server_that_cannot_be_trusted(
    odd: dict[str, Any], says: str
) -> None:
    with ProtectedServer(**odd) as server:
        async with authorized(server) as manager:
            with pytest.raises(AuthError, match=says):
                await call(manager)
        assert server.to("/authorize") == []


@pytest.mark.parametrize(
    ("iss", "advertised", "accepted"),
    [
        (None, True, True),
        (None, None, True),
        ("", True, False),
        ("", None, True),
        ("https://evil.example.com", True, False),
        ("https://evil.example.com", None, False),
        ("/", True, False),
    ],
)
async def test_the_code_is_redeemed_only_if_its_issuer_is_the_one_that_was_asked(
    iss: str | None, advertised: bool | None, accepted: bool
) -> None:
    with ProtectedServer(metadata={"authorization_response_iss_parameter_supported": advertised}) as server:
        server.iss = f"{server.origin}/as1/" if iss == "/" else iss
        async with authorized(server) as manager:
            if accepted:
                await call(manager)
            else:
                with pytest.raises(AuthError, match="iss"):
                    await call(manager)
        assert bool(server.to("/token")) is accepted


async def test_another_issuer_gets_nothing_that_the_first_one_gave() -> None:
    with ProtectedServer(gives_refresh=True) as server:
        async with authorized(server) as manager:
            await call(manager)
            server.issuer = "as2"
            server.valid.clear()
            await call(manager)
        first = server.to("/as1/authorize")[0].query["client_id"]
        given = {first, "sentinel-token-3", "sentinel-refresh-4"}
        assert "sentinel-token-3" in server.to("/mcp")[1].headers["authorization"]
        for each in (*server.to("/as2/authorize"), *server.to("/as2/token")):
            assert not given & {*each.query.values(), *each.form.values()}
            assert each.form.get("grant_type") in (None, "authorization_code")
        assert len(server.to("/as2/register")) == 1


async def test_registered_credentials_are_not_taken_to_another_issuer() -> None:
    with ProtectedServer() as server:
        async with authorized(
            server, client_id="c", client_secret="sentinel-secret", issuer="https://as.example.com"
        ) as manager:
            with pytest.raises(AuthError, match="another authorization server"):
                await call(manager)
        assert server.to("/authorize") == server.to("/token") == []


async def test_a_token_is_renewed_before_it_expires_and_without_the_user() -> None:
    with ProtectedServer(lifetime_s=0.5, gives_refresh=True) as server:
        async with authorized(server) as manager:
            await call(manager)
            await server.wait_for("/token", 3)
            await call(manager)
        assert [each.form["grant_type"] for each in server.to("/token")][:3] == [
            "authorization_code",
            "refresh_token",
            "refresh_token",
        ]
        # The second refresh token is what the first one was replaced by.
        assert len({each.form.get("refresh_token") for each in server.to("/token")[:3]}) == 3
        assert [each for each in server.to("/mcp") if "authorization" not in each.headers] == server.to("/mcp")[:1]
        assert len(server.to("/authorize")) == 1


async def test_a_403_is_met_with_more_scopes_and_none_is_lost() -> None:
    with ProtectedServer(scope_needed="read", call_scope="write") as server:
        async with authorized(server) as manager:
            await manager.list_tools("a")
            await call(manager)
        assert [each.query["scope"] for each in server.to("/authorize")] == ["read", "read write"]


async def test_a_403_that_names_no_scope_is_met_with_those_of_the_resource() -> None:
    resource = {"scopes_supported": ["read", "write"]}
    with ProtectedServer(resource=resource, call_scope="write", names_call_scope=False) as server:
        async with authorized(server, scopes=["read"]) as manager:
            await manager.list_tools("a")
            await call(manager)
        assert [each.query["scope"] for each in server.to("/authorize")] == ["read", "read write"]


class Once:
    """A user who agrees once, and then says nothing of use ``failures`` times."""

    def __init__(self, server: ProtectedServer, failures: int) -> None:
        self._server = server
        self._left = failures
        self._has_agreed = False

    async def __call__(self, url: str) -> str:
        if self._has_agreed and self._left:
            self._left -= 1
            raise LookupError("an error page")
        self._has_agreed = True
        return await self._server.agree(url)


async def test_a_step_up_that_is_denied_costs_nothing_that_there_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_FIRST_HOLD_OFF_S", 0.0)
    with ProtectedServer(scope_needed="read", call_scope="write", gives_refresh=True) as server:
        async with authorized(server, Once(server, 10)) as manager:
            await manager.list_tools("a")
            with pytest.raises(AuthError, match="LookupError"):
                await call(manager)
            server.valid.clear()
            await manager.list_tools("a")
        assert len(server.to("/authorize")) == 1
        assert server.to("/token")[-1].form["grant_type"] == "refresh_token"
        assert server.to("/token")[-1].form["client_id"] == server.to("/authorize")[0].query["client_id"]


async def test_a_client_that_leads_nowhere_is_registered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_FIRST_HOLD_OFF_S", 0.0)
    with ProtectedServer() as server:
        async with authorized(server, Once(server, 1)) as manager:
            await call(manager)
            server.valid.clear()
            with pytest.raises(AuthError, match="LookupError"):
                await call(manager)
            assert len(server.to("/register")) == 1
            await call(manager)
        assert len(server.to("/register")) == 2


async def test_a_403_that_no_scope_would_help_asks_nobody_and_looks_but_once() -> None:
    resource = {"scopes_supported": ["read"]}
    with ProtectedServer(resource=resource, call_scope="write", names_call_scope=False) as server:
        async with authorized(server) as manager:
            await manager.list_tools("a")
            asked: list[int] = []
            for _ in range(3):
                with pytest.raises(AuthError) as caught:
                    await call(manager)
                assert caught.value.delivery == "rejected"
                asked.append(len(server.seen) - len(server.to("/mcp")))
        assert asked[0] == asked[1] == asked[2]
        assert len(server.to("/authorize")) == 1


async def test_a_scope_that_was_asked_for_and_not_given_is_not_asked_for_again() -> None:
    with ProtectedServer(scope_needed="read write", call_scope="write") as server:
        async with authorized(server) as manager:
            await manager.list_tools("a")
            for scopes in server.valid.values():
                scopes.clear()
            with pytest.raises(AuthError) as caught:
                await call(manager)
            assert caught.value.delivery == "rejected"
        assert len(server.to("/authorize")) == 1


async def test_a_server_of_before_resource_metadata_is_its_own_authorization_server() -> None:
    with ProtectedServer(has_resource_metadata=False) as server:

        async def agree(url: str) -> str:
            server.iss = ""
            return await server.agree(url)

        async with authorized(server, agree) as manager:
            await call(manager)
        assert [each.path for each in (*server.to("/register"), *server.to("/authorize"), *server.to("/token"))] == [
            "/register",
            "/authorize",
            "/token",
        ]


async def test_dpop_proves_each_request_anew_and_with_the_servers_nonce() -> None:
    with ProtectedServer(token_type="DPoP", nonce="nonce-1") as server:
        async with authorized(server, dpop=True) as manager:
            await call(manager)
            server.nonce = "nonce-2"
            await call(manager)
        proofs = [each.headers["dpop"] for each in server.to("/mcp") if "authorization" in each.headers]
        assert len(set(proofs)) == len(proofs) >= 4
        assert all(each.headers["authorization"].startswith("DPoP ") for each in server.to("/mcp")[1:])
        assert len(server.to("/authorize")) == 1


async def test_a_bearer_token_is_no_substitute_for_one_that_is_bound() -> None:
    with ProtectedServer() as server:
        async with authorized(server, dpop=True) as manager:
            with pytest.raises(AuthError, match="another type than dpop"):
                await call(manager)


async def test_an_assertion_that_is_refused_is_neither_sent_again_nor_replaced_by_another_grant() -> None:
    with ProtectedServer(token_status=400, token_error="unauthorized_client") as server:
        async with authorized(
            server, grant="jwt_bearer", client_id="workload", assertion="sentinel-assertion"
        ) as manager:
            for _ in range(2):
                with pytest.raises(AuthError, match="unauthorized_client"):
                    await call(manager)
        assert [each.form["grant_type"] for each in server.to("/token")] == [
            "urn:ietf:params:oauth:grant-type:jwt-bearer"
        ]
        assert server.to("/authorize") == []


async def test_a_kept_token_needs_no_second_authorization(tmp_path: Path) -> None:
    for store in (MemoryTokenStore(), FileTokenStore(tmp_path / "tokens")):
        with ProtectedServer() as server:
            for _ in range(2):
                async with authorized(server, token_store=store) as manager:
                    await call(manager)
            assert len(server.to("/authorize")) == 1


async def test_an_endpoint_gets_no_token_of_another_one() -> None:
    with ProtectedServer() as one, ProtectedServer(first_number=100) as two:

        async def agree(url: str) -> str:
            return await (one if url.startswith(one.origin) else two).agree(url)

        async with McpManager(redirect_handler=agree) as manager:
            await manager.deploy("a", {"url": [one.url, two.url], **oauth(), "connect": "eager"})
            await call(manager)
        for server in (one, two):
            sent = {each.headers.get("authorization", "")[7:] for each in server.to("/mcp")} - {""}
            assert sent == set(server.valid)


async def test_a_port_that_is_in_use_is_said_to_be() -> None:
    with ProtectedServer() as server, socket.create_server(("127.0.0.1", 0)) as taken:
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}/callback"
        async with authorized(server, LoopbackRedirect(lambda _: None), redirect_uri=uri) as manager:
            with pytest.raises(AuthError, match=r"the redirect handler failed \(OSError: .*in use") as caught:
                await call(manager)
            assert "auth.redirect_uri" in caught.value.hint


async def test_a_handler_that_brings_nothing_back_is_told_what_it_should() -> None:
    async def forgetful(url: str) -> Any:
        await server.agree(url)

    with ProtectedServer() as server:
        async with authorized(server, forgetful) as manager:
            with pytest.raises(AuthError, match="returned NoneType") as caught:
                await call(manager)
            assert "the URL that the user was sent back to" in caught.value.hint


async def test_a_store_that_cannot_be_read_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a file")
    with ProtectedServer() as server:
        async with authorized(server, token_store=FileTokenStore(tmp_path / "tokens")) as manager:
            with pytest.raises(AuthError, match=r"the token store failed \(NotADirectoryError: Not a directory\)"):
                await call(manager)
        assert server.to("/authorize") == []


async def test_no_secret_is_in_any_error_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    errors: list[BaseException] = []

    async def broken(url: str) -> str:
        raise RuntimeError(f"no browser for {url}&code=sentinel-code")

    with ProtectedServer(gives_refresh=True) as server:
        for handler, config in (
            (broken, oauth()),
            (server.agree, oauth(client_id="c", client_secret="sentinel-secret")),
        ):
            server.token_status = 400
            async with McpManager(redirect_handler=handler) as manager:
                await manager.deploy("a", {"url": server.url, **config})
                with pytest.raises(AuthError) as caught:
                    await call(manager)
                errors.append(caught.value)
        texts = ["".join(traceback.format_exception(error)) + repr(error) for error in errors] + [caplog.text]
        assert not [text for text in texts if "sentinel" in text or "code_challenge=" in text]
