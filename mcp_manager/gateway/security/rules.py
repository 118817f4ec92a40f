"""What principals may use: the rules of ``[[serve.allow]]`` that match them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

from mcp_manager.config.access import AllowConfig
from mcp_manager.gateway.endpoints.name_patterns import compiled
from mcp_manager.gateway.security.grants import Grant, Rule
from mcp_manager.gateway.security.principal import Principal

__all__ = ["Grant", "Rules", "claims_match"]

_SCOPE: Final = "scope"


class _Whom:
    """The principals that a rule is for."""

    __slots__ = ("_claims", "_principals", "_scopes")

    def __init__(self, config: AllowConfig) -> None:
        self._principals = [compiled(each) for each in config.principals]
        self._claims = config.claims
        self._scopes = frozenset(config.scopes)

    def has(self, principal: Principal) -> bool:
        if self._principals and not any(each.match(principal.name) for each in self._principals):
            return False
        return self._scopes <= principal.scopes and claims_match(self._claims, principal.claims)


class Rules:
    """Find what principals may use.

    Parameters
    ----------
    allow
        The rules; without any, everything is allowed to everybody.
    """

    def __init__(self, allow: Sequence[AllowConfig] = ()) -> None:
        self._rules: tuple[tuple[_Whom, Rule], ...] = ()
        self._grants: WeakValueDictionary[tuple[int, ...], Grant] = WeakValueDictionary()
        self.replace(allow)

    def replace(self, allow: Sequence[AllowConfig]) -> None:
        """Use these rules from now on; grants that were found before are no longer right."""
        self._rules = tuple((_Whom(each), Rule(each)) for each in allow)
        self._grants = WeakValueDictionary()

    def grant_of_strangers(self) -> Grant | None:
        """Return what somebody may use of whom nothing is known: nothing, but everything if there are no rules."""
        return Grant() if self._rules else None

    def grant_of(self, principal: Principal) -> Grant | None:
        """Return what a principal may use; ``None``: everything, because there are no rules."""
        if not self._rules:
            return None
        numbers = tuple(number for number, (whom, _) in enumerate(self._rules) if whom.has(principal))
        grant = self._grants.get(numbers)
        if grant is None:
            grant = self._grants[numbers] = Grant(tuple(self._rules[number][1] for number in numbers))
        return grant


def claims_match(wanted: Mapping[str, str | tuple[str, ...]], claims: Mapping[str, Any]) -> bool:
    """Return whether claims have all that is wanted, of each one value at least.

    A claim that is an object is reached by a name with dots, such as ``realm_access.roles``. A list has each of its
    members, and ``scope`` each of its words (RFC 8693, section 4.2).
    """
    for name, values in wanted.items():
        found = _texts(name, _claim(claims, name))
        if found.isdisjoint((values,) if isinstance(values, str) else values):
            return False
    return True


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _texts(name: str, value: Any) -> set[str]:
    """Return the values of a claim as the configuration writes them."""
    if isinstance(value, str):
        return set(value.split(" ")) if name == _SCOPE else {value}
    if isinstance(value, list | tuple | set | frozenset):
        return {text for each in value if not isinstance(each, list | tuple) for text in _texts("", each)}
    if isinstance(value, bool):
        return {"true" if value else "false"}
    return {str(value)} if isinstance(value, int) else set()
