"""What rules allow: which endpoints, servers, entries of lists and methods."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Final

import msgspec

from mcp_manager.config.access import AllowConfig
from mcp_manager.gateway.endpoints.kinds import PROMPTS, RESOURCES, TEMPLATES, TOOLS, Kind
from mcp_manager.gateway.endpoints.name_patterns import NamePatterns, compiled
from mcp_manager.gateway.security.resource_patterns import ResourcePatterns
from mcp_manager.protocol.methods import DISCOVER, INITIALIZE, PING, UNSUBSCRIBE

__all__ = ["EVERYTHING", "FLEET", "SERVER_PREFIX", "VIEW_PREFIX", "Grant", "Rule"]

FLEET: Final = "fleet"
VIEW_PREFIX: Final = "view/"
SERVER_PREFIX: Final = "server/"
"""How the names of endpoints begin."""

_ALL: Final = "*"
_ALLOWING: Final = ("views", "servers", "methods", "tools", "prompts", "resources")
_DIGEST_BYTES: Final = 16
_METHOD_OF: Final = {
    TOOLS: "tools/call",
    PROMPTS: "prompts/get",
    RESOURCES: "resources/read",
    TEMPLATES: "resources/read",
}
"""What clients use the entries of a list for: a list shows what may be used."""
_ALWAYS: Final = frozenset(
    {INITIALIZE, PING, DISCOVER, UNSUBSCRIBE, "subscriptions/listen", *(kind.method for kind in _METHOD_OF)}
)
"""What no rule forbids: the handshake, lists, which show only what is allowed, and what only ends something."""


class Rule:
    """What one rule allows.

    Parameters
    ----------
    config
        The rule.

    Attributes
    ----------
    content
        What it allows, as JSON.
    """

    __slots__ = (
        "_methods",
        "_names",
        "_resources",
        "_servers",
        "_views",
        "allows_all",
        "content",
        "is_whole",
    )

    def __init__(self, config: AllowConfig) -> None:
        self.content: bytes = msgspec.json.encode([getattr(config, name) for name in _ALLOWING])
        self._views = [compiled(each) for each in config.views]
        self._servers = [compiled(each) for each in config.servers]
        self._methods = [compiled(each) for each in config.methods]
        self.allows_all: bool = not config.methods or _ALL in config.methods
        self.is_whole: bool = not (config.tools or config.prompts or config.resources)
        self._names = {TOOLS: NamePatterns(config.tools), PROMPTS: NamePatterns(config.prompts)}
        self._resources = ResourcePatterns(config.resources)

    def applies_at(self, endpoint: str) -> bool:
        """Return whether the rule is one for this endpoint, whatever servers it shows."""
        if not self._views:
            return True
        if endpoint == FLEET:
            return any(each.match("") for each in self._views)
        is_view = endpoint.startswith(VIEW_PREFIX)
        return is_view and any(each.match(endpoint.removeprefix(VIEW_PREFIX)) for each in self._views)

    def names_view(self, name: str) -> bool:
        """Return whether it is for a view, by its name."""
        return any(each.match(name) for each in self._views)

    def shows(self, server_id: str) -> bool:
        """Return whether it allows anything of a server."""
        if self._servers:
            return any(each.match(server_id) for each in self._servers)
        if self.is_whole or self._resources:
            return True
        return any(names.match_server(server_id) for names in self._names.values())

    def covers(self, kind: Kind, server_id: str, key: str) -> bool:
        """Return whether it is for an entry of a list."""
        if not self.shows(server_id):
            return False
        if self.is_whole:
            return True
        names = self._names.get(kind)
        return names.match(server_id, key) if names is not None else self._resources.match(key)

    def may_cover(self, kind: Kind) -> bool:
        """Return whether it is for any entries of a kind."""
        if self.is_whole:
            return True
        return bool(self._names[kind]) if kind in self._names else bool(self._resources)

    def allows(self, method: str) -> bool:
        """Return whether it is for a method."""
        return not self._methods or any(each.match(method) for each in self._methods)


class Grant:
    """What some rules allow together; made by :class:`Rules`, once for each set of rules.

    Parameters
    ----------
    rules
        The rules.
    """

    __slots__ = ("__weakref__", "_rules")

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self._rules = rules

    @property
    def key(self) -> Hashable:
        """Equal for grants of the same rules."""
        return self._rules

    @property
    def digest(self) -> bytes:
        """The same for grants that allow the same, in all processes."""
        return hashlib.blake2b(b"\n".join(rule.content for rule in self._rules), digest_size=_DIGEST_BYTES).digest()

    def at(self, endpoint: str) -> Grant:
        """Return what is allowed at one endpoint, by its name: the rules whose ``views`` fit."""
        kept = tuple(rule for rule in self._rules if rule.applies_at(endpoint))
        return self if kept == self._rules else Grant(kept)

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        return bool(self._rules)

    def sees_fleet(self) -> bool:
        """Return whether the endpoint of the whole fleet is there."""
        return bool(self.at(FLEET))

    def sees_server(self, server_id: str) -> bool:
        """Return whether the endpoint of a server is there."""
        return self.at(SERVER_PREFIX + server_id).shows(server_id)

    def names_view(self, name: str) -> bool:
        """Return whether a rule names a view; one that names none applies to the views that show its servers."""
        return any(rule.names_view(name) for rule in self._rules)

    def shows(self, server_id: str) -> bool:
        """Return whether anything of a server may be used."""
        return any(rule.shows(server_id) for rule in self._rules)

    def shows_whole(self, server_id: str) -> bool:
        """Return whether everything that a server has may be used, in all ways."""
        return any(rule.is_whole and rule.shows(server_id) and rule.allows_all for rule in self._rules)

    def covers_all(self, server_id: str) -> bool:
        """Return whether every tool, prompt and resource of a server may be used."""
        return all(self.allows_all_of(method, server_id) for method in _METHOD_OF.values())

    def allows_all_of(self, method: str, server_id: str) -> bool:
        """Return whether a request with a method may concern anything that a server has."""
        return any(rule.is_whole and rule.shows(server_id) and rule.allows(method) for rule in self._rules)

    def shows_kind(self, kind: Kind, server_id: str) -> bool:
        """Return whether some entries of a kind may be used, if the server has them."""
        method = _METHOD_OF[kind]
        return any(rule.may_cover(kind) and rule.shows(server_id) and rule.allows(method) for rule in self._rules)

    def shows_entry(self, kind: Kind, server_id: str, key: str) -> bool:
        """Return whether an entry may be used: a tool called, a prompt got, a resource read."""
        return self.permits(_METHOD_OF[kind], kind, server_id, key)

    def permits(self, method: str, kind: Kind, server_id: str, key: str) -> bool:
        """Return whether a request with this method may concern an entry."""
        return any(rule.allows(method) and rule.covers(kind, server_id, key) for rule in self._rules)

    def allows(self, method: str) -> bool:
        """Return whether a request with this method may concern anything."""
        return method in _ALWAYS or any(rule.allows(method) for rule in self._rules)

    def allows_of(self, method: str, server_id: str) -> bool:
        """Return whether a request with a method that names no entry may go to a server."""
        return any(rule.allows(method) and rule.shows(server_id) for rule in self._rules)


EVERYTHING: Final = Grant((Rule(AllowConfig()),))
"""What is allowed without any rules."""
