"""``Pins``: whether the definitions that servers list are those that somebody has approved of."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mcp_manager.config.audit import PinsConfig
from mcp_manager.errors import RpcError
from mcp_manager.gateway.endpoints.kinds import Kind
from mcp_manager.gateway.security.definitions import PINNED, changed_members, definition_of
from mcp_manager.gateway.security.pins_file import PinsOfServer, read_pins

__all__ = ["DefinitionBlockedError", "Pins"]

_log = logging.getLogger(__name__)

_MOST_TOLD: Final = 20
_MOST_SERIES: Final = 10_000
_BLOCKED: Final = -32018
_UNREADABLE: Final = "repeats a member, or cannot be read"


class DefinitionBlockedError(RpcError):
    """The definition of what a client wants to use is not the one that was pinned."""

    def __init__(self, what: str, name: str) -> None:
        hint = "the operator has to review it, with: mcp-manager pin CONFIG"
        text = f"The {what} {name} is blocked: its definition is not the one that was pinned"
        super().__init__(_BLOCKED, text, {"source": "gateway", "hint": hint})


class Pins(Collector):
    """Compare definitions with the pins of a file.

    Parameters
    ----------
    config
        What is done about differences, and where the file is.

    Raises
    ------
    ConfigError
        The file cannot be used.
    """

    def __init__(self, config: PinsConfig | None = None) -> None:
        config = PinsConfig() if config is None else config
        self.mode: Literal["off", "warn", "block"] = config.mode
        self._servers: dict[str, PinsOfServer] = self.read(config)
        self.version: int = 0
        """Increases whenever other pins, or another mode, are in force."""
        # What differs now, by server and kind; why, by name.
        self._different: dict[tuple[str, str], dict[str, str]] = {}
        self._counts: dict[str, int] = {}

    @property
    def is_on(self) -> bool:
        """Whether definitions are compared."""
        return self.mode != "off"

    @property
    def blocks(self) -> bool:
        """Whether what differs is hidden."""
        return self.mode == "block"

    def concerns(self, kind: Kind) -> bool:
        """Return whether entries of a kind are compared."""
        return self.is_on and kind in PINNED

    @staticmethod
    def read(config: PinsConfig) -> dict[str, PinsOfServer]:
        """Return the pins of a configuration, by server, for :meth:`replace`; none if they are off.

        Raises
        ------
        ConfigError
            The file cannot be used.
        """
        return {} if config.mode == "off" or config.path is None else read_pins(config.path)

    def replace(self, config: PinsConfig, servers: dict[str, PinsOfServer]) -> bool:
        """Use these pins from now on, which :meth:`read` has returned; return whether anything is another than before."""
        is_other = (self.mode, self._servers) != (config.mode, servers)
        self.mode, self._servers = config.mode, servers
        self.version += is_other
        if not self.is_on:
            self._different.clear()
        return is_other

    def compare(self, server_id: str, kind: Kind, entries: Iterable[tuple[str, bytes]]) -> dict[str, str]:
        """Return why entries differ from their pins, by name; it changes nothing, and may run in a thread.

        Parameters
        ----------
        server_id
            The server.
        kind
            The kind of the entries.
        entries
            Their names, and the entries as JSON.
        """
        pinned = self._servers.get(server_id, {}).get(kind.member, {})
        different: dict[str, str] = {}
        for name, raw in entries:
            pin = pinned.get(name)
            definition = definition_of(kind, raw)
            if definition is None:
                different[name] = _UNREADABLE
            elif pin is None:
                different[name] = "is not pinned"
            elif definition.hash != pin.hash:
                different[name] = f"has changed: {', '.join(changed_members(pin.definition, definition.members))}"
        return different

    def note(self, server_id: str, kind: Kind, different: dict[str, str]) -> frozenset[str]:
        """Take note of what differs, and tell of each difference once; return the names that are to be hidden."""
        key = server_id, kind.member
        before = self._different.get(key, {})
        news = [(name, why) for name, why in different.items() if before.get(name) != why]
        if different:
            self._different[key] = different
        else:
            self._different.pop(key, None)
        if news:
            label = server_id if server_id in self._counts or len(self._counts) < _MOST_SERIES else "_other"
            self._counts[label] = self._counts.get(label, 0) + len(news)
            hidden = ", and is hidden" if self.blocks else ""
            for name, why in news[:_MOST_TOLD]:
                _log.warning(
                    "server %r: the definition of %s %r %s%s; review it with: mcp-manager pin CONFIG",
                    server_id,
                    kind.member.removesuffix("s"),
                    name[:200],
                    why,
                    hidden,
                    extra={"event": "definition_changed"},
                )
            if len(news) > _MOST_TOLD:
                _log.warning("server %r: %d more %s are not as pinned", server_id, len(news) - _MOST_TOLD, kind.member)
        return frozenset(different) if self.blocks else frozenset()

    def note_of_client(self, server_id: str, kind: Kind, different: dict[str, str]) -> frozenset[str]:
        """Take note of what differs in the list of one client, as :meth:`note` does.

        What other clients of the server get stays noted, so that each difference is told once.
        """
        before = self._different.get((server_id, kind.member), {})
        self.note(server_id, kind, {**(before if len(before) < _MOST_SERIES else {}), **different})
        return frozenset(different) if self.blocks else frozenset()

    def hidden(self, server_id: str, kind: Kind) -> frozenset[str]:
        """Return the names of what a server lists that is hidden."""
        return frozenset(self._different.get((server_id, kind.member), ())) if self.blocks else frozenset()

    def forget(self, server_id: str) -> None:
        """Forget what a server lists, because it is gone."""
        for kind in PINNED:
            self._different.pop((server_id, kind.member), None)

    def collect(self) -> Iterator[Metric]:
        """Yield the families of metrics; none without pins."""
        if not self.is_on:
            return
        changes = CounterMetricFamily(
            "mcp_gateway_definition_changes", "Definitions found that were not as pinned", labels=("server",)
        )
        for server_id, count in sorted(self._counts.items()):
            changes.add_metric((server_id,), count)
        yield changes
        yield GaugeMetricFamily(
            "mcp_gateway_definitions_not_as_pinned",
            "Definitions that are not as pinned",
            value=sum(map(len, self._different.values())),
        )
