"""The checks of a server's credentials: each type of ``auth`` has what it needs, and no header field is given twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mcp_manager.config._oauth import check_oauth
from mcp_manager.config._problem import FieldProblem, at
from mcp_manager.config.auth import AuthConfig
from mcp_manager.config.header_fields import OWNED_HEADERS, TOKEN, check_field_value, check_token
from mcp_manager.config.model import ServerConfig

__all__ = ["check_credentials"]

_SECRETS: Final = {"api_key": "key", "bearer": "token"}
_READ: Final = ("token_file", "token_command")


def check_credentials(config: ServerConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` below ``path`` for the first credential that cannot be sent."""
    auth, headers, where = config.auth, config.headers, at(path, "auth")
    _check_secret(auth, where)
    _check_program(auth.token_command, at(where, "token_command"))
    _check_program(config.headers_command, at(path, "headers_command"))
    _check_header(auth, headers, where)
    check_oauth(auth, where)
    if auth.type == "oauth" and config.headers_command:
        raise FieldProblem(at(path, "headers_command"), "cannot be combined with auth of type 'oauth'", "drop one")
    if auth.type == "oauth" and "authorization" in {name.lower() for name in headers}:
        raise FieldProblem(where, "Authorization is also given in headers", "drop one")


def _check_secret(auth: AuthConfig, path: str) -> None:
    """Check that the secret of the type is given once, and no other."""
    for kind, name in _SECRETS.items():
        if auth.type != kind and getattr(auth, name):
            raise FieldProblem(
                at(path, name),
                f"cannot be combined with type {auth.type!r}",
                f"give the secret in {at(path, _SECRETS[auth.type])}, or set auth.type to {kind!r}"
                if auth.type in _SECRETS
                else f"set auth.type to {kind!r} or drop it",
            )
    given = [name for name in _READ if getattr(auth, name)]
    own = _SECRETS.get(auth.type)
    if own is None:
        if given:
            text = f"cannot be combined with type {auth.type!r}"
            raise FieldProblem(at(path, given[0]), text, "set auth.type to 'bearer' or 'api_key', or drop it")
        return
    value: str | None = getattr(auth, own)
    if given:
        if value is not None or len(given) > 1:
            names = (own, *_READ) if value is not None else _READ
            text = "is given together with another source of the secret"
            raise FieldProblem(at(path, given[-1]), text, f"give one of {', '.join(names)}")
        if auth.token_file is not None and "\x00" in auth.token_file:
            raise FieldProblem(at(path, "token_file"), "contains a NUL character")
        return
    where = at(path, own)
    if not value:
        problem = "missing" if value is None else "must not be empty"
        raise FieldProblem(where, problem, f"type {auth.type!r} needs it, token_file or token_command")
    if own == "token":
        check_token(value, where)
    else:
        check_field_value(value, where)


def _check_program(argv: tuple[str, ...], path: str) -> None:
    for index, argument in enumerate(argv):
        if "\x00" in argument:
            raise FieldProblem(f"{path}[{index}]", "contains a NUL character")
    if argv and not argv[0].strip():
        raise FieldProblem(f"{path}[0]", "must not be empty", "give the program first, then its arguments")


def _check_header(auth: AuthConfig, headers: Mapping[str, str], path: str) -> None:
    where = at(path, "header")
    if not TOKEN.fullmatch(auth.header):
        raise FieldProblem(where, "is not a header name (RFC 9110, section 5.6.2)")
    if auth.header.lower() in OWNED_HEADERS:
        raise FieldProblem(where, "names a header that is set by the manager")
    if auth.type != "api_key" and auth.header.lower() != "x-api-key":
        raise FieldProblem(where, f"cannot be combined with type {auth.type!r}", "drop it: only type 'api_key' uses it")
    if auth.type not in _SECRETS:
        return
    name, _ = auth.header_for("")
    if name.lower() in {each.lower() for each in headers}:
        raise FieldProblem(where if auth.type == "api_key" else path, f"{name} is also given in headers", "drop one")
