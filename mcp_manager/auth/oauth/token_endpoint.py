"""The token endpoint: a grant goes in, tokens come out (OAuth 2.1, section 3.2)."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from yarl import URL

from mcp_manager.auth.oauth import jose
from mcp_manager.auth.oauth.http import JsonReply, OAuthHttp
from mcp_manager.auth.oauth.token_reply import Tokens, has_token, read_tokens, refusal_of
from mcp_manager.auth.token_store import Registration
from mcp_manager.config import AuthConfig

__all__ = ["TokenEndpoint"]

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# What is secret of a grant: all that a server must not make us show.
_SECRET_FIELDS: Final = (
    "assertion",
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "refresh_token",
    "subject_token",
)


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
            It is refused, in whatever form; no second grant is tried.
        AuthError
            No answer, or none that can be used.
        """
        reply = await self.send(form)
        return read_tokens(self._http, self._where, reply, time.time(), bound=self._dpop is not None)

    async def send(self, form: Mapping[str, str]) -> JsonReply:
        """Send a grant and return the reply of a success; a nonce that is asked for is sent (RFC 9449, section 8)."""
        reply, sent = await self._post(form)
        if self._client.auth_method == "client_secret_basic" and reply.body.get("error") == "invalid_request":
            # RFC 6749, section 5.2: so a server refuses "more than one mechanism". Okta takes client_id for a second one.
            reply, sent = await self._post(form, with_client_id=False)
        if has_token(reply):
            return reply
        raise refusal_of(self._http, self._where, reply, sent)

    @property
    def _where(self) -> str:
        return f"the token endpoint at {self._http.shown(self._url)}"

    async def _post(self, form: Mapping[str, str], *, with_client_id: bool = True) -> tuple[JsonReply, list[str]]:
        """Return the reply to a grant, and the secrets that were sent."""
        nonce = ""
        for _ in range(2):
            # Anew each time: neither an assertion nor a proof may be used twice.
            fields, headers = self._authenticated(form)
            if not with_client_id:
                del fields["client_id"]
            if self._dpop is not None:
                headers["DPoP"] = self._dpop.proof("POST", str(self._url), nonce=nonce)
            reply = await self._http.post_form(self._url, fields, headers, "the token endpoint")
            nonce = reply.dpop_nonce
            if self._dpop is None or not nonce or reply.body.get("error") != "use_dpop_nonce":
                break
        sent = [fields[name] for name in _SECRET_FIELDS if name in fields]
        return reply, [*sent, self._client.secret, *(each.rpartition(" ")[2] for each in headers.values())]

    def _authenticated(self, form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the fields and the header of a request: who asks is always in the fields, too.

        RFC 6749, section 3.2.1, allows ``client_id`` there beside the header, and the official SDK's authorization server,
        FastMCP's and others look for it there alone. By itself it proves nothing, so it is no second way to authenticate.
        """
        client = self._client
        fields = {**form, "client_id": client.client_id}
        if client.auth_method == "client_secret_basic":
            # RFC 6749, section 2.3.1: both are form-encoded first; a space as %20, which every server decodes.
            pair = f"{quote(client.client_id, safe='')}:{quote(client.secret, safe='')}"
            return fields, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
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
