"""The checks of a server's OAuth settings: each grant has the fields it needs and none that it ignores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from mcp_manager.config._problem import FieldProblem, at, entry
from mcp_manager.config.auth import AuthConfig

__all__ = ["check_ascii", "check_oauth", "check_uri"]

_NOT_OAUTH: Final = ("type", "key", "token", "token_file", "token_command", "header")
_FIELDS: Final = tuple(name for name in AuthConfig.__struct_fields__ if name not in _NOT_OAUTH)
_DEFAULTS: Final = AuthConfig()
# RFC 6749, sections 3.3 and A.1: the characters of scopes and of client ids.
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")
_TEXT: Final = re.compile(r"[ -~]+")
_NOT_ASCII: Final = "contains a control or non-ASCII character"
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "client_credentials": ("client_id",),
    "jwt_bearer": ("client_id",),
    "enterprise": ("client_id", "idp_token_endpoint", "idp_client_id"),
}
_URIS: Final = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "redirect_uri",
    "client_metadata_url",
    "idp_token_endpoint",
)
_BELONGS: Final[Mapping[str, tuple[str, ...]]] = {
    "client_metadata_url": ("authorization_code",),
    "authorization_endpoint": ("authorization_code",),
    "assertion": ("jwt_bearer", "enterprise"),
    "assertion_file": ("jwt_bearer", "enterprise"),
    "idp_token_endpoint": ("enterprise",),
    "idp_client_id": ("enterprise",),
    "idp_client_secret": ("enterprise",),
}
# The manager sets these itself in the requests to which it adds ``parameters``.
_OWNED_PARAMETERS: Final = frozenset(
    {
        "assertion",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "code",
        "code_challenge",
        "code_challenge_method",
        "code_verifier",
        "grant_type",
        "redirect_uri",
        "refresh_token",
        "resource",
        "response_type",
        "scope",
        "state",
    }
)


def check_oauth(auth: AuthConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` below ``path`` for the first OAuth setting that cannot work."""
    if auth.type != "oauth":
        for name in _FIELDS:
            if getattr(auth, name) != getattr(_DEFAULTS, name):
                text = f"cannot be combined with type {auth.type!r}"
                raise FieldProblem(at(path, name), text, "set auth.type to 'oauth' or drop it")
        return
    _check_grant(auth, path)
    _check_client(auth, path)
    _check_parameters(auth.parameters, at(path, "parameters"))
    for name in _URIS:
        value = getattr(auth, name)
        if value is not None:
            check_uri(value, at(path, name), https=name == "client_metadata_url")
    for index, scope in enumerate(auth.scopes):
        if not _SCOPE.fullmatch(scope):
            raise FieldProblem(f"{at(path, 'scopes')}[{index}]", "is not a scope", "give one scope per entry")


def _check_grant(auth: AuthConfig, path: str) -> None:
    for name, choices in _BELONGS.items():
        if getattr(auth, name) is not None and auth.grant not in choices:
            raise FieldProblem(
                at(path, name), f"cannot be combined with grant {auth.grant!r}", "drop it or choose another grant"
            )
    for name in _NEEDS.get(auth.grant, ()):
        if not getattr(auth, name):
            raise FieldProblem(at(path, name), "missing", f"grant {auth.grant!r} needs it")
    if auth.grant in ("jwt_bearer", "enterprise") and (auth.assertion is None) == (auth.assertion_file is None):
        raise FieldProblem(at(path, "assertion"), "give one of assertion and assertion_file")
    if auth.grant == "client_credentials" and auth.client_secret is None and auth.private_key is None:
        raise FieldProblem(at(path, "client_secret"), "missing", "give client_secret or private_key")


def _check_client(auth: AuthConfig, path: str) -> None:
    for name in ("client_id", "client_secret", "private_key_id", "assertion", "idp_client_id", "idp_client_secret"):
        value = getattr(auth, name)
        if value is not None:
            check_ascii(value, at(path, name))
    for name in ("client_secret", "private_key", "issuer", "authorization_endpoint", "token_endpoint"):
        if getattr(auth, name) is not None and auth.client_id is None:
            raise FieldProblem(at(path, "client_id"), "missing", f"{name} needs it")
    if auth.client_secret is not None and auth.private_key is not None:
        raise FieldProblem(at(path, "private_key"), "cannot be combined with client_secret", "give one of them")
    if auth.client_auth is not None and auth.client_secret is None and auth.client_id is not None:
        raise FieldProblem(at(path, "client_auth"), "needs client_secret", "give client_secret, or drop it")
    if auth.authorization_endpoint is not None and auth.token_endpoint is None:
        raise FieldProblem(at(path, "token_endpoint"), "missing", "give it with authorization_endpoint")
    if auth.token_endpoint is not None and auth.authorization_endpoint is None and auth.grant == "authorization_code":
        raise FieldProblem(at(path, "authorization_endpoint"), "missing", "give it with token_endpoint")


def _check_parameters(parameters: dict[str, str], path: str) -> None:
    for name, value in parameters.items():
        where = entry(path, name)
        if not _TEXT.fullmatch(name) or not _TEXT.fullmatch(value):
            raise FieldProblem(where, "must not be empty" if not (name and value) else _NOT_ASCII)
        if name in _OWNED_PARAMETERS:
            raise FieldProblem(where, "is set by the manager", "drop it, and use the other fields of auth")


def check_ascii(text: str, path: str) -> None:
    """Raise :class:`FieldProblem` for what cannot be a parameter of a token request."""
    if not _TEXT.fullmatch(text):
        raise FieldProblem(path, "must not be empty" if not text else _NOT_ASCII)


def check_uri(text: str, path: str, *, https: bool = False) -> None:
    """Raise :class:`FieldProblem` for what is no URL of an endpoint; with ``https``, also for any without a path."""
    from yarl import URL  # noqa: PLC0415 - importing the package must not load it

    try:
        url = URL(text)
        valid = bool(url.host) and url.scheme in ("http", "https") and url.user is None and not url.fragment
    except ValueError:
        valid = False
    if not valid:
        raise FieldProblem(path, "is not an absolute http or https URL")
    if https and (url.scheme != "https" or url.raw_path in ("", "/")):
        raise FieldProblem(path, "must be an https URL with a path")
