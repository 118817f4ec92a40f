"""Loading of configuration files: our own format in TOML, JSON or YAML, and the files of MCP clients."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from mcp_manager.config._interpolate import NotedVariables, interpolate
from mcp_manager.config._plain import describe, plain
from mcp_manager.config._problem import FieldProblem, join
from mcp_manager.config._secret_forms import plain_forms
from mcp_manager.config.building import build_with_all_problems
from mcp_manager.config.gateway_tables import (
    SERVE_INTERPOLATED,
    serve_of,
    settings_problems,
    views_of,
    warn_of_unknown_servers,
)
from mcp_manager.config.manager import ManagerConfig
from mcp_manager.config.mapping import plain_document
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.own_file import (
    INTERPOLATED,
    MANAGER_ALONE,
    SHARED_FIELDS,
    TABLES,
    Defaults,
    check_defaults,
    check_tables,
    manager_of,
    manager_problems,
    switched_off,
)
from mcp_manager.config.parse import check_server_config, check_server_id, decode_json, warn_of_near_misses
from mcp_manager.config.problems import FileProblems
from mcp_manager.config.reading import Document, read_document
from mcp_manager.config.serve import ServeConfig, ViewConfig
from mcp_manager.errors import ConfigError, ConfigProblem

__all__ = ["FleetFile", "load_fleet_file", "load_fleet_mapping", "load_manager_config"]

logger: logging.Logger = logging.getLogger(__name__)

_PROGRAM_PATHS: Final = ("command", "cwd")
_MOST_COMPARED: Final = 100


class FleetFile(NamedTuple):
    """What a configuration file holds.

    Parameters
    ----------
    config
        The configuration of the manager with the servers that are on.
    switched_off
        The ids of the servers that the file turns off.
    problems
        What is wrong with the servers that were left out; empty unless loaded with ``lenient``.
    left_out
        The ids of these servers.
    serve, views
        The configuration of the gateway, and its views by name; ``None`` if the file says nothing of it.
    """

    config: ManagerConfig
    switched_off: tuple[str, ...] = ()
    problems: tuple[ConfigProblem, ...] = ()
    left_out: tuple[str, ...] = ()
    serve: ServeConfig | None = None
    views: Mapping[str, ViewConfig] = {}


def load_manager_config(
    path: str | os.PathLike[str], *, environment: Mapping[str, str] | None = None, lenient: bool = False
) -> ManagerConfig:
    """Read the configuration file of a manager, or of an MCP client.

    The name ends in ``.toml``, ``.json``, ``.jsonc``, ``.yaml`` or ``.yml``; YAML needs the extra ``yaml``. Our own
    format has at the top level:

    - ``manager``: fields of :class:`ManagerConfig`.
    - ``defaults``: fields of :class:`ServerConfig` for every server that does not set its own. Objects such as ``env``,
      ``headers`` or ``breaker`` are merged member by member; ``auth`` is replaced as a whole. Fields that apply only to
      HTTP or only to stdio servers are used for those alone.
    - ``servers``: servers by id. ``disabled = true`` or ``enabled = false`` leaves a server out.
    - ``mcpServers``: servers in the format that most clients share.
    - ``serve`` and ``views``: fields of :class:`ServeConfig`, and of a :class:`ViewConfig` for each view by its name.
      Only the gateway uses them; everywhere else they are checked and set aside.

    An unknown table or field is an error that names the nearest known one, except in ``mcpServers``.

    A file of a client is recognised by its name and its tables. What its fields mean is taken over; what cannot be
    taken over is named in one warning for each server. Servers that the file turns off are left out.

    ``${VAR}``, ``${env:VAR}`` and ``${VAR:-default}`` stand for environment variables in ``command``, ``args``,
    ``env``, ``url``, ``headers``, ``headers_command``, ``cwd``, ``auth``, ``tls``, ``proxy``, ``unix_socket`` and
    ``hidden_texts``, and in the addresses, files and secrets of ``serve``; ``$${`` stands for ``${`` itself. In files of
    clients, their own placeholders are read as well.

    Parameters
    ----------
    path
        The file.
    environment
        The variables by name. Default: ``os.environ``.
    lenient
        Leave out the servers that are wrong, with a warning for each problem, instead of raising an error.

    Returns
    -------
    The checked configuration.

    Raises
    ------
    ConfigError
        The file cannot be read or something in it is wrong. The message names the file, the line, the column and
        the field; ``problems`` lists everything that is wrong.
    """
    return load_fleet_file(path, environment=environment, lenient=lenient).config


def load_fleet_file(
    path: str | os.PathLike[str], *, environment: Mapping[str, str] | None = None, lenient: bool = False
) -> FleetFile:
    """Read a configuration file as :func:`load_manager_config` does, and tell which servers were left out."""
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"the path of a configuration file must be text or a Path, not of type {type(path).__name__}")
    filled_in = NotedVariables(os.environ if environment is None else environment)
    found = FileProblems(os.fspath(path), is_lenient=lenient)
    return _outcome(_Loading(filled_in, found).load(Path(path)), found, filled_in)


def load_fleet_mapping(source: Mapping[Any, Any], *, lenient: bool = False) -> FleetFile:
    """Read a mapping with the contents of a configuration file, our own or a client's, as such a file is read.

    In ``servers``, it may hold what no file can: a :class:`ServerConfig`, a server object, a URL as it is.
    """
    filled_in = NotedVariables(os.environ)
    found = FileProblems("", is_lenient=lenient)
    return _outcome(_Loading(filled_in, found).read(source), found, filled_in)


def _outcome(result: FleetFile | None, found: FileProblems, filled_in: NotedVariables) -> FleetFile:
    if result is not None and found.are_bearable:
        problems = found.told(_secrets(filled_in))
        for problem in problems:
            logger.warning("%s; the server is left out", problem)
        if found.left_out:
            logger.warning(
                "%s: %d more problems; their servers are left out", found.path or "the mapping", found.left_out
            )
        return result._replace(problems=problems)
    error = found.error(_secrets(filled_in))
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def _secrets(environment: NotedVariables) -> set[str]:
    return {form for each in environment.noted for form in plain_forms(each)}


class _Loading:
    """The loading of one file. What is wrong goes to ``found``."""

    def __init__(self, environment: NotedVariables, found: FileProblems) -> None:
        self._environment = environment
        self._found = found
        self._servers: dict[str, ServerConfig] = {}
        self._off: list[str] = []
        self._left_out: list[str] = []
        self._inputs: dict[str, str] = {}

    def load(self, path: Path) -> FleetFile | None:
        """Return what the file holds, or ``None`` if that is not known."""
        try:
            document = read_document(path)
        except FieldProblem as problem:
            self._found.add(problem)
            return None
        self._found.document = document
        return self._settled(document)

    def read(self, source: Mapping[Any, Any]) -> FleetFile | None:
        """Return what a mapping holds, or ``None`` if that is not known."""
        try:
            # Its name makes it no client's file. It has no text, so problems have no place in it.
            return self._settled(Document(Path("mapping"), "json", "", plain_document(source)))
        except FieldProblem as problem:
            self._found.add(problem)
        return None

    def _settled(self, document: Document) -> FleetFile | None:
        try:
            if self._is_own(document):
                return self._own(document)
            return self._of_a_client(document)
        except FieldProblem as problem:
            self._found.add(problem)
        return None

    def _is_own(self, document: Document) -> bool:
        if document.kind == "toml" and document.data.keys() <= {*TABLES, "$schema"}:
            return True
        # For the files of clients only.
        from mcp_manager.config.clients.servers import is_client_file  # noqa: PLC0415

        return not is_client_file(document)

    def _own(self, document: Document) -> FleetFile | None:
        data = document.data
        if document.is_jsonc and document.path.suffix.lower() == ".json":
            # Comments are for the files of clients: this raises the problem.
            decode_json(document.text)
        self._found.add_all(check_tables(data))
        tables = {name: data[name] for name in TABLES if isinstance(data.get(name), dict)}
        self._found.add_all(manager_problems(tables.get("manager", {})))
        gateway = self._gateway_tables(tables)
        defaults = self._defaults(tables.get("defaults", {}))
        # Without those that are wrong, what is wrong with the servers is told as well.
        manager = {} if self._found else tables.get("manager", {})
        defaults = Defaults({} if self._found else defaults.fields, tuple(self._environment.take()))
        for server_id, settings in tables.get("servers", {}).items():
            if self._found.is_full:
                self._left_out.append(server_id)
                continue
            where = join("servers", server_id)
            if server_id in tables.get("mcpServers", {}):
                text = "the same id is in servers and in mcpServers"
                self._found.add(FieldProblem(where, text, "rename or remove one"), is_of_server=True)
                self._left_out.append(server_id)
            elif isinstance(settings, ServerConfig):
                # In a mapping only.
                self._servers[server_id] = check_server_config(settings, server_id=server_id)
            elif not isinstance(settings, dict):
                self._found.add(FieldProblem(where, f"expected an object, got {describe(settings)}"), is_of_server=True)
                self._left_out.append(server_id)
            else:
                self._own_server(server_id, settings, defaults)
        if "mcpServers" in tables:
            from mcp_manager.config.clients.servers import plain_servers  # noqa: PLC0415 - for the files of clients

            others = {
                name: each for name, each in tables["mcpServers"].items() if name not in tables.get("servers", {})
            }
            self._take_client_servers(plain_servers(others, document.path, self._home()), defaults)
        file = self._result(manager_of(manager, self._servers))._replace(**gateway)
        warn_of_unknown_servers(file.serve, file.views, {*self._servers, *self._off, *self._left_out})
        return file

    def _gateway_tables(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of the gateway and its views, nothing if something is wrong with them."""
        problems: list[FieldProblem] = []
        serve = {
            name: interpolate(value, join("serve", name), self._environment, problems)
            if name in SERVE_INTERPOLATED
            else value
            for name, value in tables.get("serve", {}).items()
        }
        # Values of this table are no secrets of servers.
        self._environment.take()
        known = {each.path for each in problems}
        views = tables.get("views", {})
        problems += [each for each in settings_problems({"serve": serve, "views": views}) if each.path not in known]
        self._found.add_all(problems)
        if problems:
            return {}
        return {"serve": serve_of(serve) if "serve" in tables else None, "views": views_of(views)}

    def _of_a_client(self, document: Document) -> FleetFile:
        # For the files of clients only.
        from mcp_manager.config.clients.recognition import is_table  # noqa: PLC0415
        from mcp_manager.config.clients.servers import client_servers, warn_of_no_table  # noqa: PLC0415

        if not {"packages", "remotes", "server"} & document.data.keys():
            others = itertools.islice((name for name in document.data if not is_table(name)), _MOST_COMPARED)
            warn_of_near_misses(others, TABLES, "")
        warn_of_no_table(document)
        self._take_client_servers(client_servers(document, self._home()), Defaults({}, ()))
        return self._result(ManagerConfig(servers=self._servers))

    def _result(self, config: ManagerConfig) -> FleetFile:
        return FleetFile(config, tuple(self._off), left_out=tuple(self._left_out))

    def _own_server(self, server_id: str, settings: dict[str, Any], defaults: Defaults) -> None:
        where = join("servers", server_id)
        fields = dict(settings)
        problems: list[FieldProblem] = []
        is_off = switched_off(fields, where, problems)
        for name in MANAGER_ALONE.intersection(fields):
            del fields[name]
            problems.append(FieldProblem(where, f"unknown field {name!r}", "it belongs in the manager table", name))
        if is_off:
            logger.info("%s: is switched off, and left out", where)
            self._off.append(server_id)
            return
        config = self._built(server_id, fields, where, defaults, problems)
        for problem in problems:
            self._found.add(problem, is_of_server=True)
        if config is not None and not problems:
            self._servers[server_id] = config
        else:
            self._left_out.append(server_id)

    def _take_client_servers(self, servers: Iterable[Any], defaults: Defaults) -> None:
        from mcp_manager.config.clients.servers import input_names, settle  # noqa: PLC0415 - for the files of clients

        for each in servers:
            if self._found.is_full:
                self._left_out.append(each.server_id)
                continue
            entry = each.entry
            self._inputs = input_names(each)
            self._environment.note(entry.around.secrets)
            fields, problems = settle(each)
            if entry.is_off:
                self._off.append(each.server_id)
            if fields is None:
                continue
            wrong: list[FieldProblem] = []
            config = None
            # Without a place, the other problems say why.
            if not problems or "url" in fields or "command" in fields:
                config = self._built(each.server_id, fields, entry.path, defaults, wrong)
            for problem in (*problems, *(_as_in_file(one, entry.path, entry) for one in wrong)):
                self._found.add(problem, is_of_server=True)
            if config is not None and not problems and not wrong:
                extras = entry.extras
                self._servers[each.server_id] = msgspec.structs.replace(config, extras=extras) if extras else config
            else:
                self._left_out.append(each.server_id)

    def _built(
        self, server_id: str, fields: Mapping[str, Any], where: str, defaults: Defaults, problems: list[FieldProblem]
    ) -> ServerConfig | None:
        """Fill in the variables of a server, and build it. What is wrong is added to ``problems``."""
        try:
            check_server_id(server_id, where)
        except FieldProblem as problem:
            problems.append(problem)
        config, wrong = None, [FieldProblem(where, "nested too deeply")]
        with contextlib.suppress(RecursionError):
            own = defaults.applied_to(self._filled(fields, where, problems))
            filled_in = (*defaults.hidden, *self._environment.take())
            if filled_in and isinstance(own.get("hidden_texts", []), list):
                own["hidden_texts"] = [*own.get("hidden_texts", []), *dict.fromkeys(filled_in)]
            config, wrong = build_with_all_problems(own, server_id=server_id, path=where)
        known = {problem.path for problem in problems if problem.member is None}
        problems += [problem for problem in wrong if problem.path not in known]
        return config

    def _filled(self, fields: Mapping[str, Any], where: str, problems: list[FieldProblem]) -> dict[str, Any]:
        filled = {}
        for name, value in fields.items():
            if name in INTERPOLATED:
                value = interpolate(value, join(where, name), self._environment, problems, self._inputs)
            if name in _PROGRAM_PATHS and isinstance(value, str) and (value == "~" or value.startswith("~/")):
                value = f"{self._home()}{value[1:]}"
            filled[name] = value
        return filled

    def _defaults(self, defaults: Mapping[str, Any]) -> Defaults:
        problems: list[FieldProblem] = []
        # The others are told already.
        defaults = {name: value for name, value in defaults.items() if name in SHARED_FIELDS}
        try:
            shared = Defaults(self._filled(plain(defaults, "defaults"), "defaults", problems), ())
        except FieldProblem as problem:
            self._found.add(problem)
            return Defaults({}, ())
        known = {each.path for each in problems}
        for each in (*problems, *(each for each in check_defaults(shared) if each.path not in known)):
            self._found.add(each)
        return shared

    def _home(self) -> Path:
        home = self._environment.peek("HOME") or self._environment.peek("USERPROFILE")
        return Path(home) if home else Path.home()


def _as_in_file(problem: FieldProblem, where: str, entry: Any) -> FieldProblem:
    """Return a problem with the place in the file of a client that its field comes from."""
    inner = problem.path.removeprefix(where).lstrip(".")
    return FieldProblem(entry.source_of(inner), problem.text, problem.hint, problem.member)
