"""What a manager may be made from: a configuration, a file, a mapping, URLs, or server objects in memory."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.arguments import as_path
from mcp_manager.config.fields.manager import ManagerFields
from mcp_manager.config.load import FleetFile, load_fleet_file, load_fleet_mapping
from mcp_manager.config.manager import ManagerConfig
from mcp_manager.config.memory import ServerObject, is_server_object
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.naming import is_url
from mcp_manager.config.parse import nearest
from mcp_manager.config.reading import KINDS
from mcp_manager.config.spec import server_config_of, server_id_of
from mcp_manager.errors import ConfigError

__all__ = ["FleetSource", "ManagerSource", "fleet_config_of", "fleet_file_of", "manager_config_of"]

ManagerSource = (
    ManagerConfig
    | ServerConfig
    | ManagerFields
    | Mapping[str, Any]
    | ServerObject
    | str
    | os.PathLike[str]
    | Sequence["ManagerSource"]
)
"""What a manager is made from; see :class:`~mcp_manager.McpManager`."""

FleetSource = ManagerConfig | ManagerFields | Mapping[str, Any] | str | os.PathLike[str]
"""What describes all servers of a running manager; see :meth:`~mcp_manager.McpManager.apply`."""

_ACCEPTED: Final = (
    "give a ManagerConfig, the path of a file, a URL, a server object of mcp or fastmcp, a mapping such as "
    '{"servers": {…}} or {"mcpServers": {…}}, or a list of these'
)
_FIELDS: Final = frozenset((*ServerConfig.__struct_fields__, *ManagerConfig.__struct_fields__))
# How alike the name of a table must be, and how many names are compared.
_NEAR: Final = 0.7
_MOST_COMPARED: Final = 20
_PLACES: Final = ("url", "command", "server")
_PREFIX: Final = "Invalid configuration"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://")
_HOST_AND_PORT: Final = re.compile(r"[\w.-]+:\d{1,5}(/|$)")


def manager_config_of(source: ManagerSource | None, *, lenient: bool = False) -> ManagerConfig:
    """Return the configuration that a source stands for.

    Parameters
    ----------
    source
        See :class:`~mcp_manager.McpManager`; ``None`` for the defaults and no servers.
    lenient
        Leave out servers that are wrong, with a warning for each problem, instead of raising an error.

    Raises
    ------
    ConfigError
        It cannot be read, something in it is wrong, or it is of another kind. ``problems`` lists everything that is
        wrong in a file or mapping.
    """
    return fleet_file_of(source, lenient=lenient).config


def fleet_file_of(source: ManagerSource | None, *, lenient: bool = False) -> FleetFile:
    """Return what a source stands for as :func:`manager_config_of` does, with what it says of the gateway."""
    if source is None:
        return FleetFile(ManagerConfig())
    if isinstance(source, ManagerConfig):
        return FleetFile(source)
    if isinstance(source, str) and not is_url(source.strip()):
        return load_fleet_file(_path(source), lenient=lenient)
    if isinstance(source, os.PathLike):
        return load_fleet_file(as_path(source), lenient=lenient)
    if isinstance(source, Mapping) and not _is_one_server(source):
        return load_fleet_mapping(_by_tables(source), lenient=lenient)
    if isinstance(source, str | ServerConfig | Mapping) or is_server_object(source):
        return FleetFile(_of_one_server(source))
    if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray):
        return FleetFile(_of_many(source, lenient=lenient))
    raise ConfigError(
        f"{_PREFIX}: a manager cannot be made from a value of type {type(source).__name__}", hint=_ACCEPTED
    )


def fleet_config_of(source: FleetSource) -> ManagerConfig:
    """Return the configuration of a whole fleet, which a running manager is to follow.

    What describes a single server, or nothing, is refused: all other servers would be removed.

    Raises
    ------
    ConfigError
        As for :func:`manager_config_of`.
    """
    if isinstance(source, Mapping):
        is_fleet = bool(source) and not _is_one_server(source)
    elif isinstance(source, str):
        is_fleet = not is_url(source.strip())
    else:
        is_fleet = isinstance(source, ManagerConfig | os.PathLike)
    if not is_fleet:
        # A URL may have credentials, and bytes may be a whole file.
        got = "a URL" if isinstance(source, str) else "None" if source is None else f"of type {type(source).__name__}"
        raise ConfigError(
            f"config must be a ManagerConfig, a mapping of servers or the path of a file, not {got}",
            hint="give all servers of the fleet; ManagerConfig() has none",
        )
    return manager_config_of(source)


def _path(text: str) -> str:
    """Return the path that a text is; raises :class:`ConfigError` without the text, if that may hold secrets."""
    begun = text.strip()
    if begun.startswith("{") or (begun.startswith("[") and begun.endswith("]")) or "\n" in begun:
        raise ConfigError(
            f"{_PREFIX}: a manager cannot be made from JSON text: a text is a URL or the path of a file",
            hint="give the mapping itself, json.loads(text)",
        )
    if (scheme := _SCHEME.match(begun)) is not None:
        raise ConfigError(
            f"{_PREFIX}: a server cannot be reached by a URL that begins with {scheme[0]!r}",
            hint="use http:// or https://",
        )
    if _HOST_AND_PORT.match(begun) is not None:
        raise ConfigError(f"{_PREFIX}: a URL needs its scheme", hint="put http:// or https:// before the host")
    if not begun:
        raise ConfigError(f"{_PREFIX}: a manager cannot be made from an empty text", hint=_ACCEPTED)
    return as_path(text)


def _is_one_server(source: Mapping[Any, Any]) -> bool:
    """Tell whether a mapping has the fields of one server at its top."""
    for name in _PLACES:
        value = source.get(name)
        if isinstance(value, str | list | tuple) or is_server_object(value):
            return True
    return False


def _of_one_server(source: Any) -> ManagerConfig:
    try:
        server_id = server_id_of(source)
    except FieldProblem as problem:
        error = problem.error(_PREFIX)
    else:
        return ManagerConfig(servers={server_id: server_config_of(server_id, source)})
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def _by_tables(source: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return a mapping as the tables of a file: servers by id, without any table, are those of ``servers``."""
    # For mappings only.
    from mcp_manager.config.clients.recognition import is_table  # noqa: PLC0415
    from mcp_manager.config.own_file import FLEET_TABLES  # noqa: PLC0415

    if not source or any(name in FLEET_TABLES or (isinstance(name, str) and is_table(name)) for name in source):
        return source
    if any(
        _is_misspelt_table(name, value, FLEET_TABLES)
        for name, value in itertools.islice(source.items(), _MOST_COMPARED)
    ):
        return source
    return {"servers": source} if all(itertools.starmap(_is_server, source.items())) else source


def _is_misspelt_table(name: object, value: object, tables: Sequence[str]) -> bool:
    """Tell whether a mapping of mappings has nearly the name of a table: then no server is meant."""
    return (
        isinstance(name, str)
        and isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(each, Mapping) for each in value.values())
        and nearest(name, tables, cutoff=_NEAR) is not None
    )


def _is_server(name: object, value: object) -> bool:
    if isinstance(value, str):
        # Any other text is meant as a command, unless it is a field that stands too high; the error says how to write one.
        return is_url(value) or name not in _FIELDS
    return isinstance(value, ServerConfig | Mapping | list | tuple) or is_server_object(value)


def _of_many(sources: Sequence[Any], *, lenient: bool) -> ManagerConfig:
    first = sources[0] if sources else None
    if isinstance(first, str) and not is_url(first.strip()) and all(isinstance(each, str) for each in sources):
        if os.path.splitext(first)[1].lower() not in KINDS:
            raise ConfigError(
                f"{_PREFIX}: a list holds sources of servers, and is no command line",
                hint='give a mapping of servers by id, such as {"id": ["python", "server.py"]}',
            )
    try:
        return _joined([manager_config_of(each, lenient=lenient) for each in sources])
    except RecursionError:
        raise ConfigError(f"{_PREFIX}: lists are nested too deeply") from None


def _joined(configs: Sequence[ManagerConfig]) -> ManagerConfig:
    """Return one configuration with the servers of several; only one of them may have settings of the manager."""
    servers: dict[str, ServerConfig] = {}
    for config in configs:
        for server_id, server in config.servers.items():
            if server_id in servers:
                hint = "give a mapping of servers by id instead of a list, or name the servers"
                raise ConfigError(f"{_PREFIX}: two servers have the id {server_id!r}", server_id=server_id, hint=hint)
            servers[server_id] = server
    settings = [bare for each in configs if (bare := msgspec.structs.replace(each, servers={})) != ManagerConfig()]
    if len(settings) > 1:
        raise ConfigError(
            f"{_PREFIX}: several sources have settings of the manager", hint="give them in one ManagerConfig"
        )
    return msgspec.structs.replace(settings[0] if settings else ManagerConfig(), servers=servers)
