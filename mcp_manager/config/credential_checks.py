"""The checks of ``[serve.credentials.SERVER]``: what servers may get of a client, and what an exchange of tokens needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from mcp_manager.config._oauth import check_ascii, check_uri
from mcp_manager.config._problem import FieldProblem, at, join
from mcp_manager.config.header_fields import OWNED_HEADERS, TOKEN
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.server_credentials import ServerCredentialsConfig

__all__ = ["check_credentials", "check_credentials_with_auth", "check_credentials_with_servers"]

_SECRETS: Final[dict[str, str]] = {
    "authorization": "set authorization_header to a field with a token of this server, or use type 'exchange'",
    "proxy-authorization": "a proxy in front of the gateway is meant by it",
    "cookie": "cookies belong to the origin of the gateway",
    "set-cookie": "servers send it, not clients",
    "x-api-key": "it may be the key of the gateway; let clients send the server's key in another field",
    "traceparent": "the gateway writes it for each call if it traces",
}
"""Header fields that are never passed on, in lower case, and why or what to do."""
_PREFIXES: Final = ("mcp-", "proxy-", "sec-", "access-control-")
_EXCHANGE_FIELDS: Final = (
    "token_endpoint",
    "client_id",
    "client_secret",
    "client_auth",
    "private_key",
    "private_key_id",
    "subject_token_type",
    "audience",
    "resource",
)
_IDP_FIELDS: Final = ("idp_token_endpoint", "idp_client_id", "idp_client_secret")
_TEXTS: Final = ("client_id", "client_secret", "private_key_id", "audience", "idp_client_id", "idp_client_secret")
_WITH_TOKENS: Final = ("jwt", "introspection")


def check_credentials(config: ServerCredentialsConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` below ``path`` for the first value that cannot work."""
    for index, name in enumerate(config.pass_headers):
        _check_passed(name, f"{at(path, 'pass_headers')}[{index}]")
    if config.authorization_header is not None:
        _check_passed(config.authorization_header, at(path, "authorization_header"))
    given = [name for name in ("authorization_header", "pass_client_token") if getattr(config, name)]
    if config.type != "own":
        given.insert(0, "type")
    if len(given) > 1:
        text = f"cannot be combined with {given[0]}"
        raise FieldProblem(at(path, given[1]), text, "the server gets one Authorization: choose where it comes from")
    unused = _EXCHANGE_FIELDS if config.type == "own" else ()
    for name in (*unused, *(_IDP_FIELDS if config.type != "enterprise" else ())):
        if getattr(config, name) is not None:
            way_out = (
                "set type to 'enterprise' or drop it" if name in _IDP_FIELDS else "set type to 'exchange' or drop it"
            )
            raise FieldProblem(at(path, name), f"cannot be combined with type {config.type!r}", way_out)
    if config.type != "own":
        _check_exchange(config, path)


def check_credentials_with_auth(
    credentials: Mapping[str, ServerCredentialsConfig], auth_type: str, path: str
) -> Iterator[FieldProblem]:
    """Yield what does not go with how clients authenticate.

    Parameters
    ----------
    credentials
        The configurations by the ids of servers.
    auth_type
        ``type`` of ``serve.auth``.
    path
        That of the credentials.
    """
    for server_id, config in credentials.items():
        where = join(path, server_id)
        if config.type != "own" and auth_type not in _WITH_TOKENS:
            text = f"{config.type!r} needs a token of the client, and serve.auth.type is {auth_type!r}"
            yield FieldProblem(at(where, "type"), text, "set serve.auth.type to 'jwt' or 'introspection'")
        if config.pass_client_token and auth_type != "none":
            # 2025-11-25, basic/security_best_practices, token passthrough.
            text = f"is refused with serve.auth.type {auth_type!r}: what clients show the gateway is meant for it alone"
            way_out = "use type 'exchange', or authorization_header for a token of the server"
            yield FieldProblem(at(where, "pass_client_token"), text, way_out)


def check_credentials_with_servers(
    credentials: Mapping[str, ServerCredentialsConfig], servers: Mapping[str, ServerConfig]
) -> Iterator[FieldProblem]:
    """Yield a problem for each server that takes no header fields, because it is no HTTP server."""
    for server_id, config in credentials.items():
        server = servers.get(server_id)
        if server is not None and server.url is None and config.is_personal:
            kind = "a program" if server.command is not None else "in memory"
            text = f"the server is {kind}, and gets no header fields"
            way_out = "drop the table; give it credentials of its own in env"
            yield FieldProblem(join("serve.credentials", server_id), text, way_out)


def _check_passed(name: str, path: str) -> None:
    lower = name.lower()
    if TOKEN.fullmatch(name) is None:
        raise FieldProblem(path, "is not a header name (RFC 9110, section 5.6.2)", "write the name without a colon")
    if lower in _SECRETS:
        raise FieldProblem(path, f"{name} is never passed on to a server", _SECRETS[lower])
    if lower in OWNED_HEADERS or lower.startswith(_PREFIXES):
        raise FieldProblem(path, f"{name} is set by the gateway itself", "drop it")


def _check_exchange(config: ServerCredentialsConfig, path: str) -> None:
    needed = ["token_endpoint", "client_id"]
    if config.type == "enterprise":
        needed += ["audience", "idp_token_endpoint", "idp_client_id"]
    for name in needed:
        if getattr(config, name) is None:
            raise FieldProblem(at(path, name), "missing", f"type {config.type!r} needs it")
    for name in _TEXTS:
        value = getattr(config, name)
        if value is not None:
            check_ascii(value, at(path, name))
    for name in ("token_endpoint", "idp_token_endpoint", "resource"):
        value = getattr(config, name)
        if value is not None:
            check_uri(value, at(path, name))
    if config.client_secret is not None and config.private_key is not None:
        raise FieldProblem(at(path, "private_key"), "cannot be combined with client_secret", "give one of them")
    if config.client_auth is not None and config.client_secret is None:
        raise FieldProblem(at(path, "client_auth"), "needs client_secret", "give client_secret, or drop it")
