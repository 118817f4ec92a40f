"""The credentials in clients' files: bearer tokens, keys and OAuth become fields of ``auth``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mcp_manager.config._plain import kind_of
from mcp_manager.config._problem import FieldProblem, join
from mcp_manager.config.auth import AuthConfig

if TYPE_CHECKING:
    from mcp_manager.config.clients.entry import Entry

__all__ = [
    "convert_api_key",
    "convert_auth",
    "convert_bearer",
    "convert_client",
    "convert_oauth",
    "convert_scopes",
]

_TEXTS: Final[Mapping[str, str]] = {
    "clientid": "client_id",
    "clientsecret": "client_secret",
    "authorizationurl": "authorization_endpoint",
    "authorizationendpoint": "authorization_endpoint",
    "tokenurl": "token_endpoint",
    "tokenendpoint": "token_endpoint",
    "issuer": "issuer",
    "redirecturi": "redirect_uri",
    "redirecturl": "redirect_uri",
    "callbackurl": "redirect_uri",
    "clientmetadataurl": "client_metadata_url",
}
"""Fields of OAuth by their names without case and separators."""
_SCOPES: Final = frozenset({"scope", "scopes", "oauthscopes"})
_PORTS: Final = frozenset({"callbackport", "redirectport"})


def convert_oauth(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take ``true``, ``false`` or an object with the client's id and the like."""
    if isinstance(value, bool):
        if value:
            found.ours.setdefault(ours, {"type": "oauth"})
        return
    if not isinstance(value, dict):
        raise FieldProblem(where, f"expected an object, got {kind_of(value)}")
    if value.get("enabled") is False or value.get("disabled") is True:
        return
    auth: dict[str, Any] = {"type": "oauth"}
    for name, each in value.items():
        folded = name.replace("_", "").replace("-", "").lower()
        if each is None or folded in ("enabled", "disabled", "type"):
            continue
        if folded in _TEXTS:
            auth[_TEXTS[folded]] = _with_scheme(each) if _TEXTS[folded] == "redirect_uri" else each
        elif folded in _SCOPES:
            auth["scopes"] = each.split() if isinstance(each, str) else each
        elif folded in _PORTS:
            auth["redirect_uri"] = f"http://localhost:{each}/callback"
        else:
            found.ignore(f"{found.short(where)}.{name}")
    known = found.ours.get(ours)
    if isinstance(known, dict) and known.get("type") != "oauth":
        found.note(f"{found.short(where)} is ignored, because another credential is given")
        return
    auth = {**(known or {}), **auth}
    if "client_id" not in auth and auth.pop("client_secret", None) is not None:
        found.note(f"the secret in {found.short(where)} is ignored, because there is no client id")
    found.put(ours, auth, where)


def convert_auth(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take our own ``auth``, the word ``oauth``, a bearer token, or an object with the client's id."""
    if isinstance(value, str):
        if value.lower() == "oauth":
            found.ours.setdefault(ours, {"type": "oauth"})
        elif value and value.lower() != "none":
            convert_bearer(found, value, where, ours)
        return
    if isinstance(value, dict) and not value.keys() <= set(AuthConfig.__struct_fields__):
        names = {name.replace("_", "").replace("-", "").lower() for name in value}
        if names & {"clientid", "clientsecret", *_SCOPES} and str(value.get("type", "oauth")).lower() in (
            "oauth",
            "oauth2",
        ):
            convert_oauth(found, value, where, ours)
            return
    found.put(ours, value, where)


def convert_bearer(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take a bearer token, with or without the word Bearer."""
    if not isinstance(value, str):
        raise FieldProblem(where, f"expected a string, got {kind_of(value)}")
    token = value[7:].strip() if value[:7].lower() == "bearer " else value
    known = found.ours.get(ours)
    if isinstance(known, dict) and known.get("type") == "oauth":
        found.note("oauth is ignored, because a token is given")
    if token:
        found.put(ours, {"type": "bearer", "token": token}, where)


def convert_api_key(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take LibreChat's key: ``{source, authorization_type, key, custom_header}``."""
    if not isinstance(value, dict):
        convert_bearer(found, value, where, ours)
        return
    if value.get("source") == "user" or not isinstance(value.get("key"), str):
        found.note(f"{found.short(where)} is ignored: each user has an own key")
        return
    kind, key = value.get("authorization_type"), value["key"]
    if kind == "custom":
        found.put(ours, {"type": "api_key", "key": key, "header": value.get("custom_header", "X-API-Key")}, where)
    elif kind == "basic":
        found.put_member("headers", "Authorization", f"Basic {key}", join(where, "key"))
    else:
        convert_bearer(found, key, join(where, "key"), ours)


def convert_scopes(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take the scopes that are to be asked for."""
    convert_oauth(found, {"scopes": value}, where, ours)


def convert_client(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take the id of the client."""
    convert_oauth(found, {"client_id": value}, where, ours)


def _with_scheme(value: Any) -> Any:
    """Complete a redirect URI that is only a host and a port."""
    return f"http://{value}/callback" if isinstance(value, str) and value and "://" not in value else value
