"""The token requests of the grants that need no browser."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from mcp_manager.auth.oauth.http import OAuthHttp
from mcp_manager.auth.oauth.token_endpoint import TokenEndpoint
from mcp_manager.auth.token_store import Registration
from mcp_manager.config import AuthConfig

__all__ = ["assertion_of", "client_credentials", "exchange_id_token", "exchange_token", "jwt_bearer", "refresh"]

_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:"
_ACCESS_TOKEN: Final = _TOKEN_TYPE + "access_token"
_ID_JAG: Final = _TOKEN_TYPE + "id-jag"


def client_credentials(resource: str, scopes: tuple[str, ...]) -> dict[str, str]:
    """Return the token request of a client that acts for itself (OAuth 2.1, section 4.2)."""
    return _complete({"grant_type": "client_credentials"}, resource, scopes)


def refresh(token: str, resource: str) -> dict[str, str]:
    """Return the token request that renews tokens with their present scopes (OAuth 2.1, section 4.3)."""
    return _complete({"grant_type": "refresh_token", "refresh_token": token}, resource, ())


def jwt_bearer(assertion: str, resource: str, scopes: tuple[str, ...]) -> dict[str, str]:
    """Return the token request that presents an assertion (RFC 7523, section 2.1)."""
    return _complete({"grant_type": _JWT_BEARER, "assertion": assertion}, resource, scopes)


def exchange_token(
    subject: str, subject_type: str, audience: str, resource: str, scopes: tuple[str, ...]
) -> dict[str, str]:
    """Return the token request that exchanges somebody's token for an access token of a resource (RFC 8693, section 2.1).

    Parameters
    ----------
    subject, subject_type
        The token, and the last part of its type, such as ``access_token``.
    audience, resource
        What the new token is for; each may be "".
    scopes
        The scopes to request.
    """
    form = {
        "grant_type": _EXCHANGE,
        "requested_token_type": _ACCESS_TOKEN,
        "subject_token": subject,
        "subject_token_type": _TOKEN_TYPE + subject_type,
        **({"audience": audience} if audience else {}),
    }
    return _complete(form, resource, scopes)


async def assertion_of(http: OAuthHttp, config: AuthConfig) -> str:
    """Return the configured assertion; a file is read each time, because platforms replace it before it expires.

    Raises
    ------
    AuthError
        The file cannot be read.
    """
    if config.assertion_file is None:
        return config.assertion or ""
    try:
        text = await asyncio.to_thread(Path(config.assertion_file).read_text, encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise http.error(
            f"auth.assertion_file cannot be read ({type(error).__name__})", hint="check the path and its permissions"
        ) from None
    return text.strip()


async def exchange_id_token(
    http: OAuthHttp,
    config: AuthConfig,
    id_token: str,
    audience: str,
    resource: str,
    scopes: tuple[str, ...],
    subject_type: str = "id_token",
) -> str:
    """Exchange a user's ID token for an assertion that another authorization server accepts (RFC 8693; ID-JAG).

    ``subject_type`` is the last part of the token's type, for identity providers that take other tokens as well.

    Raises
    ------
    AuthError
        The identity provider refuses, or returns something else.
    """
    endpoint = http.checked(config.idp_token_endpoint, "auth.idp_token_endpoint", trusted=True)
    client = Registration(
        issuer=str(endpoint.origin()),
        client_id=config.idp_client_id or "",
        secret=config.idp_client_secret or "",
        auth_method="client_secret_basic" if config.idp_client_secret is not None else "none",
    )
    form = {
        "grant_type": _EXCHANGE,
        "requested_token_type": _ID_JAG,
        "subject_token": id_token,
        "subject_token_type": _TOKEN_TYPE + subject_type,
        "audience": audience,
    }
    reply = await TokenEndpoint(http, endpoint, client.issuer, client, config, None).send(
        _complete(form, resource, scopes)
    )
    grant = reply.body.get("access_token")
    if reply.body.get("issued_token_type") != _ID_JAG or not isinstance(grant, str) or not grant:
        raise http.error("the identity provider returned no identity assertion grant (ID-JAG)")
    return grant


def _complete(form: dict[str, str], resource: str, scopes: tuple[str, ...]) -> dict[str, str]:
    """Add ``resource`` and ``scope``, each unless it is empty."""
    more = {"resource": resource, "scope": " ".join(scopes)}
    return {**form, **{name: value for name, value in more.items() if value}}
