"""What the verbs of a manager need of single servers: their tools, what is known of them, and whether it is current."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection
from typing import Any

from mcp_manager.config import arguments
from mcp_manager.events.feed import EventFeed
from mcp_manager.events.records import ToolsChanged
from mcp_manager.protocol.methods import LIST_TOOLS, TOOLS_CHANGED
from mcp_manager.results import Tool
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import SessionTemplate
from mcp_manager.session.knowledge.output_schemas import OutputSchemas
from mcp_manager.session.knowledge.tool_hints import ToolHints
from mcp_manager.verbs.tool_cache import ToolCache
from mcp_manager.verbs.tools import ToolVerbs

__all__ = ["DeployedServers"]


class DeployedServers(ToolVerbs):
    """Look up the deployed servers for the verbs of a manager."""

    _servers: dict[str, Supervisor]
    _tools: ToolCache
    _events: EventFeed
    _on_tools_changed: Callable[[str, Any], Any] | None

    @abstractmethod
    def _check_running(self) -> None:
        """Raise :class:`NotRunningError` unless the manager runs, on this loop."""

    @abstractmethod
    def _supervisor_of(self, server_id: str) -> Supervisor:
        """Return the supervisor of a server; raises :class:`ServerNotFoundError`."""

    def _deployed(self, server_ids: Collection[str] | None) -> list[str]:
        self._check_running()
        wanted = list(self._servers) if server_ids is None else arguments.as_server_ids(server_ids)
        for server_id in wanted:
            self._supervisor_of(server_id)
        return wanted

    async def _list_tools(self, server_id: str, timeout: float | None) -> list[Tool]:
        template = self._supervisor_of(server_id).template
        # The list is cached from now on, so the server's notification of changes is needed.
        template.knowledge.subscriptions.want(TOOLS_CHANGED)
        if timeout is not None:
            timeout = max(timeout, template.config.request_timeout_s)
        return await self.list_tools(server_id, timeout=timeout)

    def _stamp(self, server_id: str) -> tuple[object, ...]:
        supervisor = self._servers.get(server_id)
        if supervisor is None:
            return ()
        fresh_until = supervisor.template.knowledge.cache.fresh_until(LIST_TOOLS)
        rules = supervisor.config.tools
        return (supervisor.template, rules), fresh_until, *((each, each.generation) for each in supervisor.instances)

    def _template_of(self, server_id: str) -> SessionTemplate | None:
        supervisor = self._servers.get(server_id)
        return None if supervisor is None else supervisor.template

    def _outputs(self, server_id: str) -> OutputSchemas | None:
        supervisor = self._servers.get(server_id)
        return (
            supervisor.template.knowledge.outputs
            if supervisor is not None and supervisor.config.validate_output
            else None
        )

    def _hints(self, server_id: str) -> ToolHints | None:
        supervisor = self._servers.get(server_id)
        trusted = supervisor is not None and supervisor.config.retry.trust_annotations
        return supervisor.template.knowledge.hints if supervisor is not None and trusted else None

    def _tools_changed(self, server_id: str, params: Any) -> Any:
        self._tools.drop(server_id)
        supervisor = self._servers.get(server_id)
        if supervisor is not None:
            self._events.tell(ToolsChanged(server_id=server_id))
            supervisor.template.knowledge.outputs.forget()
            supervisor.template.knowledge.hints.forget()
        return None if self._on_tools_changed is None else self._on_tools_changed(server_id, params)

    def _deployed_supervisors(self, server_id: str | None = None) -> list[Supervisor]:
        self._check_running()
        return list(self._servers.values()) if server_id is None else [self._supervisor_of(server_id)]
