"""The fleet as administrators have changed it: what a worker needs to know beside what it runs itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mcp_manager.config import ManagerConfig, ServerConfig
from mcp_manager.gateway.workers.worker import Worker
from mcp_manager.manager import McpManager

__all__ = ["ActOnServer", "FleetState", "StateOfWorker", "config_of", "plain_config"]


class ActOnServer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An act on a server, as workers tell it each other.

    Parameters
    ----------
    act
        ``deploy``, ``update``, ``undeploy``, ``scale``, ``redeploy``, ``drain`` or ``resume``.
    server_id
        The server.
    config
        The configuration of the server after it, with its secrets.
    instances
        How many instances it should have.
    timeout_s
        Seconds that calls under way may take.
    how
        How instances are replaced.
    """

    act: str
    server_id: str
    config: dict[str, Any] | None = None
    instances: int | None = None
    timeout_s: float | None = None
    how: dict[str, Any] = {}


class StateOfWorker(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells one that takes the place of another.

    Parameters
    ----------
    is_changed
        Whether anything differs from the file.
    servers
        The configurations of all servers, with their secrets.
    desired
        The numbers of instances that were set, by server.
    drained
        The servers that are out of traffic.
    file
        The configuration that was put in place of the file; ``None`` if none was.
    """

    is_changed: bool
    servers: dict[str, dict[str, Any]]
    desired: dict[str, int]
    drained: list[str]
    file: dict[str, Any] | None


class FleetState:
    """Keep the configuration of the whole fleet, of which one of several workers runs only a part.

    Parameters
    ----------
    manager
        The fleet.
    worker
        This process as one of several; ``None`` if it is the only one.
    servers
        What the file says.

    Attributes
    ----------
    file
        The configuration that was put in place of the file; ``None`` if none was.
    """

    def __init__(self, manager: McpManager, worker: Worker | None, servers: Mapping[str, ServerConfig]) -> None:
        self._manager = manager
        self._worker = worker
        self._servers = dict(servers)
        self._desired: dict[str, int] = {}
        self._drained: set[str] = set()
        self._is_changed = False
        self.file: dict[str, Any] | None = None

    def servers(self) -> dict[str, ServerConfig]:
        """Return the configurations of all servers."""
        if self._worker is not None:
            return dict(self._servers)
        manager = self._manager
        return {view.id: manager.server_config(view.id) for view in manager.servers()}

    def applied(self, servers: Mapping[str, ServerConfig]) -> None:
        """Take note that a configuration was applied to the whole fleet."""
        self._servers = dict(servers)
        self._desired = {server_id: number for server_id, number in self._desired.items() if server_id in servers}
        self._drained &= servers.keys()
        self.file = None
        self._is_changed = bool(self._desired or self._drained)

    def replaced(self, file: dict[str, Any]) -> None:
        """Take note that what was applied last was put in place of the file."""
        self.file = file
        self._is_changed = True

    def took(self, act: ActOnServer) -> None:
        """Take note of an act."""
        server_id = act.server_id
        self._is_changed = True
        if act.config is not None:
            self._servers[server_id] = config_of(act.config)
        if act.instances is not None:
            self._desired[server_id] = act.instances
        if act.act == "undeploy":
            self._servers.pop(server_id, None)
            self._desired.pop(server_id, None)
            self._drained.discard(server_id)
        elif act.act == "drain":
            self._drained.add(server_id)
        elif act.act == "resume":
            self._drained.discard(server_id)

    def part_of(self, server_id: str) -> ServerConfig:
        """Return what this worker has of a server."""
        assert self._worker is not None
        return self._worker.divided(ManagerConfig(servers=self._servers)).servers[server_id]

    def is_elsewhere(self, server_id: str) -> bool:
        """Tell whether a sibling runs the program of a server."""
        return self._worker is not None and server_id in self._worker.elsewhere

    def told(self) -> StateOfWorker:
        """Return it for a worker that takes the place of another."""
        return StateOfWorker(
            is_changed=self._is_changed,
            servers={server_id: plain_config(config) for server_id, config in self._servers.items()},
            desired=self._desired,
            drained=sorted(self._drained),
            file=self.file,
        )

    def take_over(self, told: StateOfWorker) -> ManagerConfig:
        """Take what another worker has told; return the configuration of the whole fleet."""
        self._servers = {server_id: config_of(fields) for server_id, fields in told.servers.items()}
        self._desired, self._drained = dict(told.desired), set(told.drained)
        self._is_changed, self.file = True, told.file
        return ManagerConfig(servers=self._servers)


def plain_config(config: ServerConfig) -> dict[str, Any]:
    """Return a configuration as plain data, with its secrets: for other workers alone."""
    return config.to_dict(reveal_secrets=True)


def config_of(fields: dict[str, Any]) -> ServerConfig:
    """Return the configuration that another worker has told."""
    return msgspec.convert(fields, ServerConfig)
