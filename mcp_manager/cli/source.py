"""The fleet that a command line names: a file, a URL or the command line of a program."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mcp_manager.cli.grants import with_stored_grant
from mcp_manager.cli.options import CommandLine, Options
from mcp_manager.config import (
    AllowConfig,
    ManagerConfig,
    ServeConfig,
    ServerConfig,
    ViewConfig,
    load_manager_config,
    naming,
    parse_server_config,
    redact_url,
)
from mcp_manager.config.load import FleetFile, load_fleet_file
from mcp_manager.errors import AuthError, ConfigProblem, InvalidRequestError, McpManagerError, ServerNotFoundError

__all__ = ["Fleet", "eager", "file_of", "is_url", "lazy", "load", "only", "patient", "server_ids", "suggestion"]


class Fleet:
    """A configuration, and the words of the command line that follow it.

    Attributes
    ----------
    config
        The configuration.
    place
        The file, URL or command line, as it was given.
    lone
        The id of the only server, if the command line gave it and no file; else ``None``.
    words
        What follows on the command line.
    switched_off
        The ids of the servers that the file turns off.
    problems
        What is wrong with the servers that were left out because of ``--lenient``.
    left_out
        The ids of these servers.
    serve, views
        What the file says of the gateway.
    """

    def __init__(self, file: FleetFile, place: str, words: tuple[str, ...], lone: str | None = None) -> None:
        self.config: ManagerConfig = file.config
        self.switched_off: tuple[str, ...] = file.switched_off
        self.problems: tuple[ConfigProblem, ...] = file.problems
        self.left_out: tuple[str, ...] = file.left_out
        self.serve: ServeConfig | None = file.serve
        self.views: Mapping[str, ViewConfig] = file.views
        self.place = place
        self.lone = lone
        self.words = words

    @property
    def rules(self) -> tuple[AllowConfig, ...]:
        """The rules of access to the gateway."""
        return () if self.serve is None else self.serve.allow

    @property
    def shown(self) -> str:
        """The place, without what may be secret in it."""
        if is_url(self.place):
            return redact_url(self.place)
        return self.lone or self.place

    def advised(self, error: McpManagerError) -> McpManagerError:
        """Return an error with a hint for the command line: who names a URL has no file to change."""
        if isinstance(error, AuthError) and error.is_challenged and is_url(self.place):
            error.hint = f"run mcp-manager login {self.shown}, or use a file that sets auth"
        elif isinstance(error, AuthError) and error.server_id is not None and self.is_personal(error.server_id):
            error.hint = "clients of the gateway show credentials for it: set auth to try it without them"
        return error

    def is_personal(self, server_id: str) -> bool:
        """Return whether the gateway gives the server credentials of each client."""
        credentials = None if self.serve is None else self.serve.credentials.get(server_id)
        return credentials is not None and credentials.is_personal

    @property
    def known(self) -> tuple[str, ...]:
        """The ids of all servers of the file, those that are not used included."""
        return (*self.config.servers, *self.switched_off, *self.left_out)

    @property
    def servers(self) -> dict[str, ServerConfig]:
        """The servers by id."""
        return self.config.servers

    def server_and_rest(self) -> tuple[str | None, tuple[str, ...]]:
        """Return the server that the words name first, and the words after it.

        A server that the command line itself gave need not be named; the result is ``None`` if nothing names one.
        """
        if self.lone is not None:
            return self.lone, self.words[1:] if self.words[:1] == (self.lone,) else self.words
        return (self.words[0], self.words[1:]) if self.words else (None, ())

    def chosen(self) -> str | None:
        """Return the server that the command line names, ``None`` for all of them.

        Raises
        ------
        InvalidRequestError
            There are more words than that.
        """
        server_id, rest = self.server_and_rest()
        if rest:
            raise InvalidRequestError(f"unexpected argument {rest[0]!r}")
        return server_id


async def load(options: Options) -> Fleet:
    """Read the fleet that a command line names.

    Raises
    ------
    ConfigError
        The file, URL or command line is not valid.
    InvalidRequestError
        ``--env`` is given without a command line.
    """
    source = options.config or ""
    if isinstance(source, CommandLine):
        server_id = naming.id_of_command(source.argv)
        command, *arguments = source.argv
        settings: dict[str, Any] = {"command": command, "args": arguments, **_environment(options.environment)}
    elif options.environment:
        raise InvalidRequestError("--env is for the program of a command line after --")
    elif is_url(source):
        server_id = naming.id_of_url(source)
        settings = {"url": source}
    else:
        return Fleet(load_fleet_file(source, lenient=options.lenient), source, options.words)
    server = parse_server_config(settings, server_id=server_id)
    if server.url is not None:
        server = await with_stored_grant(server_id, server)
    return Fleet(FleetFile(ManagerConfig(servers={server_id: server})), source, options.words, server_id)


def file_of(options: Options) -> str | None:
    """Return the file that a command line names, ``None`` for a URL or the command line of a program."""
    source = options.config
    return None if source is None or isinstance(source, CommandLine) or is_url(source) else source


def server_ids(source: str) -> list[str]:
    """Return the ids of the servers in a file, none if it cannot be read."""
    logging.getLogger("mcp_manager").addHandler(logging.NullHandler())
    try:
        return list(load_manager_config(source, environment=_AnyVariable(), lenient=True).servers)
    except McpManagerError:
        return []


def is_url(source: str) -> bool:
    """Tell whether a source is the URL of a server."""
    return naming.is_url(source)


def only(config: ManagerConfig, server_id: str) -> ManagerConfig:
    """Reduce a configuration to one of its servers; raises :class:`ServerNotFoundError` if it lacks that one."""
    if server_id not in config.servers:
        near = suggestion(server_id, config.servers)
        raise ServerNotFoundError(server_id, hint=f"{near}configured: {', '.join(config.servers) or 'none'}")
    return msgspec.structs.replace(config, servers={server_id: config.servers[server_id]})


def suggestion(wanted: str, among: Iterable[str]) -> str:
    """Return "did you mean …? " with the nearest name, "" if none is near."""
    import difflib  # noqa: PLC0415 - for those who mistype

    near = difflib.get_close_matches(wanted[:64], list(among), n=1, cutoff=0.6)
    return f"did you mean {near[0]}? " if near else ""


def lazy(config: ManagerConfig) -> ManagerConfig:
    """Connect lazily, so that a failure to connect is reported by the request and not by an earlier probe."""
    return _each(config, connect="lazy")


def eager(config: ManagerConfig) -> ManagerConfig:
    """Connect to every server at the start, lazy ones included."""
    return _each(config, connect="eager")


def patient(config: ManagerConfig) -> ManagerConfig:
    """Let requests wait for as long as a program may take to start, including its download."""
    servers = {
        name: msgspec.structs.replace(server, request_timeout_s=max(server.request_timeout_s, server.start_timeout_s))
        if server.transport == "stdio"
        else server
        for name, server in config.servers.items()
    }
    return msgspec.structs.replace(config, servers=servers)


def _each(config: ManagerConfig, **changes: Any) -> ManagerConfig:
    servers = {name: msgspec.structs.replace(server, **changes) for name, server in config.servers.items()}
    return msgspec.structs.replace(config, servers=servers)


def _environment(given: Iterable[str]) -> dict[str, Any]:
    pairs = [each.partition("=") for each in given]
    return {
        "env": {name: value for name, equals, value in pairs if equals},
        "inherit_env": [name for name, equals, _ in pairs if not equals],
    }


class _AnyVariable(dict[str, str]):
    """Variables of which each is set, so that a file can be read before they are; the value is good for any field."""

    def __missing__(self, name: str) -> str:
        return "http://localhost"
