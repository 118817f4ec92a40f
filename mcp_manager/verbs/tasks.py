"""The verbs about tasks: calls that go on at the server, driven by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mcp_manager.config.arguments import as_object, as_seconds, as_text
from mcp_manager.errors import ProtocolError
from mcp_manager.protocol.tasks import TaskStatus
from mcp_manager.results import CallToolResult
from mcp_manager.verbs.calls import Verbs

__all__ = ["Task", "TaskVerbs"]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A call that goes on at the server (2025-11-25, basic/utilities/tasks; 2026-07-28, SEP-2663).

    ``ttl_ms`` is how long it is kept from its creation, ``None`` for as long as the server likes; ``poll_interval_ms``
    how often it wants to be asked at the most. The times are those of the server, as it wrote them (ISO 8601).
    """

    task_id: str
    status: TaskStatus
    status_message: str | None = None
    created_at: str = ""
    last_updated_at: str = ""
    ttl_ms: float | None = None
    poll_interval_ms: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the task has reached a state that it does not leave."""
        return self.status in ("completed", "failed", "cancelled")


class _WireTask(msgspec.Struct, rename="camel"):
    """A task in the spelling of either era."""

    task_id: str
    status: TaskStatus
    status_message: str | None = None
    created_at: str = ""
    last_updated_at: str = ""
    ttl: float | None = None
    ttl_ms: float | None = None
    poll_interval: float | None = None
    poll_interval_ms: float | None = None

    def plain(self) -> Task:
        return Task(
            task_id=self.task_id,
            status=self.status,
            status_message=self.status_message,
            created_at=self.created_at,
            last_updated_at=self.last_updated_at,
            ttl_ms=self.ttl_ms if self.ttl_ms is not None else self.ttl,
            poll_interval_ms=self.poll_interval_ms if self.poll_interval_ms is not None else self.poll_interval,
        )


class _Created(msgspec.Struct):
    task: _WireTask | None = None


class TaskVerbs(Verbs):
    """Drive tasks by hand.

    Nobody has to: :meth:`call_tool`, like every other way to call a tool, follows a task to its end and returns the
    tool's result, where the server makes a task of the call by itself (2026-07-28) or takes it only as one (2025-11-25).
    A caller that gives up, or whose ``timeout`` passes, has the task cancelled. These verbs are for calls that are to
    outlive their caller.
    """

    async def start_task(
        self,
        server_id: str,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        ttl_s: float | None = None,
        timeout: float | None = None,
    ) -> Task:
        """Call a tool as a task, of a server that has the tasks of 2025-11-25, and return without waiting for its end.

        Parameters
        ----------
        ttl_s
            How many seconds the server is asked to keep the task and its result.

        Raises
        ------
        ProtocolError
            The server answered at once: it has no such tasks, and the tool was executed.
        """
        task = {} if ttl_s is None else {"ttl": round(as_seconds(ttl_s, "ttl_s") * 1000)}
        params = {"name": as_text(name, "name"), "arguments": as_object(arguments, "arguments"), "task": task}
        reply = await self.call(server_id, "tools/call", params, timeout=timeout)
        created = await self._decoded(server_id, reply, _Created)
        if created.task is None:
            raise ProtocolError(
                "the server answered the call and made no task of it",
                server_id=server_id,
                delivery="answered",
                hint="use call_tool, which works in either case",
            )
        return created.task.plain()

    async def get_task(self, server_id: str, task_id: str, *, timeout: float | None = None) -> Task:
        """Ask how a task stands."""
        params = {"taskId": as_text(task_id, "task_id")}
        reply = await self.call(server_id, "tasks/get", params, timeout=timeout)
        return (await self._decoded(server_id, reply, _WireTask)).plain()

    async def task_result(self, server_id: str, task_id: str, *, timeout: float | None = None) -> CallToolResult:
        """Wait until a task of 2025-11-25 is over, and return what its tool returned; raises as :meth:`call_tool`."""
        params = {"taskId": as_text(task_id, "task_id")}
        reply = await self.call(server_id, "tasks/result", params, timeout=timeout)
        return await self._decoded(server_id, reply, CallToolResult)

    async def list_tasks(self, server_id: str, *, timeout: float | None = None) -> list[Task]:
        """List the tasks of 2025-11-25 that the server still knows, every page."""
        return [task.plain() for task in await self._list(server_id, "tasks/list", "tasks", _WireTask, timeout)]

    async def cancel_task(self, server_id: str, task_id: str, *, timeout: float | None = None) -> None:
        """Ask the server to end a task; whether and when it does shows :meth:`get_task`."""
        self._result_of(
            server_id,
            await self.call(server_id, "tasks/cancel", {"taskId": as_text(task_id, "task_id")}, timeout=timeout),
        )
