"""Substitution of environment variables in configuration values: ``${VAR}``, ``${env:VAR}``, ``${VAR:-default}``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from mcp_manager.config._problem import FieldProblem, entry
from mcp_manager.config._secret_forms import is_credential

__all__ = ["NotedVariables", "interpolate"]

_PLACEHOLDER: Final = re.compile(r"\$(\$?)\{([^{}]*)(\}?)")
_VARIABLE: Final = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)

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

    def take(self) -> list[str]:
        """Return the values recorded since the last call."""
        fresh, self._taken = self.noted[self._taken :], len(self.noted)
        return fresh


def interpolate(value: Any, path: str, environment: Mapping[str, str], *, only: Collection[str] | None = None) -> Any:
    """Return a copy of ``value`` with the placeholders in its strings replaced; names of members are not searched.

    As in a shell, the default also replaces a variable that is set but empty. The value of a variable is not searched
    for further placeholders.

    Parameters
    ----------
    value
        A string, or an object or array of strings; anything else is returned unchanged.
    path
        The field, for errors.
    environment
        The variables by name.
    only
        If given, only these members of an object are searched.

    Raises
    ------
    FieldProblem
        A variable is not set, or a placeholder is malformed.
    """
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: _replacement(found, path, environment), value)
    if isinstance(value, list):
        return [
            interpolate(item, f"{path}[{index}]", environment) if isinstance(item, str) else item
            for index, item in enumerate(value)
        ]
    if isinstance(value, dict):
        texts = {name: item for name, item in value.items() if isinstance(item, str) and (only is None or name in only)}
        return {**value, **{name: interpolate(text, entry(path, name), environment) for name, text in texts.items()}}
    return value


def _replacement(found: re.Match[str], path: str, environment: Mapping[str, str]) -> str:
    if found[1]:
        return found[0][1:]
    variable = _VARIABLE.fullmatch(found[2])
    if variable is None or not found[3]:
        hint = "write ${VAR}, ${env:VAR} or ${VAR:-default}; $${ stands for ${ itself"
        raise FieldProblem(path, "contains a malformed placeholder", hint)
    name, default = variable[1], variable[2]
    value = environment.get(name)
    if value or (value is not None and default is None):
        return value
    if default is None:
        raise FieldProblem(
            path, f"the environment variable {name} is not set", f"set it, or write ${{{name}:-default}}"
        )
    return str(default)
