"""The tools of the whole fleet: list and call them by names that are unique in it."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Collection
from typing import Any, TypeVar, overload

from mcp_manager.config.arguments import as_text, check_timeout, end_of
from mcp_manager.errors import ToolNotFoundError
from mcp_manager.protocol.tool_rules import not_allowed, rules_of
from mcp_manager.results import CallToolResult
from mcp_manager.results.targets import target_of
from mcp_manager.session import ProgressCallback
from mcp_manager.verbs.tool_arguments import ToolArguments
from mcp_manager.verbs.tool_cache import ToolCache
from mcp_manager.verbs.tool_catalog import FleetTool, ToolCatalog, possible_owners
from mcp_manager.verbs.tools import ToolVerbs

__all__ = ["FleetTool", "FleetTools", "ToolCatalog"]

DataT = TypeVar("DataT")


class FleetTools(ToolVerbs):
    """List and call the tools of all servers by names that are unique in the fleet."""

    _tools: ToolCache

    @abstractmethod
    def _deployed(self, server_ids: Collection[str] | None) -> list[str]:
        """Return these ids, or for ``None`` those of all deployed servers.

        Raises
        ------
        ServerNotFoundError
            A server is not deployed.
        InvalidRequestError
            It is not a collection.
        NotRunningError
            The manager does not run, or runs on another event loop.
        """

    async def list_all_tools(
        self, server_ids: Collection[str] | None = None, *, timeout: float | None = None
    ) -> ToolCatalog:
        """Return the tools of several servers, each with a name that is unique in the fleet.

        A server's list is cached until the server notifies a change, its session or configuration is replaced, the time
        passes for which the server said it is valid (2026-07-28), or five minutes have passed.

        Parameters
        ----------
        server_ids
            The servers to list; default: all. The result names those that cannot be listed in ``missing``.
        timeout
            Seconds for each server, counted from the beginning of its listing; default: the manager's
            ``list_timeout_s``. The listing goes on after that, so a later call finds the tools. A server whose listing
            has failed after a long time is not asked again for as long, at most a minute.

        Raises
        ------
        ServerNotFoundError
            A server in ``server_ids`` is not deployed.
        InvalidRequestError
            ``server_ids`` is not a collection, or ``timeout`` is invalid.
        NotRunningError
            The manager does not run, or runs on another event loop.
        """
        return await self._tools.catalog(self._deployed(server_ids), check_timeout(timeout))

    @overload
    async def call_fleet_tool(
        self,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        into: type[DataT],
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult[DataT]: ...

    @overload
    async def call_fleet_tool(
        self,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        into: object = None,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult: ...

    async def call_fleet_tool(
        self,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        into: Any = None,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult[Any]:
        """Call a tool by its name in the fleet and return its result.

        Parameters
        ----------
        name
            The name in the fleet, as :meth:`list_all_tools` returns it.
        timeout
            Seconds for everything together, including the list of the tool's server if the name is not known yet.
            Default: the server's ``request_timeout_s`` for its list, and again for the call.
        arguments, into, key, on_progress
            See :meth:`call_tool`, whose errors it raises.

        Raises
        ------
        ToolNotFoundError
            No deployed server that can be listed has a tool of this name.
        ToolNotAllowedError
            The configuration of its server forbids the tool.
        """
        end = end_of(timeout)
        if into is not None:
            # Refuses a type that nothing can be decoded into, before anything is sent.
            target_of(into)
        # Only checks that the manager runs.
        self._deployed(())
        try:
            route = await self._tools.route(as_text(name, "name"), lambda: self._deployed(None), check_timeout(timeout))
        except ToolNotFoundError:
            self._refuse_forbidden(name)
            raise
        server_id, tool = route
        left = None if end is None else max(0.0, end - time.monotonic())
        return await self.call_tool(
            server_id, tool, arguments, into=into, timeout=left, key=key, on_progress=on_progress
        )

    def _refuse_forbidden(self, name: str) -> None:
        """Raise :class:`ToolNotAllowedError` if a name that is in no list is that of a forbidden tool."""
        for server_id in possible_owners(name, self._deployed(None)):
            template = self._template_of(server_id)
            rules = None if template is None else rules_of(template.config.tools)
            tool = name.removeprefix(f"{server_id}__")
            if rules is not None and tool != name and not rules.permits(tool):
                raise not_allowed(server_id, tool, rules) from None
