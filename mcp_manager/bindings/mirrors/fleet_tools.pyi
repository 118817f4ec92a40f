# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta
from collections.abc import Collection
from typing import overload

from mcp_manager.bindings.mirrors.tools import ToolVerbsMirror
from mcp_manager.results import CallToolResult
from mcp_manager.session import ProgressCallback
from mcp_manager.verbs.fleet_tools import DataT
from mcp_manager.verbs.tool_arguments import ToolArguments
from mcp_manager.verbs.tool_catalog import ToolCatalog

class FleetToolsMirror(ToolVerbsMirror, metaclass=ABCMeta):
    """The public methods of :class:`FleetTools`, for callers on any thread and loop."""

    def list_all_tools(self, server_ids: Collection[str] | None = None, *, timeout: float | None = None) -> ToolCatalog:
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

    async def list_all_tools_async(
        self, server_ids: Collection[str] | None = None, *, timeout: float | None = None
    ) -> ToolCatalog:
        """Return the tools of several servers, each with a name that is unique in the fleet; see :meth:`list_all_tools`."""

    @overload
    def call_fleet_tool(
        self,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        into: type[DataT],
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult[DataT]:
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

    @overload
    def call_fleet_tool(
        self,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        into: object = None,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult: ...
    @overload
    async def call_fleet_tool_async(
        self,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        into: type[DataT],
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult[DataT]:
        """Call a tool by its name in the fleet and return its result; see :meth:`call_fleet_tool`."""

    @overload
    async def call_fleet_tool_async(
        self,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        into: object = None,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult: ...
