"""The token endpoint: a grant goes in, tokens come out (OAuth 2.1, section 3.2)."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote_plus

import msgspec
from yarl import URL

from mcp_manager.auth.oauth import jose
from mcp_manager.auth.oauth.http import JsonReply, OAuthHttp
from mcp_manager.auth.token_store import Registration
from mcp_manager.config import AuthConfig
from mcp_manager.errors import AuthError

__all__ = ["TokenEndpoint", "TokenRefused", "Tokens"]

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# RFC 6749, section 5.2.
_ERROR_CODE: Final = re.compile(r"[a-z_]{1,64}")
# RFC 6750, section 2.1: what can stand in the header.
_TOKEN: Final = re.compile(r"[!-~]{1,65536}")


class TokenRefused(AuthError):
    """The token endpoint said no; ``code`` is its error code."""

    code = ""


class Tokens(msgspec.Struct, frozen=True):
    """What the token endpoint gave; ``scopes`` is ``None`` where it is what was asked for."""

    access: str
    refresh: str
    expires_at: float
    scopes: tuple[str, ...] | None

    def __repr__(self) -> str:
        return "Tokens(***)"


class TokenEndpoint:
    """Ask one token endpoint for tokens as one client.

    Parameters
    ----------
    http
        What carries it.
    url, audience
        The endpoint, and its issuer identifier, which client assertions are for.
    client
        Who asks.
    config
        Where a private key would be.
    dpop
        The key to bind tokens to, ``None`` for bearer tokens.
    """

    def __init__(
        self,
        http: OAuthHttp,
        url: URL,
        audience: str,
        client: Registration,
        config: AuthConfig,
        dpop: jose.DpopKey | None,
    ) -> None:
        self._http = http
        self._url = url
        self._audience = audience
        self._client = client
        self._config = config
        self._dpop = dpop

    async def request(self, form: Mapping[str, str]) -> Tokens:
        """Send a grant.

        Raises
        ------
        TokenRefused
            It is refused; no second way is tried.
        AuthError
            No answer, or none that can be used.
        """
        reply = await self.send(form)
        return self._read(reply, time.time())

    async def send(self, form: Mapping[str, str]) -> JsonReply:
        """Send a grant and return the reply of a success; a nonce that is asked for is sent (RFC 9449, section 8)."""
        what = "the token endpoint"
        reply = await self._post(form, "")
        if self._dpop is not None and reply.body.get("error") == "use_dpop_nonce" and reply.dpop_nonce:
            reply = await self._post(form, reply.dpop_nonce)
        if reply.status == 200:
            return reply
        if reply.status >= 500 or reply.status in (408, 425, 429):
            # No verdict on the grant: a refresh token is still good.
            raise self._http.error(f"{what} is not available (HTTP {reply.status})", retryable=True)
        code = reply.body.get("error")
        shown = code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else "no reason"
        made = self._http.error(f"{what} refused the grant (HTTP {reply.status}, {shown})", hint=_hint(shown))
        refused = TokenRefused(made.message, server_id=made.server_id, hint=made.hint, retryable=False)
        refused.code = shown
        raise refused

    async def _post(self, form: Mapping[str, str], nonce: str) -> JsonReply:
        fields, headers = self._authenticated(form)
        if self._dpop is not None:
            headers["DPoP"] = self._dpop.proof("POST", str(self._url), nonce=nonce)
        return await self._http.post_form(self._url, fields, headers, "the token endpoint")

    def _authenticated(self, form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        client = self._client
        fields = dict(form)
        if client.auth_method == "client_secret_basic":
            # RFC 6749, section 2.3.1: both are form-encoded first.
            pair = f"{quote_plus(client.client_id)}:{quote_plus(client.secret)}"
            return fields, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        fields["client_id"] = client.client_id
        if client.auth_method == "client_secret_post":
            fields["client_secret"] = client.secret
        elif client.auth_method == "private_key_jwt":
            config = self._config
            fields["client_assertion_type"] = _ASSERTION_TYPE
            fields["client_assertion"] = jose.client_assertion(
                config.private_key or "",
                config.signing_algorithm,
                config.private_key_id or "",
                client.client_id,
                self._audience,
            )
        return fields, {}

    def _read(self, reply: JsonReply, now_s: float) -> Tokens:
        body = reply.body
        access, refresh, kind = body.get("access_token"), body.get("refresh_token"), body.get("token_type")
        if not isinstance(access, str) or not _TOKEN.fullmatch(access) or not isinstance(kind, str):
            raise self._http.error("the token endpoint answers without a usable access token")
        wanted = "bearer" if self._dpop is None else "dpop"
        if kind.lower() != wanted:
            raise self._http.error(
                f"the token endpoint gave a token of another type than {wanted}",
                hint="the authorization server does not support DPoP" if self._dpop is not None else "set auth.dpop",
            )
        lifetime = body.get("expires_in")
        if isinstance(lifetime, str) and lifetime.isascii() and lifetime.isdigit():
            lifetime = int(lifetime[:12])
        known = isinstance(lifetime, int | float) and not isinstance(lifetime, bool) and lifetime > 0
        scope = body.get("scope")
        return Tokens(
            access,
            refresh if isinstance(refresh, str) else "",
            now_s + float(lifetime) if known and lifetime is not None else 0.0,
            tuple(scope.split()) if isinstance(scope, str) else None,
        )


def _hint(code: str) -> str:
    return {
        "invalid_client": "check auth.client_id and auth.client_secret or auth.private_key",
        "unauthorized_client": "the client may not use this grant",
        "invalid_scope": "check auth.scopes",
    }.get(code, "")
