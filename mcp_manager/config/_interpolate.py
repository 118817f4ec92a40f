"""Substitution of environment variables in configuration values: ``${VAR}``, ``${env:VAR}``, ``${VAR:-default}``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from mcp_manager.config._problem import FieldProblem, entry, shown
from mcp_manager.config._secret_forms import is_credential

__all__ = ["NotedVariables", "has_placeholder", "interpolate"]

_PLACEHOLDER: Final = re.compile(r"\$(\$?)\{([^{}]*)(\}?)")
_VARIABLE: Final = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)

_NONE: Final[Mapping[str, str]] = {}

# Shorter values are not treated as secrets: they are words or numbers, such as a port. The name of the variable may
# say that its value is a credential.
_SHORTEST_SECRET: Final = 8
_SHORTEST_CREDENTIAL: Final = 4


class NotedVariables(Mapping[str, str]):
    """An environment that records the values taken from it.

    A value that a user keeps out of the configuration file may be a secret. ``noted`` lists all recorded values.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._taken = 0
        self.noted: list[str] = []

    def __getitem__(self, name: str) -> str:
        value = self._environment[name]
        if len(value) >= (_SHORTEST_CREDENTIAL if is_credential(name) else _SHORTEST_SECRET):
            self.noted.append(value)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._environment)

    def __len__(self) -> int:
        return len(self._environment)

    def peek(self, name: str) -> str | None:
        """Return a value without recording it, or ``None``."""
        return self._environment.get(name)

    def note(self, secrets: Iterable[str]) -> None:
        """Record values that come from elsewhere, such as a file."""
        self.noted.extend(each for each in secrets if len(each) >= _SHORTEST_SECRET)

    def take(self) -> list[str]:
        """Return the values recorded since the last call."""
        fresh, self._taken = self.noted[self._taken :], len(self.noted)
        return fresh


def has_placeholder(text: str) -> bool:
    """Tell whether a text has ``${VAR}`` or the like."""
    return any(not found[1] and _VARIABLE.fullmatch(found[2]) for found in _PLACEHOLDER.finditer(text))


def interpolate(
    value: Any,
    path: str,
    environment: Mapping[str, str],
    problems: list[FieldProblem],
    inputs: Mapping[str, str] = _NONE,
) -> Any:
    """Return a copy of ``value`` with the placeholders in its strings replaced; names of members are not searched.

    As in a shell, the default also replaces a variable that is set but empty. The value of a variable is not searched
    for further placeholders.

    Parameters
    ----------
    value
        A string, or an object or array with strings at any depth; anything else is returned unchanged.
    path
        The field, for errors.
    environment
        The variables by name.
    problems
        A variable that is not set and a malformed placeholder are added to this list; their text stays as it is.
    inputs
        By variable, the names of values that a client asks its user for.
    """
    if isinstance(value, str):
        try:
            return _PLACEHOLDER.sub(lambda found: _replacement(found, path, environment, inputs), value)
        except FieldProblem as problem:
            problems.append(problem)
            return value
    if isinstance(value, list | tuple):
        return [
            interpolate(item, f"{path}[{index}]", environment, problems, inputs) for index, item in enumerate(value)
        ]
    if isinstance(value, dict):
        return {
            name: interpolate(item, entry(path, name) if isinstance(name, str) else path, environment, problems, inputs)
            for name, item in value.items()
        }
    return value


def _replacement(found: re.Match[str], path: str, environment: Mapping[str, str], inputs: Mapping[str, str]) -> str:
    if found[1]:
        return found[0][1:]
    variable = _VARIABLE.fullmatch(found[2])
    if variable is None or not found[3]:
        raise FieldProblem(path, "contains a malformed placeholder", _advice(found[2]))
    name, default = variable[1], variable[2]
    value = environment.get(name)
    if value or (value is not None and default is None):
        return value
    if default is None:
        asked = inputs.get(name)
        if asked is not None:
            text = f"needs the input {shown(asked)}, which the client asks its user for"
            raise FieldProblem(path, text, f"set the environment variable {name}")
        raise FieldProblem(
            path, f"the environment variable {name} is not set", f"set it, or write ${{{name}:-default}}"
        )
    return str(default)


def _advice(inner: str) -> str:
    """Return what to write in place of a malformed placeholder."""
    if inner.partition(":")[0] in ("input", "command", "config", "workspaceFolder", "userHome"):
        return "only an editor fills this in; write ${VAR}, an environment variable"
    return "write ${VAR}, ${env:VAR} or ${VAR:-default}; $${ stands for ${ itself"
