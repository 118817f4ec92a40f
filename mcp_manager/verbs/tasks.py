"""The methods of MCP for tasks: calls that outlive the request that started them."""

from __future__ import annotations

import msgspec

from mcp_manager.config.arguments import as_seconds, as_text
from mcp_manager.errors import ProtocolError
from mcp_manager.protocol.tasks import TaskStatus
from mcp_manager.results import CallToolResult
from mcp_manager.results.tools import ToolCall
from mcp_manager.serialization import Serializable
from mcp_manager.verbs.tool_arguments import ToolArguments, as_tool_arguments
from mcp_manager.verbs.tools import ToolVerbs

__all__ = ["Task", "TaskVerbs"]


class Task(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """The state of a call that runs as a task (2025-11-25, basic/utilities/tasks; 2026-07-28, SEP-2663).

    Parameters
    ----------
    task_id
        The server's id of the task.
    status
        ``working``, ``input_required``, ``completed``, ``failed`` or ``cancelled``.
    status_message
        A description of the status for people, or ``None``.
    created_at, last_updated_at
        Times of the server's clock, as it wrote them (ISO 8601); ``""`` if it gave none.
    ttl_ms
        Milliseconds from its creation for which the server keeps the task; ``None`` if the server sets no time.
    poll_interval_ms
        The fewest milliseconds that the server wants between two polls, or ``None``.
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
        """Whether the task is completed, failed or cancelled, which are final."""
        return self.status in ("completed", "failed", "cancelled")


class _WireTask(msgspec.Struct, rename="camel"):
    """A task with the member names of both eras."""

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


class TaskVerbs(ToolVerbs):
    """Start, poll and end tasks explicitly, for calls that are to outlive their caller.

    Other calls need none of this. If a server turns a tool call into a task (2026-07-28), or accepts it only as a task
    (2025-11-25), :meth:`call_tool` and all other methods that call tools follow the task to its end and return the
    tool's result. They cancel the task if the caller gives up or the timeout passes.

    For ``server_id``, ``timeout`` and the errors that all methods raise, see :meth:`request`.
    """

    async def start_task(
        self,
        server_id: str,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        ttl_s: float | None = None,
        timeout: float | None = None,
    ) -> Task:
        """Call a tool as a task (2025-11-25), and return the task without waiting for its end.

        Parameters
        ----------
        name
            The name of the tool.
        arguments
            See :meth:`call_tool`.
        ttl_s
            How many seconds, from 0, the server is asked to keep the task and its result; ``None``: the server decides.
        server_id, timeout
            See :meth:`request`, whose errors it raises.

        Raises
        ------
        ProtocolError
            The server does not support tasks for this call and has executed the tool at once.
        """
        task = {} if ttl_s is None else {"ttl": round(as_seconds(ttl_s, "ttl_s") * 1000)}
        params = {"name": as_text(name, "name"), "arguments": as_tool_arguments(arguments), "task": task}
        reply = await self.call(server_id, "tools/call", params, timeout=timeout)
        created = await self._decoded(server_id, reply, _Created)
        if created.task is None:
            raise ProtocolError(
                "the server executed the call at once instead of making it a task",
                server_id=server_id,
                delivery="answered",
                hint="use call_tool, which works with and without tasks",
            )
        return created.task.plain()

    async def get_task(self, server_id: str, task_id: str, *, timeout: float | None = None) -> Task:
        """Return the present state of a task, of either era; errors as for :meth:`request`."""
        params = {"taskId": as_text(task_id, "task_id")}
        reply = await self.call(server_id, "tasks/get", params, timeout=timeout)
        return (await self._decoded(server_id, reply, _WireTask)).plain()

    async def task_result(self, server_id: str, task_id: str, *, timeout: float | None = None) -> CallToolResult:
        """Wait for the end of a task of 2025-11-25 and return the result of its tool; errors as for :meth:`request`."""
        params = {"taskId": as_text(task_id, "task_id")}
        reply = await self.call(server_id, "tasks/result", params, timeout=timeout)
        result = await self._decoded(server_id, reply, CallToolResult)
        await self._complete(result, ToolCall(server_id), None, 0)
        return result

    async def list_tasks(self, server_id: str, *, timeout: float | None = None) -> list[Task]:
        """Return the tasks of 2025-11-25 that a server keeps, from all pages; errors as for :meth:`list_tools`."""
        return [task.plain() for task in await self._list(server_id, "tasks/list", "tasks", _WireTask, timeout)]

    async def cancel_task(self, server_id: str, task_id: str, *, timeout: float | None = None) -> None:
        """Ask the server to cancel a task; :meth:`get_task` shows whether it did. Errors as for :meth:`request`."""
        self._result_of(
            server_id,
            await self.call(server_id, "tasks/cancel", {"taskId": as_text(task_id, "task_id")}, timeout=timeout),
        )
