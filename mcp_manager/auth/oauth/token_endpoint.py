"""Requests to token endpoints (OAuth 2.1, section 3.2)."""

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
# The secret fields of a grant, masked in errors in case the server sends them back.
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
    """Request tokens from one token endpoint as one client.

    Parameters
    ----------
    http
        Sends the requests.
    url, audience
        The endpoint, and its issuer identifier, the audience of client assertions.
    client
        The client's registration.
    config
        The server's ``auth``, which may hold the client's private key.
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
        """Send a grant and return the tokens.

        Raises
        ------
        TokenRefused
            The endpoint refuses the grant.
        AuthError
            There is no usable answer.
        """
        reply = await self.send(form)
        return read_tokens(self._http, self._where, reply, time.time(), bound=self._dpop is not None)

    async def send(self, form: Mapping[str, str]) -> JsonReply:
        """Send a grant and return the successful reply; a required nonce is sent (RFC 9449, section 8)."""
        reply, sent = await self._post(form)
        if self._client.auth_method == "client_secret_basic" and reply.body.get("error") == "invalid_request":
            # Okta counts client_id as a second authentication mechanism, which it refuses (RFC 6749, section 5.2).
            reply, sent = await self._post(form, with_client_id=False)
        if has_token(reply):
            return reply
        raise refusal_of(self._http, self._where, reply, sent)

    @property
    def _where(self) -> str:
        return f"the token endpoint at {self._http.shown(self._url)}"

    async def _post(self, form: Mapping[str, str], *, with_client_id: bool = True) -> tuple[JsonReply, list[str]]:
        """Send a grant; return the reply and the secrets that were sent."""
        nonce = ""
        for _ in range(2):
            # Built for each request: neither an assertion nor a proof may be used twice.
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
        """Return the form fields and the header fields of a request; ``client_id`` is always a form field.

        RFC 6749, section 3.2.1, allows it beside the header, and some servers look for it only there, such as those of
        the official SDK and FastMCP. It proves nothing by itself, so it is no second authentication mechanism.
        """
        client = self._client
        fields = {**form, "client_id": client.client_id}
        if client.auth_method == "client_secret_basic":
            # RFC 6749, section 2.3.1: both are form-encoded first. %20 for a space is what every server decodes.
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
