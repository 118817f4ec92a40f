"""The variables in the values of clients' files, rewritten as this package writes them: ``${VAR}``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from mcp_manager.config._problem import FieldProblem, entry, shown
from mcp_manager.config.clients.dialects import Dialect
from mcp_manager.config.reading import read_text

__all__ = ["Surroundings", "escaped", "input_variable", "rewritten", "rewritten_in"]

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_PLACEHOLDER: Final = re.compile(
    r"\$\{\{(?P<double>[^{}]*)\}\}|(?P<escaped>\$\$\{)|\$\{(?P<braces>[^{}]*)\}|\$\{|\{\{(?P<user>[^{}]*)\}\}"
    rf"|\$(?P<dollar>{_NAME})|(?P<shell>\$\()|\{{(?P<single>(?:env|file):[^{{}}]*)\}}"
)
_VARIABLE: Final = re.compile(rf"(?:env:)?(?P<name>{_NAME})(?::?-(?P<default>.*))?", re.DOTALL)
_ALONE: Final = re.compile(
    rf"\$({_NAME})|\{{env:({_NAME})\}}|(?:Bearer|Token|Basic) +(?:\$({_NAME})|\{{env:({_NAME})\}})"
)
_EDITOR_COMMANDS: Final = ("command", "config", "extensionInstallFolder", "workspaceFolder")
_LARGEST_SECRET: Final = 2**16


class Surroundings(NamedTuple):
    """What the values of a server may refer to.

    Parameters
    ----------
    folder
        That of the file.
    workspace
        That of the project.
    home
        That of the user.
    inputs
        The values that the client asks its user for: their defaults by id, ``None`` without one.
    secrets
        What was read from files that values name is added to this list.
    """

    folder: Path
    workspace: Path
    home: Path
    inputs: dict[str, str | None]
    secrets: list[str]


def input_variable(name: str) -> str:
    """Return the environment variable that stands for what a client asks its user for."""
    return f"INPUT_{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_').upper()}"


def rewritten(text: str, where: str, dialect: Dialect, around: Surroundings, notes: list[str]) -> str:
    """Return a text with ``${VAR}`` for every variable of the client, and what it sets itself filled in.

    What is no variable of this client stays as it is. If it looks like one of another client, ``notes`` says so.

    Raises
    ------
    FieldProblem
        Only the client can fill in a placeholder, or a file that one names cannot be read.
    """
    forms = dialect.placeholders

    def replacement(found: re.Match[str]) -> str:
        kind, inner = found.lastgroup, found[found.lastgroup or 0]
        if kind == "braces":
            return _in_braces(inner, where, dialect, around)
        if kind == "double" and "double" in forms:
            return _secret(inner.strip(), where)
        if kind == "dollar" and "dollar" in forms:
            return _in_braces(inner, where, dialect, around)
        if kind == "single" and "single" in forms:
            if inner.startswith("env:"):
                return f"${{{inner[4:]}}}"
            return escaped(_content(inner[5:], where, around))
        if kind == "user" and "user" in forms:
            raise FieldProblem(where, f"needs {{{{{inner}}}}}, which differs between the users of {dialect.client}")
        if kind == "shell" and "shell" in forms:
            raise FieldProblem(where, "contains a shell command, which is not run", "use an environment variable")
        if kind == "double":
            notes.append(f"{where} is sent as it is; for a variable, write ${{VAR}}")
        return escaped(found[0]) if kind in ("double", None) else found[0]

    result = _PLACEHOLDER.sub(replacement, text)
    if result == text and _ALONE.fullmatch(text):
        notes.append(f"{where} is sent as it is; for a variable, write ${{VAR}}")
    return result


def _in_braces(inner: str, where: str, dialect: Dialect, around: Surroundings) -> str:
    constant = dialect.constants.get(inner)
    if constant is not None:
        return f"${{{inner}:-{around.folder if constant == 'folder' else around.workspace}}}"
    if inner.startswith("input:"):
        name = inner.removeprefix("input:")
        default = around.inputs.setdefault(name, None)
        return f"${{{input_variable(name)}}}" if default is None else f"${{{input_variable(name)}:-{default}}}"
    if inner.startswith("file:") and "file" in dialect.placeholders:
        return escaped(_content(inner.removeprefix("file:"), where, around))
    known = _editor_value(inner, around)
    if known is not None:
        return escaped(known)
    variable = _VARIABLE.fullmatch(inner)
    if variable is not None:
        default = variable["default"]
        return f"${{{variable['name']}}}" if default is None else f"${{{variable['name']}:-{default}}}"
    kind = inner.partition(":")[0]
    if ":" in inner and kind in _EDITOR_COMMANDS:
        raise FieldProblem(where, f"needs {shown(inner)}, which only the client can fill in", "write ${VAR} instead")
    # Such as ${array[@]} of a shell.
    return f"$${{{inner}}}"


def _editor_value(inner: str, around: Surroundings) -> str | None:
    """Return what an editor fills in."""
    if inner in ("workspaceFolder", "workspaceRoot"):
        return str(around.workspace)
    return {
        "workspaceFolderBasename": around.workspace.name,
        "userHome": str(around.home),
        "pathSeparator": os.sep,
        "/": os.sep,
    }.get(inner)


def _secret(inner: str, where: str) -> str:
    source, dot, name = inner.partition(".")
    if dot and source == "secrets" and re.fullmatch(_NAME, name):
        return f"${{{name}}}"
    if dot and source == "inputs":
        return f"${{{input_variable(name)}}}"
    raise FieldProblem(where, f"needs {shown(inner)}, which only the client can fill in", "write ${VAR} instead")


def _content(name: str, where: str, around: Surroundings) -> str:
    """Return the text of a file that a value names, without the line break at its end."""
    path = name.strip()
    if path == "~" or path.startswith("~/"):
        path = str(around.home) + path[1:]
    try:
        text = read_text(around.folder / path, _LARGEST_SECRET).rstrip("\r\n")
    except FieldProblem as unreadable:
        problem = f"the file that it names {unreadable.text}"
    else:
        around.secrets.append(text)
        return text
    raise FieldProblem(where, problem)


def escaped(text: str) -> str:
    """Return a text that has no variables of ours, so that it stays as it is."""
    return text.replace("${", "$${")


def rewritten_in(value: Any, where: str, rewrite: Callable[[str, str], str]) -> Any:
    """Return a text, or the texts of an array or object, each rewritten by ``rewrite(text, where)``."""
    if isinstance(value, str):
        return rewrite(value, where)
    if isinstance(value, list):
        return [rewritten_in(each, f"{where}[{index}]", rewrite) for index, each in enumerate(value)]
    if isinstance(value, dict):
        return {name: rewritten_in(each, entry(where, name), rewrite) for name, each in value.items()}
    return value
