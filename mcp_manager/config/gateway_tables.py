"""The tables ``serve`` and ``views`` of this package's own files."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from mcp_manager.config._checks import check_text
from mcp_manager.config._plain import describe, plain
from mcp_manager.config._problem import FieldProblem, at, entry, join
from mcp_manager.config._struct import Settings
from mcp_manager.config.access import AllowConfig, ClientAuthConfig, ClientLimitConfig
from mcp_manager.config.admin import AdminConfig, check_admin
from mcp_manager.config.audit import AuditConfig, PinsConfig
from mcp_manager.config.client_auth_checks import (
    CLIENT_AUTH_TYPES,
    check_client_auth_values,
    client_auth_problems,
)
from mcp_manager.config.credential_checks import (
    check_credentials,
    check_credentials_with_auth,
    check_credentials_with_servers,
)
from mcp_manager.config.full_text_search import has_full_text_search
from mcp_manager.config.issuers import IssuerConfig
from mcp_manager.config.listen_address import parse_listen_address
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.parse import check_object, check_server_id, convert, nearest
from mcp_manager.config.resume import ResumeConfig
from mcp_manager.config.rule_checks import (
    check_given_rule,
    check_limit,
    check_rule,
    pin_problems,
    rule_problems,
    warn_of_unknown_names,
)
from mcp_manager.config.serve import ServeConfig, ViewConfig
from mcp_manager.config.server_credentials import ServerCredentialsConfig

__all__ = [
    "GATEWAY_TABLES",
    "META_TOOL_NAMES",
    "SERVE_INTERPOLATED",
    "check_serve_with_servers",
    "serve_config_of",
    "serve_of",
    "settings_problems",
    "view_configs_of",
    "views_of",
    "warn_of_unknown_servers",
]

logger: logging.Logger = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)
T = TypeVar("T")

GATEWAY_TABLES: Final = ("serve", "views")
SERVE_INTERPOLATED: Final = frozenset(
    {
        "listen",
        "cert_file",
        "key_file",
        "key_password",
        "allowed_hosts",
        "allowed_origins",
        "session_keys",
        "auth",
        "credentials",
        "admin",
    }
)
"""The fields of ``serve`` in which variables are replaced."""
_SECTIONS: Final[Mapping[str, type[Settings]]] = {
    "resume": ResumeConfig,
    "auth": ClientAuthConfig,
    "audit": AuditConfig,
    "pins": PinsConfig,
    "admin": AdminConfig,
}
_LISTS: Final[Mapping[str, type[Settings]]] = {"allow": AllowConfig, "limits": ClientLimitConfig}
_CHOICES: Final = {"sessions": ("per_client", "shared"), "names": ("full", "short"), "discovery": ("list", "search")}
_ELSEWHERE: Final = {
    "serve.views": "write [views.NAME], beside [serve]",
    "serve.servers": "write [servers.NAME], beside [serve]",
    "serve.deny": "there are only rules that allow: once serve.allow is there, what no rule allows is refused",
    "serve.operators": "name them in serve.auth.operators",
    "serve.admin.operators": "name them in serve.auth.operators",
}
"""What to do about fields that people look for in another table, by path."""
_STANDARD_OUTPUT: Final = ("stdout", "-")
_SHORTEST_KEY: Final = 32
_LONGEST_KEY: Final = 4_096
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_VIEW_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""What a tool may be called (2025-11-25, server/tools, Tool Names)."""
META_TOOL_NAMES: Final = frozenset({"search_tools", "describe_tools", "call_tool"})
"""What tools are called that find others; see ``gateway/tool_search/meta_tools.py``."""
_LONGEST_TEXT: Final = 100_000


def serve_of(settings: Mapping[str, Any] | ServeConfig) -> ServeConfig:
    """Return the configuration of the gateway; raises :class:`FieldProblem` for the first thing that is wrong."""
    config = _alone(settings)
    problem = next(_problems_together(config), None)
    if problem is not None:
        try:
            raise problem
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del problem
    return config


def _alone(settings: Mapping[str, Any] | ServeConfig) -> ServeConfig:
    """Return the configuration, as far as each field can be judged by itself."""
    config = _converted(settings, ServeConfig, "serve")
    _check_serve(config, "serve")
    return config


def _problems_together(config: ServeConfig) -> Iterator[FieldProblem]:
    """Yield what is wrong with several fields together."""
    yield from client_auth_problems(config.auth, "serve.auth")
    yield from check_credentials_with_auth(config.credentials, config.auth.type, "serve.credentials")
    yield from rule_problems(config.allow, config.auth.type, "serve.allow")
    yield from rule_problems(config.limits, config.auth.type, "serve.limits")
    yield from pin_problems(config.pins, "serve.pins")
    if config.admin is not None and config.admin.token is None:
        # Whoever may administer the gateway may run any program, so nobody may by default.
        if config.auth.type == "none" or not config.auth.operators:
            way_out = "set serve.admin.token, or set serve.auth and name the administrators in serve.auth.operators"
            yield FieldProblem("serve.admin", "nobody may use the admin API", way_out)


def views_of(views: Mapping[str, Any]) -> dict[str, ViewConfig]:
    """Return the views by name; raises :class:`FieldProblem` for the first thing that is wrong."""
    made = {}
    for name, settings in views.items():
        path = join("views", name)
        _check_view_name(name, path)
        made[name] = _converted(settings, ViewConfig, path)
        _check_view(made[name], path)
    return made


def settings_problems(tables: Mapping[str, Any]) -> Iterator[FieldProblem]:
    """Yield everything that is wrong in both tables: each field is judged by itself."""
    serve = tables.get("serve", {})
    is_right = True
    for name, value in serve.items() if isinstance(serve, dict) else ():
        members = value if name in _SECTIONS and isinstance(value, dict) else {None: value}
        for member, each in members.items():
            try:
                _alone({name: each if member is None else {member: each}})
            except FieldProblem as problem:
                is_right = False
                yield problem
    if isinstance(serve, dict) and "key_file" in serve and "cert_file" not in serve:
        yield FieldProblem("serve.key_file", "needs cert_file", "give the certificate as well")
    if isinstance(serve, dict) and is_right:
        yield from _problems_together(_alone(serve))
    views = tables.get("views", {})
    for name, settings in views.items() if isinstance(views, dict) else ():
        path = join("views", name)
        if not isinstance(settings, dict | ViewConfig):
            yield FieldProblem(path, f"expected an object, got {describe(settings)}")
            continue
        fields = msgspec.structs.asdict(settings) if isinstance(settings, ViewConfig) else settings
        for one in [{each: value} for each, value in fields.items()] or [{}]:
            try:
                views_of({name: one})
            except FieldProblem as problem:
                yield problem
                if problem.path == path and problem.member is None:
                    # The name of the view itself.
                    break


def warn_of_unknown_servers(
    serve: ServeConfig | None, views: Mapping[str, ViewConfig], server_ids: Collection[str]
) -> None:
    """Log a warning for every id of a server that the tables name and the file does not have.

    It is no error, because a program may deploy servers while the gateway serves.
    """
    named: dict[str, Collection[str]] = {}
    if serve is not None:
        named = {"serve.stateful": serve.stateful, "serve.credentials": serve.credentials}
        warn_of_unknown_names(serve.allow, serve.limits, server_ids, views)
    named.update((f"{join('views', name)}.servers", view.servers) for name, view in views.items())
    for path, ids in named.items():
        for server_id in ids:
            if server_id not in server_ids:
                near = nearest(server_id, server_ids, cutoff=0.6)
                way_out = f"; did you mean {near!r}?" if near is not None else ""
                logger.warning("%s: there is no server %r%s", path, server_id, way_out)


def check_serve_with_servers(serve: ServeConfig, servers: Mapping[str, ServerConfig]) -> None:
    """Raise :class:`ConfigError` for the first thing that does not go with a server of the fleet."""
    for problem in check_credentials_with_servers(serve.credentials, servers):
        error = problem.error("Invalid config")
        try:
            raise error
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del error


def serve_config_of(given: ServeConfig | Mapping[str, Any]) -> ServeConfig:
    """Return the configuration of the gateway from a struct or its fields; raises :class:`ConfigError`."""
    return _checked(given, "serve", serve_of)


def view_configs_of(given: Mapping[str, ViewConfig | Mapping[str, Any]]) -> dict[str, ViewConfig]:
    """Return the views by name from structs or their fields; raises :class:`ConfigError`."""
    return _checked(given, "views", views_of)


def _checked(given: Any, name: str, read: Callable[[Any], T]) -> T:
    try:
        if not isinstance(given, Mapping | Settings):
            raise FieldProblem(name, f"expected an object, got {describe(given)}")
        return read(given)
    except FieldProblem as problem:
        error = problem.error("Invalid config")
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def _check_serve(config: ServeConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` below ``path`` for the first value that cannot work."""
    parse_listen_address(config.listen, at(path, "listen"))
    for index, host in enumerate(config.allowed_hosts):
        if _HOST.fullmatch(host) is None:
            raise FieldProblem(
                at(path, f"allowed_hosts[{index}]"),
                "is not a host",
                "write gateway.example.com, without scheme or path",
            )
    for index, origin in enumerate(config.allowed_origins):
        _check_origin(origin, at(path, f"allowed_origins[{index}]"))
    for index, key in enumerate(config.session_keys):
        if not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY:
            raise FieldProblem(
                at(path, f"session_keys[{index}]"),
                f"expected {_SHORTEST_KEY} to {_LONGEST_KEY} characters, got {len(key)}",
                "make one with: openssl rand -base64 32",
            )
    for index, server_id in enumerate(config.stateful):
        check_server_id(server_id, at(path, f"stateful[{index}]"))
    check_client_auth_values(config.auth, at(path, "auth"))
    for index, rule in enumerate(config.allow):
        check_rule(rule, at(path, f"allow[{index}]"))
    for index, limit in enumerate(config.limits):
        check_limit(limit, at(path, f"limits[{index}]"))
    for server_id, credentials in config.credentials.items():
        check_credentials(credentials, join(at(path, "credentials"), server_id))
    _check_discovery(config, path)
    if config.audit.path in _STANDARD_OUTPUT:
        way_out = "write stderr, or ./stdout for a file of this name"
        raise FieldProblem(at(path, "audit.path"), "cannot be standard output", way_out)
    if config.admin is not None:
        check_admin(config.admin, at(path, "admin"))


def _converted(settings: Any, kind: type[S], path: str) -> S:
    if isinstance(settings, Settings):
        settings = msgspec.structs.asdict(settings)
    _refuse_misplaced(settings, path)
    check_object(settings, kind, path)
    for name, section in _SECTIONS.items():
        value = settings.get(name)
        if value is not None and not isinstance(value, Settings) and kind is ServeConfig:
            where = join(path, name)
            if not isinstance(value, dict):
                raise FieldProblem(where, f"expected an object, got {describe(value)}", f"write a table: [{where}]")
            _refuse_misplaced(value, where)
            check_object(value, section, where)
    if kind is ServeConfig:
        _check_members(settings, path)
    if kind is ServeConfig:
        _check_type(settings.get("auth"), path)
    for name, choices in _CHOICES.items():
        value = settings.get(name) if name in kind.__struct_fields__ else None
        if isinstance(value, str) and value not in choices:
            raise FieldProblem(join(path, name), f"is not one of {', '.join(choices)}")
    made: S = convert(plain(settings, path), kind, path)
    return made


def _refuse_misplaced(settings: object, path: str) -> None:
    """Raise a :class:`FieldProblem` for a field that people look for here, and that is elsewhere."""
    for name in settings if isinstance(settings, Mapping) else ():
        hint = _ELSEWHERE.get(f"{path}.{name}")
        if hint is not None:
            raise FieldProblem(path, f"unknown field {str(name)!r}", hint, name)


def _check_type(auth: object, path: str) -> None:
    value = auth.get("type") if isinstance(auth, Mapping) else None
    if isinstance(value, str) and value not in CLIENT_AUTH_TYPES:
        raise FieldProblem(f"{join(path, 'auth')}.type", f"is not one of {', '.join(CLIENT_AUTH_TYPES)}")


def _check_members(settings: Mapping[str, Any], path: str) -> None:
    """Raise a :class:`FieldProblem` for an unknown field in a table of a list, or in one that is found by a name."""
    for name, kind in _LISTS.items():
        value = settings.get(name)
        if isinstance(value, Mapping):
            where = join(path, name)
            raise FieldProblem(where, "expected an array, got an object", f"write [[{where}]], with double brackets")
        for index, each in enumerate(value if isinstance(value, list | tuple) else ()):
            if not isinstance(each, Settings):
                check_object(each, kind, f"{join(path, name)}[{index}]")
                if kind is AllowConfig:
                    check_given_rule(each, f"{join(path, name)}[{index}]")
    auth = settings.get("auth")
    issuers = auth.get("issuers") if isinstance(auth, Mapping) else None
    if isinstance(issuers, Mapping):
        where = f"{join(path, 'auth')}.issuers"
        raise FieldProblem(where, "expected an array, got an object", f"write [[{where}]], with double brackets")
    for index, each in enumerate(issuers if isinstance(issuers, list | tuple) else ()):
        if not isinstance(each, Settings):
            check_object(each, IssuerConfig, f"{join(path, 'auth')}.issuers[{index}]")
    credentials = settings.get("credentials")
    for server_id, each in credentials.items() if isinstance(credentials, Mapping) else ():
        where = join(join(path, "credentials"), server_id)
        check_server_id(server_id, where)
        if not isinstance(each, Settings):
            check_object(each, ServerCredentialsConfig, where)


def _check_discovery(config: ServeConfig | ViewConfig, path: str) -> None:
    for index, pattern in enumerate(config.hot):
        check_text(pattern, at(path, f"hot[{index}]"))
    if config.discovery == "search" and not has_full_text_search():
        way_out = 'use a Python whose SQLite has it, or discovery = "list"'
        raise FieldProblem(at(path, "discovery"), "search needs FTS5, which the module sqlite3 lacks here", way_out)


def _check_origin(origin: str, path: str) -> None:
    try:
        parts = urlsplit(origin)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or f"{parts.scheme}://{parts.netloc}" != origin or "@" in origin:
        raise FieldProblem(path, "is not an origin", "write https://app.example.com, without a path")


def _check_view_name(name: str, path: str) -> None:
    if _VIEW_NAME.fullmatch(name) is None:
        text = "the name of a view has 1 to 64 letters, digits, '-', '_' and '.'"
        raise FieldProblem(path, text, "it is part of the URL /mcp/NAME")


def _check_view(view: ViewConfig, path: str) -> None:
    for index, server_id in enumerate(view.servers):
        check_server_id(server_id, at(path, f"servers[{index}]"))
    for index, pattern in enumerate(view.tools):
        check_text(pattern, at(path, f"tools[{index}]"))
    _check_discovery(view, path)
    taken: dict[str, str] = {}
    for tool, name in view.rename.items():
        where = entry(at(path, "rename"), tool)
        if _TOOL_NAME.fullmatch(name) is None:
            raise FieldProblem(where, "the name of a tool has 1 to 128 letters, digits, '_', '-' and '.'")
        if name in META_TOOL_NAMES and view.discovery == "search":
            text = f'must not be {name}: the gateway has a tool of this name with discovery = "search"'
            raise FieldProblem(where, text, "choose another name")
        if name in taken:
            raise FieldProblem(where, "two tools have this name", "rename one of them")
        taken[name] = tool
    texts = {
        "instructions": view.instructions or "",
        **{f"descriptions.{tool}": text for tool, text in view.descriptions.items()},
    }
    for name, text in texts.items():
        if len(text) > _LONGEST_TEXT:
            raise FieldProblem(at(path, name), f"has more than {_LONGEST_TEXT} characters", "shorten it")
