"""The metadata of well-known identity providers: with which settings each lets a client in, and what is said without them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from aiohttp import web
from support.authorization import ProtectedServer, Seen, authorized
from support.identity_providers import (
    AUTH0,
    ENTRA,
    ENTRA_COMMON,
    GITHUB,
    GOOGLE,
    KEYCLOAK,
    OKTA,
    Documents,
)

from mcp_manager import AuthError, McpManager

CLIENT = {"client_id": "registered", "client_secret": "its secret"}
ENTRA_SETTINGS = {**CLIENT, "assume_pkce": True, "send_resource": False}


async def call(manager: McpManager) -> Any:
    return await manager.call_tool("a", "echo", {})


async def agreed(server: ProtectedServer, answers_as: str, **auth: Any) -> dict[str, str]:
    """Make a call, and return what the user's browser was sent to the authorization server with."""
    asked: list[str] = []

    async def agree(url: str) -> str:
        asked.append(url)
        back = urlsplit(await server.agree(url))
        answer = dict(parse_qsl(back.query))
        answer.pop("iss", None)
        if answers_as:
            answer["iss"] = server.origin + answers_as
        return back._replace(query=urlencode(answer)).geturl()

    settings = {
        name: value.replace("{origin}", server.origin) if isinstance(value, str) else value
        for name, value in auth.items()
    }
    async with authorized(server, agree, **settings) as manager:
        await call(manager)
    (url,) = asked
    return {"endpoint": urlsplit(url).path, **dict(parse_qsl(urlsplit(url).query))}


# The provider, its authorization endpoint, the settings, what it says of itself in the response, and the scopes asked for.
LET_IN: dict[str, tuple[Documents, str, dict[str, Any], str, str | None]] = {
    "keycloak": (
        KEYCLOAK,
        "/realms/x/protocol/openid-connect/auth",
        {},
        "/realms/x",
        "mcp:tools offline_access",
    ),
    "keycloak, configured": (
        KEYCLOAK,
        "/realms/x/protocol/openid-connect/auth",
        {**CLIENT, "issuer": "{origin}/realms/x"},
        "/realms/x",
        "mcp:tools offline_access",
    ),
    "google": (GOOGLE, "/o/oauth2/v2/auth", CLIENT, "", "https://www.googleapis.com/auth/drive.readonly"),
    "google, its issuer with a slash": (
        GOOGLE,
        "/o/oauth2/v2/auth",
        {**CLIENT, "issuer": "{origin}/", "parameters": {"access_type": "offline"}},
        "",
        "https://www.googleapis.com/auth/drive.readonly",
    ),
    "auth0": (AUTH0, "/authorize", {"parameters": {"audience": "https://api"}}, "/", None),
    "auth0, its issuer without a slash": (AUTH0, "/authorize", {**CLIENT, "issuer": "{origin}"}, "/", None),
    "okta": (OKTA, "/oauth2/default/v1/authorize", CLIENT, "", "mcp.use offline_access"),
    "github": (
        GITHUB,
        "/login/oauth/authorize",
        {
            **CLIENT,
            "authorization_endpoint": "{origin}/login/oauth/authorize",
            "token_endpoint": "{origin}/login/oauth/access_token",
        },
        "",
        "repo read:org",
    ),
}


@pytest.mark.parametrize(("documents", "endpoint", "auth", "iss", "scope"), LET_IN.values(), ids=LET_IN)
async def test_a_client_is_let_in(
    documents: Documents, endpoint: str, auth: dict[str, Any], iss: str, scope: str | None
) -> None:
    with ProtectedServer(documents=documents) as server:
        asked = await agreed(server, iss, **auth)
        assert asked["endpoint"] == endpoint
        assert asked.get("scope") == scope
        assert asked["resource"] == server.url
        for name, value in auth.get("parameters", {}).items():
            assert asked[name] == value


@pytest.mark.parametrize("documents", [ENTRA, ENTRA_COMMON], ids=["tenant", "common"])
async def test_entra_lets_in_who_knows_what_it_does_not_say(documents: Documents) -> None:
    with ProtectedServer(documents=documents, refuses_resource=True, gives_refresh=True) as server:
        asked = await agreed(server, "", **ENTRA_SETTINGS)
        assert "resource" not in asked
        assert asked["code_challenge_method"] == "S256"
        assert asked["scope"] == "api://mcp/tools.use offline_access"


async def test_what_was_left_out_stays_out_when_a_token_is_renewed() -> None:
    with ProtectedServer(documents=ENTRA, refuses_resource=True, gives_refresh=True) as server:
        server.iss = ""
        async with authorized(server, **ENTRA_SETTINGS) as manager:
            await call(manager)
            server.valid.clear()
            await call(manager)
        assert [each.form["grant_type"] for each in server.to("/token")] == ["authorization_code", "refresh_token"]
        assert [each for each in server.to("/token") if "resource" in each.form] == []


def github_form(_: Seen, body: dict[str, Any]) -> web.Response:
    answer = {"access_token": body["access_token"], "scope": "repo,read:org", "token_type": "bearer"}
    return web.Response(text=urlencode(answer), content_type="application/x-www-form-urlencoded")


async def test_githubs_own_form_is_read() -> None:
    with ProtectedServer(documents=GITHUB, token_reply=github_form) as server:
        await agreed(server, "", **LET_IN["github"][2])


# The provider, the settings, what the error says, and what it advises.
SHUT_OUT: dict[str, tuple[Documents, dict[str, Any], str, str]] = {
    "entra without a client": (ENTRA, {}, "accepts only clients registered in advance", "auth.client_id"),
    "entra is silent about PKCE": (ENTRA, CLIENT, "code_challenge_methods_supported", "auth.assume_pkce"),
    "entra refuses a resource": (ENTRA, {**CLIENT, "assume_pkce": True}, "invalid_target", "auth.send_resource"),
    "github without endpoints": (GITHUB, CLIENT, "/login/oauth publishes no metadata", "auth.token_endpoint"),
    "google without a client": (GOOGLE, {}, "accepts only clients registered in advance", "auth.client_id"),
    "okta without a client": (OKTA, {}, "refused to register the client", "auth.client_id"),
}


@pytest.mark.parametrize(("documents", "auth", "says", "advises"), SHUT_OUT.values(), ids=SHUT_OUT)
async def test_who_is_not_let_in_is_told_why_and_what_to_set(
    documents: Documents, auth: dict[str, Any], says: str, advises: str
) -> None:
    refusal = {"client_id": None, "error": "access_denied"}
    with ProtectedServer(
        documents=documents, refuses_resource=True, registration=refusal, registration_status=403
    ) as server:
        with pytest.raises(AuthError) as caught:
            await agreed(server, "", **auth)
        assert says in str(caught.value)
        assert advises in caught.value.hint
        assert caught.value.delivery in ("not_sent", "rejected")
        assert server.origin in str(caught.value)


async def test_pkce_is_not_assumed_where_the_metadata_says_otherwise() -> None:
    with ProtectedServer(metadata={"code_challenge_methods_supported": ["plain"]}) as server:
        async with authorized(server, assume_pkce=True) as manager:
            with pytest.raises(AuthError, match="offers only plain"):
                await call(manager)
        assert server.challenges == {}


async def test_another_issuer_is_refused_and_both_are_named() -> None:
    for named in ("https://evil.example", "{origin}/realms/x/", "{origin}/realms/y", "{origin}:443/realms/x"):
        documents = {path: dict(each) for path, each in KEYCLOAK.items()}
        documents["/realms/x/.well-known/openid-configuration"]["issuer"] = named
        with ProtectedServer(documents=documents) as server:
            with pytest.raises(AuthError) as caught:
                await agreed(server, "")
            text = str(caught.value)
            assert f"{named.replace('{origin}', server.origin)} instead of {server.origin}/realms/x" in text
            assert server.challenges == {}


async def test_a_grant_is_used_again_whichever_way_its_issuer_is_written() -> None:
    documents = {path: dict(each) for path, each in AUTH0.items()}
    with ProtectedServer(documents=documents, gives_refresh=True) as server:
        server.iss = ""
        async with authorized(server) as manager:
            await call(manager)
            server.valid.clear()
            documents["/.well-known/oauth-protected-resource/mcp"]["authorization_servers"] = ["{origin}/"]
            documents["/.well-known/oauth-authorization-server"]["issuer"] = "{origin}"
            await call(manager)
        assert len(server.to("/authorize")) == len(server.to("/register")) == 1


WELL_KNOWN = "/.well-known/oauth-protected-resource/mcp"


@pytest.mark.parametrize(
    "hinted",
    ["/nowhere", "http://localhost:1/.well-known/oauth-protected-resource", "https://", WELL_KNOWN, "ftp://x/y"],
)
async def test_metadata_that_is_not_where_the_challenge_says_is_looked_for(hinted: str) -> None:
    with ProtectedServer(resource_metadata=hinted) as server:
        async with authorized(server) as manager:
            await call(manager)
        assert len(server.to("/authorize")) == 1


async def test_metadata_that_is_nowhere_is_said_to_be() -> None:
    with ProtectedServer(documents={"/.well-known/else": {}}, resource_metadata="/nowhere") as server:
        async with authorized(server) as manager:
            with pytest.raises(AuthError, match=r"is not where the server says, at http://127\.0\.0\.1:\d+/nowhere"):
                await call(manager)
        assert server.challenges == {}


@pytest.mark.parametrize("dead", ["{origin}/dead", "http://127.0.0.1:1"])
async def test_of_several_authorization_servers_one_that_has_metadata_is_asked(dead: str) -> None:
    documents = {path: dict(each) for path, each in KEYCLOAK.items()}
    documents[WELL_KNOWN]["authorization_servers"] = [dead, "{origin}/realms/x"]
    with ProtectedServer(documents=documents) as server:
        asked = await agreed(server, "/realms/x")
        assert asked["endpoint"] == "/realms/x/protocol/openid-connect/auth"


async def test_a_scope_that_cannot_be_one_is_not_asked_for() -> None:
    documents = {path: dict(each) for path, each in KEYCLOAK.items()}
    documents[WELL_KNOWN]["scopes_supported"] = ["read", "\ud83d", "two words", 'quo"ted', None, 5, "x" * 2_000]
    with ProtectedServer(documents=documents) as server:
        assert (await agreed(server, "/realms/x"))["scope"] == "read offline_access"


@pytest.mark.parametrize("named", [[], None, "{origin}"])
async def test_a_resource_without_authorization_servers_may_be_its_own(named: object) -> None:
    documents = {path: dict(each) for path, each in AUTH0.items()}
    documents[WELL_KNOWN]["authorization_servers"] = named
    with ProtectedServer(documents=documents) as server:
        assert (await agreed(server, "/"))["endpoint"] == "/authorize"


async def test_what_optional_members_hold_is_nobodys_concern() -> None:
    nonsense: dict[str, Any] = dict.fromkeys(
        ("scopes_supported", "grant_types_supported", "revocation_endpoint", "jwks_uri", "response_types_supported"),
        None,
    )
    documents = {path: dict(each) for path, each in KEYCLOAK.items()}
    place = "/realms/x/.well-known/openid-configuration"
    documents[place] |= {**nonsense, "introspection_endpoint": 5, "registration_endpoint": "http://evil.example/r"}
    documents[place]["code_challenge_methods_supported"] = "S256"
    documents[WELL_KNOWN]["scopes_supported"] = "read write"
    with ProtectedServer(documents=documents) as server:
        assert (await agreed(server, "/realms/x", **CLIENT))["scope"] == "read write"


async def test_an_index_page_for_every_path_is_no_metadata() -> None:
    page = {"message": "Not Found", "status": 404}
    documents = {**KEYCLOAK, "/.well-known/oauth-authorization-server/realms/x": page}
    with ProtectedServer(documents=documents) as server:
        await agreed(server, "/realms/x")
