"""The authorization code grant with PKCE: what the user's browser is sent to, and what it comes back with."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from yarl import URL

from mcp_manager.auth.oauth.http import OAuthHttp
from mcp_manager.auth.oauth.metadata import AuthorizationServer

__all__ = ["CodeRequest", "require_pkce"]

_ERROR_CODE: Final = re.compile(r"[a-z_]{1,64}")


def require_pkce(http: OAuthHttp, server: AuthorizationServer) -> None:
    """Raise :class:`AuthError` unless the authorization server says that it checks PKCE with S256.

    2026-07-28, security considerations: without that in its metadata, a client must not go on. A server of 2025-03-26
    without any metadata cannot say so.
    """
    if not server.is_guessed and "S256" not in server.challenge_methods:
        raise http.error("the authorization server does not offer PKCE with S256, which MCP requires")


class CodeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One authorization request: all that its response is checked against."""

    server: AuthorizationServer
    client_id: str
    redirect_uri: str
    resource: str
    scopes: tuple[str, ...]
    state: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(24))
    verifier: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(48))

    def __repr__(self) -> str:
        return f"CodeRequest(issuer={self.server.issuer!r})"

    def url(self) -> str:
        """Return where to send the user (OAuth 2.1, section 4.1.1; RFC 7636; RFC 8707)."""
        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        parameters = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "state": self.state,
            "resource": self.resource,
        }
        if self.scopes:
            parameters["scope"] = " ".join(self.scopes)
        if "offline_access" in self.scopes:
            # OpenID Connect, section 11: without it, offline access is ignored.
            parameters["prompt"] = "consent"
        return str(URL(self.server.authorization_endpoint).update_query(parameters))

    def code(self, http: OAuthHttp, response: str | Mapping[str, str]) -> str:
        """Return the code in an authorization response.

        Parameters
        ----------
        response
            The URL that the user was sent back to, or its parameters.

        Raises
        ------
        AuthError
            It is not the response to this request, or not this server's (RFC 9207, section 2.4): then nothing it says
            is passed on; or the user, or the server, said no.
        """
        fields = _parameters(response)
        if not hmac.compare_digest(fields.get("state", "").encode(), self.state.encode()):
            raise http.error("the authorization response belongs to another request (state differs)")
        issuer = fields.get("iss")
        if issuer is None and self.server.sends_iss:
            raise http.error("the authorization response does not say who sent it (iss is missing)")
        if issuer is not None and issuer != self.server.issuer:
            raise http.error("the authorization response is from another authorization server (iss differs)")
        refusal = fields.get("error")
        if refusal is not None:
            shown = refusal if _ERROR_CODE.fullmatch(refusal) else "an unknown error"
            raise http.error(f"the authorization server refused the authorization request: {shown}")
        if not fields.get("code"):
            raise http.error("the authorization response has no code")
        return fields["code"]

    def form(self, code: str) -> dict[str, str]:
        """Return the grant that redeems a code (OAuth 2.1, section 4.1.3)."""
        return {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
            "resource": self.resource,
        }


def _parameters(response: str | Mapping[str, str]) -> dict[str, str]:
    if not isinstance(response, str):
        return dict(response)
    pairs = parse_qsl(urlsplit(response).query, keep_blank_values=True, max_num_fields=100)
    fields = dict(pairs)
    # OAuth 2.1, section 3.1: none may be given twice; which one counts is then anybody's guess.
    return fields if len(fields) == len(pairs) else {}
