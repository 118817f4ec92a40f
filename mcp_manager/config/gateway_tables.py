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
from mcp_manager.config.listen_address import parse_listen_address
from mcp_manager.config.parse import check_object, check_server_id, convert, nearest
from mcp_manager.config.resume import ResumeConfig
from mcp_manager.config.serve import ServeConfig, ViewConfig

__all__ = [
    "GATEWAY_TABLES",
    "SERVE_INTERPOLATED",
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
    {"listen", "cert_file", "key_file", "key_password", "allowed_hosts", "allowed_origins", "session_keys"}
)
"""The fields of ``serve`` in which variables are replaced."""
_SECTIONS: Final[Mapping[str, type[Settings]]] = {"resume": ResumeConfig}
_CHOICES: Final = {"sessions": ("per_client", "shared"), "names": ("full", "short")}
_SHORTEST_KEY: Final = 32
_LONGEST_KEY: Final = 4_096
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_VIEW_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""What a tool may be called (2025-11-25, server/tools, Tool Names)."""
_LONGEST_TEXT: Final = 100_000


def serve_of(settings: Mapping[str, Any] | ServeConfig) -> ServeConfig:
    """Return the configuration of the gateway; raises :class:`FieldProblem` for the first thing that is wrong."""
    config = _converted(settings, ServeConfig, "serve")
    _check_serve(config, "serve")
    return config


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
    for name, value in serve.items() if isinstance(serve, dict) else ():
        members = value if name in _SECTIONS and isinstance(value, dict) else {None: value}
        for member, each in members.items():
            try:
                serve_of({name: each if member is None else {member: each}})
            except FieldProblem as problem:
                yield problem
    if isinstance(serve, dict) and "key_file" in serve and "cert_file" not in serve:
        yield FieldProblem("serve.key_file", "needs cert_file", "give the certificate as well")
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
    named = {"serve.stateful": serve.stateful if serve is not None else ()}
    named.update((f"{join('views', name)}.servers", view.servers) for name, view in views.items())
    for path, ids in named.items():
        for server_id in ids:
            if server_id not in server_ids:
                near = nearest(server_id, server_ids, cutoff=0.6)
                way_out = f"; did you mean {near!r}?" if near is not None else ""
                logger.warning("%s: there is no server %r%s", path, server_id, way_out)


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


def _converted(settings: Any, kind: type[S], path: str) -> S:
    if isinstance(settings, Settings):
        settings = msgspec.structs.asdict(settings)
    check_object(settings, kind, path)
    for name, section in _SECTIONS.items():
        value = settings.get(name)
        if value is not None and not isinstance(value, Settings) and kind is ServeConfig:
            check_object(value, section, join(path, name))
    for name, choices in _CHOICES.items():
        value = settings.get(name) if name in kind.__struct_fields__ else None
        if isinstance(value, str) and value not in choices:
            raise FieldProblem(join(path, name), f"is not one of {', '.join(choices)}")
    made: S = convert(plain(settings, path), kind, path)
    return made


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
    taken: dict[str, str] = {}
    for tool, name in view.rename.items():
        where = entry(at(path, "rename"), tool)
        if _TOOL_NAME.fullmatch(name) is None:
            raise FieldProblem(where, "the name of a tool has 1 to 128 letters, digits, '_', '-' and '.'")
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
