"""The authorization code grant with PKCE: the authorization request and its response."""

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
    "access_denied": "the user or a policy of the authorization server denied access",
    "invalid_scope": "check auth.scopes, and which scopes the client is registered for",
    "invalid_target": "it does not know this resource; set auth.send_resource = false to omit the parameter",
    "unauthorized_client": "check auth.client_id, and that the client may use the authorization code grant",
}


def require_pkce(http: OAuthHttp, server: AuthorizationServer, config: AuthConfig) -> None:
    """Raise :class:`AuthError` unless the authorization server's metadata says that it checks PKCE with S256.

    Without that, a client must not continue (2026-07-28, security considerations). Servers without any metadata are
    exempt. ``assume_pkce`` accepts metadata that does not mention PKCE, but not metadata without S256.
    """
    offered = server.challenge_methods or ()
    if not server.has_metadata or "S256" in offered or (not offered and config.assume_pkce):
        return
    which = (
        f"offers only {shown_text(', '.join(offered))}" if offered else "does not list code_challenge_methods_supported"
    )
    raise http.error(
        f"the metadata of the authorization server {shown_text(server.issuer)} {which}, and MCP requires PKCE with S256",
        hint="" if offered else "if it checks PKCE anyway, as Microsoft Entra ID does, set auth.assume_pkce = true",
    )


class CodeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One authorization request, with what its response is checked against.

    ``resource`` is "" to omit that parameter; ``parameters`` are additional ones.
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
        """Return the URL to send the user to (OAuth 2.1, section 4.1.1; RFC 7636; RFC 8707)."""
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
            # OpenID Connect, section 11: without prompt=consent, the server ignores offline_access.
            parameters.setdefault("prompt", "consent")
        return str(URL(self.server.authorization_endpoint).update_query(parameters))

    def code(self, http: OAuthHttp, response: str | Mapping[str, str]) -> str:
        """Return the code in an authorization response.

        Parameters
        ----------
        response
            The URL that the user was redirected to, or its parameters.

        Raises
        ------
        AuthError
            The response belongs to another request or comes from another server (RFC 9207, section 2.4); then the error
            quotes nothing of it. Or the user or the server refused.
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
                hint="" if self.server.has_metadata else "set auth.issuer to the identifier that it uses",
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
        """Return the token request that redeems a code (OAuth 2.1, section 4.1.3)."""
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
    """Send a user to the authorization server, and return the authorization response; raises :class:`AuthError`."""
    try:
        async with asyncio.timeout(timeout_s):
            response = await redirect(request.url())
    except TimeoutError:
        raise http.error("the user did not agree within authorization_timeout_s", retryable=True) from None
    except Exception as error:
        # The handler is user code, and its error may quote the authorization response.
        raise http.error(
            f"the redirect handler failed ({kind_of(error)})",
            hint="auth.redirect_uri must be an address that it can listen on" if isinstance(error, OSError) else "",
        ) from None
    if not isinstance(response, str | Mapping):
        raise http.error(
            f"the redirect handler returned {type(response).__name__}",
            hint="it must return the URL that the user was sent back to, or its parameters",
        )
    return response


def _parameters(response: str | Mapping[str, str]) -> dict[str, str]:
    if not isinstance(response, str):
        return dict(response)
    pairs = parse_qsl(urlsplit(response).query, keep_blank_values=True, max_num_fields=100)
    fields = dict(pairs)
    # OAuth 2.1, section 3.1: no parameter may repeat, because it would be unclear which one counts.
    return fields if len(fields) == len(pairs) else {}
