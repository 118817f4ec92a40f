"""Import of the servers in clients' files into one ``fleet.toml``; needs the extra ``clients``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from mcp_manager.config._interpolate import NotedVariables, interpolate
from mcp_manager.config._plain import plain
from mcp_manager.config._problem import FieldProblem, join
from mcp_manager.config.building import build_with_all_problems
from mcp_manager.config.clients.locations import ClientFile
from mcp_manager.config.clients.secrets import without_secrets
from mcp_manager.config.clients.servers import ClientServer, client_servers, input_names, is_client_file
from mcp_manager.config.own_file import INTERPOLATED
from mcp_manager.config.parse import check_server_id
from mcp_manager.config.problems import FileProblems
from mcp_manager.config.reading import read_document
from mcp_manager.config.redaction import printable
from mcp_manager.errors import ConfigError

__all__ = ["ImportedFleet", "ImportedServer", "NeededVariable", "fleet_toml", "import_fleet", "write_fleet_file"]

_VARIABLE: Final = re.compile(r"(?<!\$)\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(:-[^{}]*)?\}")
_UNSET: Final = ("is not set", "needs the input")


class ImportedServer(NamedTuple):
    """A server that was imported: where it is from, and its fields as a configuration file has them."""

    client: str
    path: Path
    fields: Mapping[str, Any]


class NeededVariable(NamedTuple):
    """An environment variable that the imported servers need.

    Parameters
    ----------
    name
        Its name.
    is_set
        Whether it is set now.
    source
        Where its value stands, if it replaces a secret that a file has literally: the file and the field.
    """

    name: str
    is_set: bool
    source: str = ""


class ImportedFleet(NamedTuple):
    """The servers of several clients.

    Parameters
    ----------
    servers
        The servers by id. No field holds a literal secret.
    conflicts
        By the id that a server got, the id that it has in its file, because another server has that name.
    warnings
        What could not be taken over, and which files and servers could not be used.
    variables
        The variables that the servers need.
    """

    servers: Mapping[str, ImportedServer]
    conflicts: Mapping[str, str]
    warnings: tuple[str, ...]
    variables: tuple[NeededVariable, ...]


def import_fleet(
    files: Iterable[ClientFile | str | os.PathLike[str]], environment: Mapping[str, str] | None = None
) -> ImportedFleet:
    """Read the servers of several clients, and merge them.

    Servers of one id that say the same become one; of others, the later ones get the client's name as a suffix. A
    literal secret becomes a variable, whose name is listed. Servers that are off stay off. What is wrong in a file is a
    warning.

    Parameters
    ----------
    files
        The files, the most important first.
    environment
        The variables by name. Default: ``os.environ``.
    """
    return _Import(os.environ if environment is None else environment).of(files)


def fleet_toml(fleet: ImportedFleet) -> str:
    """Return a ``fleet.toml`` with the servers; variables that have to be set are named at its top.

    Raises
    ------
    ConfigError
        The extra ``clients`` is not installed.
    """
    try:
        import tomli_w  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "writing TOML needs tomli-w, which is not installed", hint="pip install 'pymcp-manager[clients]'"
        ) from None
    lines = [printable(f"# ${{{each.name}}}: {_told(each)}") for each in fleet.variables]
    if lines:
        lines = ["# These environment variables are needed:", *lines, ""]
    tables = {server_id: _plain_table(each.fields) for server_id, each in fleet.servers.items()}
    return "\n".join([*lines, tomli_w.dumps({"servers": tables})])


def write_fleet_file(path: str | os.PathLike[str], text: str, *, overwrite: bool = False) -> None:
    """Write a configuration file that only its owner can read.

    Raises
    ------
    ConfigError
        It exists and ``overwrite`` is false, or it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if overwrite else os.O_EXCL)
    try:
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), 0o600)
            file.write(text)
    except FileExistsError:
        problem, hint = "it exists already", "give another name, or overwrite it"
    except OSError as failed:
        problem, hint = failed.strerror or type(failed).__name__, ""
    else:
        return
    raise ConfigError(f"{os.fspath(path)} cannot be written: {problem}", hint=hint)


class _Import:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._servers: dict[str, ImportedServer] = {}
        # Their fields with literal secrets, to tell whether two servers are the same.
        self._originals: dict[str, dict[str, Any]] = {}
        self._conflicts: dict[str, str] = {}
        self._warnings: list[str] = []
        # The values of variables, which no warning must quote.
        self._noted: set[str] = set()
        # The secrets by the variables that replace them, and where they are from.
        self._secrets: dict[str, str] = {}
        self._sources: dict[str, str] = {}

    def of(self, files: Iterable[ClientFile | str | os.PathLike[str]]) -> ImportedFleet:
        for each in files:
            file = each if isinstance(each, ClientFile) else ClientFile("", Path(each), "user")
            self._add_file(file)
        return ImportedFleet(self._servers, self._conflicts, tuple(self._warnings), tuple(self._variables()))

    def _add_file(self, file: ClientFile) -> None:
        problems = FileProblems(str(file.path))
        try:
            document = read_document(file.path)
            problems.document = document
            servers = list(client_servers(document, self._home())) if is_client_file(document) else []
        except FieldProblem as problem:
            problems.add(problem)
            servers = []
        for each in servers:
            self._add(file, each, input_names(each), problems)
        secrets = {*self._noted, *(secret for each in servers for secret in each.entry.around.secrets)}
        self._warnings += [str(problem) for problem in problems.told(secrets)]

    def _add(self, file: ClientFile, server: ClientServer, inputs: Mapping[str, str], problems: FileProblems) -> None:
        entry = server.entry
        if entry.skipped:
            self._warnings.append(f"{file.path}: {entry.path}: {entry.skipped}; it is left out")
            return
        wrong = entry.problems or self._problems(server, inputs)
        for problem in wrong:
            problems.add(problem)
        if wrong:
            return
        warning = entry.warning()
        if warning:
            self._warnings.append(f"{file.path}: {entry.path}: {warning}")
        client = file.client or entry.dialect.client
        fields = {name: value for name, value in plain(entry.ours, entry.path).items() if value not in ({}, [], None)}
        if fields.get("transport") in ("stdio", "http"):
            # That is what it is without being named.
            del fields["transport"]
        if entry.is_off:
            fields["disabled"] = True
        server_id = self._free_id(server.server_id, client, fields, file)
        if server_id is not None:
            self._originals[server_id] = fields
            place = f"{file.path}, {entry.path}"
            safe = without_secrets(
                fields, entry.around.secrets, lambda secret, name: self._variable(secret, name, server_id, place)
            )
            self._servers[server_id] = ImportedServer(client, file.path, safe)

    def _problems(self, server: ClientServer, inputs: Mapping[str, str]) -> list[FieldProblem]:
        """Return what is wrong with a server, but for variables that are not set: they can be set later."""
        entry = server.entry
        if entry.is_off:
            return []
        found: list[FieldProblem] = []
        environment = NotedVariables(self._environment)
        try:
            check_server_id(server.server_id, entry.path)
            fields = {
                name: interpolate(value, join(entry.path, name), environment, found, inputs)
                if name in INTERPOLATED
                else value
                for name, value in plain(entry.ours, entry.path).items()
            }
        except FieldProblem as problem:
            return [problem]
        unset = {problem.path for problem in found if any(each in problem.text for each in _UNSET)}
        self._noted.update(environment.noted)
        _, wrong = build_with_all_problems(fields, server_id=server.server_id, path=entry.path)
        return [each for each in (*found, *wrong) if not any(each.path.startswith(path) for path in unset)]

    def _free_id(self, server_id: str, client: str, fields: dict[str, Any], file: ClientFile) -> str | None:
        """Return the id for a server, or ``None`` if the same server is there already."""
        candidate, number = server_id, 1
        while candidate in self._servers:
            if self._originals[candidate] == fields:
                return None
            suffix = re.sub(r"[^a-z0-9]+", "-", client.lower()).strip("-") or "other"
            candidate = f"{server_id}-{suffix}" if number == 1 else f"{server_id}-{suffix}-{number}"
            number += 1
        if candidate != server_id:
            self._conflicts[candidate] = server_id
            self._warnings.append(f"{file.path}: the id {server_id} is taken; this server is now {candidate}")
        return candidate

    def _variable(self, secret: str, name: str, server_id: str, place: str) -> str:
        """Return the placeholder for a secret, under a name that no other secret has."""
        known = self._known_variable(secret)
        if known is not None:
            return known
        short = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").upper() or "SECRET"
        prefix = re.sub(r"[^A-Za-z0-9]+", "_", server_id).strip("_").upper() or "SERVER"
        names = [short] if re.fullmatch(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+", name) else []
        names += [f"{prefix}_{short}", *(f"{prefix}_{short}_{number}" for number in range(2, 10_000))]
        taken = self._secrets
        free = next(
            each
            for each in names
            if each not in taken and self._environment.get(each, secret) == secret and not each[0].isdigit()
        )
        self._secrets[free] = secret
        self._sources[free] = f"{place} ({name})"
        return f"${{{free}}}"

    def _known_variable(self, secret: str) -> str | None:
        return next((f"${{{name}}}" for name, each in self._secrets.items() if each == secret), None)

    def _variables(self) -> Iterable[NeededVariable]:
        found: dict[str, bool] = {}
        for server in self._servers.values():
            for name, has_default in _variables_in(server.fields):
                found[name] = found.get(name, True) and has_default
        for name, has_default in sorted(found.items()):
            if not has_default or name in self._sources:
                yield NeededVariable(name, bool(self._environment.get(name)), self._sources.get(name, ""))

    def _home(self) -> Path:
        home = self._environment.get("HOME") or self._environment.get("USERPROFILE")
        return Path(home) if home else Path.home()


def _variables_in(value: object) -> Iterable[tuple[str, bool]]:
    if isinstance(value, str):
        for found in _VARIABLE.finditer(value):
            yield found[1], found[2] is not None
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _variables_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _variables_in(each)


def _plain_table(value: Any) -> Any:
    """Return a value as TOML can have it: without null."""
    if isinstance(value, Mapping):
        return {name: _plain_table(each) for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_plain_table(each) for each in value]
    return value


def _told(variable: NeededVariable) -> str:
    state = "is set now" if variable.is_set else "is not set"
    return f"{state}; its value is in {variable.source}" if variable.source else state
