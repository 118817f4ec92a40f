"""Which client a file is from, and where in it its servers stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from mcp_manager.config._plain import describe
from mcp_manager.config._problem import FieldProblem, join
from mcp_manager.config.clients.dialects import DIALECTS, Dialect, Table

__all__ = ["Found", "client_of", "is_table", "servers_in", "workspace_of"]

_PLACES: Final = ("command", "cmd", "url", "serverUrl", "httpUrl", "baseUrl", "uri")
_MOST_SERVERS: Final = 250_000
_FOLDERS: Final = frozenset(
    {
        ".vscode", ".cursor", ".roo", ".kilocode", ".gemini", ".qwen", ".claude", ".devcontainer", ".continue",
        ".codex", ".zed", ".amazonq", ".github", ".kiro", ".idea", ".opencode", ".goose", "mcpServers", "settings",
    }
)  # fmt: skip
"""Folders in which clients keep the file of a project."""


class Found(NamedTuple):
    """A server in a file.

    Parameters
    ----------
    server_id
        Its id, which no other server has.
    name
        Its name in the file.
    settings
        What the file says of it.
    path
        Where in the file it is.
    dialect
        The format that it is in.
    is_guessed
        Whether only the fields of servers told the client.
    project
        The folder of the project that it belongs to, if the file names one.
    is_off
        Whether a list elsewhere in the file turns it off.
    """

    server_id: str
    name: str
    settings: Any
    path: str
    dialect: Dialect
    is_guessed: bool
    project: str | None = None
    is_off: bool = False


class _Place(NamedTuple):
    """An object that holds servers, with the path to it and the project that it belongs to."""

    holder: Any
    path: str
    project: str | None


def servers_in(document: Mapping[str, Any], path: Path) -> list[Found] | None:
    """Return the servers of a client's file in their order, or ``None`` if it is not in a known format.

    Raises
    ------
    FieldProblem
        What should hold servers is something else.
    """
    found: list[Found] = []
    names: dict[str, Found] = {}
    numbers: dict[str, int] = {}
    lists: dict[tuple[str, ...], frozenset[str]] = {}
    is_known = False
    for tables in _paths():
        places = list(_places(document, tables))
        if not places:
            continue
        if len(tables.path) == 0 and is_known:
            break
        fitting = [each for each in _candidates(tables) if any(_fits(place, tables, each) for place in places)]
        if not fitting:
            continue
        dialect, is_guessed = _choose(fitting, places, path)
        is_known = True
        for place in places:
            for server in _servers(place, tables, dialect, is_guessed=is_guessed):
                each = server._replace(is_off=_is_listed_off(server, document, lists))
                known = names.get(each.name)
                if known is not None and (known.settings, known.is_off) == (each.settings, each.is_off):
                    # The same in several projects.
                    continue
                found.append(_unique(each, names, numbers))
                names[found[-1].server_id] = found[-1]
    return found if is_known else None


def client_of(path: Path) -> Dialect | None:
    """Return the format of the client whose file has this name, or ``None``."""
    name = path.absolute().as_posix().lower()
    named = (dialect for dialect in DIALECTS if any(name.endswith(end) for end in dialect.files))
    return next(named, None)


def is_table(name: str) -> bool:
    """Tell whether the files of some client have a table of this name at the top."""
    return any(table.path[:1] == (name,) for dialect in DIALECTS for table in dialect.tables)


def workspace_of(path: Path) -> Path:
    """Return the folder of the project that a file is for."""
    folder = path.parent
    while folder.name in _FOLDERS and folder != folder.parent:
        folder = folder.parent
    return folder


def _paths() -> Iterator[Table]:
    """Yield every place for servers once, those that are recognised by their contents last."""
    tables = dict.fromkeys(table for dialect in DIALECTS for table in dialect.tables)
    yield from sorted(tables, key=lambda table: not table.path)


def _candidates(table: Table) -> list[Dialect]:
    return [dialect for dialect in DIALECTS if table in dialect.tables]


def _places(document: Mapping[str, Any], table: Table) -> Iterator[_Place]:
    level = [_Place(document, "", None)]
    for name in table.path:
        deeper = []
        for holder, path, project in level:
            if not isinstance(holder, dict):
                continue
            if name == "*":
                deeper += [_Place(each, join(path, key), key) for key, each in holder.items()]
            elif name in holder:
                deeper.append(_Place(holder[name], join(path, name), project))
        level = deeper
    for place in level:
        if table.path or _stands_alone(place.holder, table):
            yield place


def _stands_alone(document: Any, table: Table) -> bool:
    if table.kind == "one":
        return _is_place(document)
    if table.kind == "registry":
        inner = document.get("server", document)
        return isinstance(inner, dict) and (
            isinstance(inner.get("packages"), list) or isinstance(inner.get("remotes"), list)
        )
    return bool(document) and all(_is_place(each) for name, each in document.items() if not name.startswith("$"))


def _is_place(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(name), str | list) for name in _PLACES)


def _fits(place: _Place, table: Table, dialect: Dialect) -> bool:
    """Tell whether an object can be what a table of this dialect is."""
    if table.kind == "list":
        return isinstance(place.holder, list)
    if table.kind == "map" and isinstance(place.holder, list):
        return False
    if table.path == ("mcp",):
        # Gemini's settings have an object of this name that holds no servers.
        holder = place.holder
        servers = [each for each in holder.values() if isinstance(each, dict)] if isinstance(holder, dict) else []
        return "servers" not in holder and any(map(_is_place_of_any_kind, servers)) if servers else False
    if table.path == ("extensions",):
        return isinstance(place.holder, dict) and any(
            isinstance(each, dict) and ("cmd" in each or "uri" in each or "type" in each)
            for each in place.holder.values()
        )
    return True


def _is_place_of_any_kind(value: Mapping[str, Any]) -> bool:
    return _is_place(value) or any(name in value for name in ("type", "enabled", "disabled"))


def _choose(dialects: list[Dialect], places: Iterable[_Place], path: Path) -> tuple[Dialect, bool]:
    """Return the format of a table, and whether only fields of its servers tell it."""
    name = path.absolute().as_posix().lower()
    for dialect in dialects:
        if any(name.endswith(end) for end in dialect.files):
            return dialect, False
    settings = [each for place in places for each in _members(place.holder)]
    for dialect in dialects:
        if any(_has_mark(each, mark) for mark in dialect.marks for each in settings):
            return dialect, len(dialects) > 1 and dialect.tables[0].path == ("mcpServers",)
    unmarked = [dialect for dialect in dialects if not dialect.marks and not dialect.files]
    return (unmarked or dialects[::-1])[0], False


def _members(holder: Any) -> Iterator[Mapping[str, Any]]:
    for each in holder.values() if isinstance(holder, dict) else holder if isinstance(holder, list) else ():
        if isinstance(each, dict):
            yield each


def _has_mark(settings: Mapping[str, Any], mark: str) -> bool:
    name, equals, value = mark.partition("=")
    return name in settings and (not equals or settings[name] == value)


def _servers(place: _Place, table: Table, dialect: Dialect, *, is_guessed: bool) -> Iterator[Found]:
    holder, path, project = place
    if isinstance(holder, list | dict) and table.path and len(holder) > _MOST_SERVERS:
        raise FieldProblem(path, f"has more than {_MOST_SERVERS:,} servers", "split it")
    if table.kind == "one":
        yield Found("server", "server", holder, path, dialect, is_guessed)
        return
    if table.kind == "registry":
        inner = holder.get("server", holder)
        name = inner.get("name")
        server_id = name.rpartition("/")[2] if isinstance(name, str) and name else "server"
        yield Found(
            server_id, server_id, inner, join(path, "server") if inner is not holder else path, dialect, is_guessed
        )
        return
    if table.kind == "list":
        for index, each in enumerate(holder):
            where = f"{path}[{index}]"
            name = each.get("name", each.get("id")) if isinstance(each, dict) else None
            settings = {key: item for key, item in each.items() if key != "name"} if isinstance(each, dict) else each
            name = name if isinstance(name, str) else f"server-{index + 1}"
            yield Found(name, name, settings, where, dialect, is_guessed)
        return
    if not isinstance(holder, dict):
        raise FieldProblem(path, f"expected an object, got {describe(holder)}")
    for name, each in holder.items():
        if table.kind != "children" or isinstance(each, dict):
            yield Found(name, name, each, join(path, name), dialect, is_guessed, project)


def _unique(found: Found, taken: Mapping[str, Found], numbers: dict[str, int]) -> Found:
    """Give a server another id if there is one of its name; ``numbers`` has the last one that each name got."""
    if found.server_id not in taken:
        return found
    base = f"{found.server_id}@{Path(found.project).name}" if found.project else found.server_id
    server_id, number = base, numbers.get(base, 1)
    while server_id in taken:
        number += 1
        server_id = f"{base}-{number}"
    numbers[base] = number
    return found._replace(server_id=server_id)


def _is_listed_off(found: Found, document: Mapping[str, Any], lists: dict[tuple[str, ...], frozenset[str]]) -> bool:
    """Tell whether a list elsewhere in the file turns a server off; ``lists`` keeps those that were looked up."""

    def listed(path: tuple[str, ...]) -> frozenset[str]:
        if path not in lists:
            lists[path] = _names_at(document, path)
        return lists[path]

    if found.project is not None and found.name in listed(("projects", found.project, "disabledMcpServers")):
        return True
    if any(found.name in listed(path) for path in found.dialect.off):
        return True
    return any(listed(path) and found.name not in listed(path) for path in found.dialect.only)


def _names_at(document: Mapping[str, Any], path: tuple[str, ...]) -> frozenset[str]:
    value: Any = document
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return frozenset(each for each in value if isinstance(each, str)) if isinstance(value, list) else frozenset()
