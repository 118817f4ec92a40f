"""The authorization code grant with PKCE: what the user's browser is sent to, and what it comes back with."""

from __future__ import annotations

import asyncio
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

from mcp_manager.auth.oauth.documents import kind_of, shown_text
from mcp_manager.auth.oauth.http import OAuthHttp
from mcp_manager.auth.oauth.metadata import AuthorizationServer
from mcp_manager.auth.redirect import RedirectHandler
from mcp_manager.config import AuthConfig

__all__ = ["CodeRequest", "ask", "require_pkce"]

_ERROR_CODE: Final = re.compile(r"[a-z_]{1,64}")
_HINTS: Final = {
    "access_denied": "the user, or a policy there, said no",
    "invalid_scope": "check auth.scopes, and which scopes the client is registered for",
    "invalid_target": "it does not know this resource; auth.send_resource = false leaves it out",
    "unauthorized_client": "check auth.client_id, and that the client may use the authorization code grant",
}


def require_pkce(http: OAuthHttp, server: AuthorizationServer, config: AuthConfig) -> None:
    """Raise :class:`AuthError` unless the authorization server says that it checks PKCE with S256.

    2026-07-28, security considerations: without that in its metadata, a client must not go on. A server without any
    metadata cannot say so. ``assume_pkce`` takes silence for consent, and nothing else.
    """
    offered = server.challenge_methods or ()
    if not server.has_metadata or "S256" in offered or (not offered and config.assume_pkce):
        return
    which = (
        f"offers only {shown_text(', '.join(offered))}" if offered else "does not list code_challenge_methods_supported"
    )
    raise http.error(
        f"the metadata of the authorization server {shown_text(server.issuer)} {which}, and MCP requires PKCE with S256",
        hint=""
        if offered
        else "if it checks PKCE all the same, as Microsoft Entra ID does, set auth.assume_pkce = true",
    )


class CodeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One authorization request: all that its response is checked against.

    ``resource`` is "" where it is not said what the tokens are for; ``parameters`` are what the server wants beside.
    """

    server: AuthorizationServer
    client_id: str
    redirect_uri: str
    resource: str
    scopes: tuple[str, ...]
    parameters: Mapping[str, str] = {}
    state: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(24))
    verifier: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(48))

    def __repr__(self) -> str:
        return f"CodeRequest(issuer={self.server.issuer!r})"

    def url(self) -> str:
        """Return where to send the user (OAuth 2.1, section 4.1.1; RFC 7636; RFC 8707)."""
        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        parameters = {
            **self.parameters,
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "state": self.state,
        }
        if self.resource:
            parameters["resource"] = self.resource
        if self.scopes:
            parameters["scope"] = " ".join(self.scopes)
        if "offline_access" in self.scopes:
            # OpenID Connect, section 11: without it, offline access is ignored.
            parameters.setdefault("prompt", "consent")
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
            raise http.error(
                f"the authorization response is from another authorization server than {shown_text(self.server.issuer)} "
                "(iss differs)",
                hint="" if self.server.has_metadata else "auth.issuer can say what it calls itself",
            )
        refusal = fields.get("error")
        if refusal is not None:
            shown = refusal if _ERROR_CODE.fullmatch(refusal) else "an unknown error"
            raise http.error(
                f"the authorization server {shown_text(self.server.issuer)} refused the authorization request: {shown}",
                hint=_HINTS.get(refusal, ""),
                retryable=refusal == "temporarily_unavailable",
            )
        if not fields.get("code"):
            raise http.error("the authorization response has no code")
        return fields["code"]

    def form(self, code: str) -> dict[str, str]:
        """Return the grant that redeems a code (OAuth 2.1, section 4.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
        }
        return {**form, "resource": self.resource} if self.resource else form


async def ask(
    http: OAuthHttp, redirect: RedirectHandler, request: CodeRequest, timeout_s: float
) -> str | Mapping[str, str]:
    """Send a user to the authorization server, and return what they come back with; raises :class:`AuthError`."""
    try:
        async with asyncio.timeout(timeout_s):
            response = await redirect(request.url())
    except TimeoutError:
        raise http.error("the user did not agree within authorization_timeout_s", retryable=True) from None
    except Exception as error:
        # A user's own: its text may hold the authorization response.
        raise http.error(
            f"the redirect handler failed ({kind_of(error)})",
            hint="auth.redirect_uri has to be an address that it can listen on" if isinstance(error, OSError) else "",
        ) from None
    if not isinstance(response, str | Mapping):
        raise http.error(
            f"the redirect handler returned {type(response).__name__}",
            hint="it has to return the URL that the user was sent back to, or its parameters",
        )
    return response


def _parameters(response: str | Mapping[str, str]) -> dict[str, str]:
    if not isinstance(response, str):
        return dict(response)
    pairs = parse_qsl(urlsplit(response).query, keep_blank_values=True, max_num_fields=100)
    fields = dict(pairs)
    # OAuth 2.1, section 3.1: none may be given twice; which one counts is then anybody's guess.
    return fields if len(fields) == len(pairs) else {}
