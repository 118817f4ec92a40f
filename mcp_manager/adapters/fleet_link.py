"""How a toolset reaches its fleet: on the manager's loop, from another loop, or from a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Coroutine, Iterator
from typing import Any, TypeAlias, TypeVar

from mcp_manager.bindings import PyForCaller, PyMcpManager
from mcp_manager.bindings.caller_deadline import CallerDeadline
from mcp_manager.bindings.mirror import deadline_of
from mcp_manager.calls.for_caller import ForCaller
from mcp_manager.config.arguments import as_server_ids
from mcp_manager.errors import NotRunningError
from mcp_manager.manager import McpManager

__all__ = ["FleetLink", "ToolSource"]

T = TypeVar("T")

ToolSource: TypeAlias = McpManager | PyMcpManager | ForCaller | PyForCaller
"""Whose tools a toolset has: a manager, or what ``for_caller()`` returns."""


class FleetLink:
    """Run work on the loop of a manager, from wherever the caller is.

    Parameters
    ----------
    source
        Whose tools are called.
    """

    __slots__ = ("source",)

    def __init__(self, source: ToolSource) -> None:
        if not isinstance(source, McpManager | PyMcpManager | ForCaller | PyForCaller):
            raise TypeError(
                f"Invalid manager: it must be a McpManager, a PyMcpManager or what for_caller() returns, not "
                f"{type(source).__name__}"
            )
        self.source: ToolSource = source

    @property
    def calls(self) -> McpManager | ForCaller:
        """What makes calls, on its own loop; raises :class:`NotRunningError` unless the manager runs."""
        source = self.source
        return source._mirrored()[1] if isinstance(source, PyMcpManager | PyForCaller) else source

    @property
    def manager(self) -> McpManager:
        """The manager that makes the calls; raises :class:`NotRunningError` unless it runs."""
        calls = self.calls
        manager = calls._manager if isinstance(calls, ForCaller) else calls
        assert isinstance(manager, McpManager)
        return manager

    def ids_with(self, tags: Collection[str]) -> set[str]:
        """Return the ids of the servers that have all of these tags."""
        return {each.id for each in self.manager.servers() if set(tags) <= set(each.tags)}

    def deployed(self, servers: Collection[str]) -> list[str]:
        """Return those of these ids whose servers are deployed; raises :class:`InvalidRequestError` for no ids."""
        existing = set(self.manager._deployed(None))
        return [each for each in as_server_ids(servers) if each in existing]

    def deadline(self, server_id: str | None, timeout: float | None) -> CallerDeadline | None:
        """Return when a caller from another thread or loop gives up a call to a server.

        Returns
        -------
        ``None`` for a caller on the manager's loop, and if neither a server nor a timeout is known.
        """
        if not isinstance(self.source, PyMcpManager | PyForCaller):
            return None
        if timeout is None and server_id is None:
            return None
        return deadline_of(self.manager, server_id, timeout)

    async def run(self, work: Coroutine[Any, Any, T], deadline: CallerDeadline | None = None) -> T:
        """Await work on the manager's loop."""
        source = self.source
        if not isinstance(source, PyMcpManager | PyForCaller):
            return await work
        with _closed_unless_taken(work):
            runner = source._mirrored()[0]
        return await runner._await(work, deadline)

    def run_blocking(self, work: Coroutine[Any, Any, T], deadline: CallerDeadline | None = None) -> T:
        """Block this thread until work on the manager's loop is done.

        Raises
        ------
        NotRunningError
            The source is of :class:`McpManager`, the manager does not run, or this is the thread of its loop.
        """
        source = self.source
        with _closed_unless_taken(work):
            if not isinstance(source, PyMcpManager | PyForCaller):
                raise NotRunningError(
                    "Blocking calls need a PyMcpManager", hint="await the method of the same name without _blocking"
                )
            runner = source._mirrored()[0]
        return runner._wait(work, deadline, twin="the method of the same name without _blocking")


@contextlib.contextmanager
def _closed_unless_taken(work: Coroutine[Any, Any, Any]) -> Iterator[None]:
    """Close a coroutine that nothing will await, if the block fails."""
    try:
        yield
    except BaseException:
        work.close()
        raise
