# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta

from mcp_manager.bindings.mirrors.tools import ToolVerbsMirror
from mcp_manager.results import CallToolResult
from mcp_manager.verbs.tasks import Task
from mcp_manager.verbs.tool_arguments import ToolArguments

class TaskVerbsMirror(ToolVerbsMirror, metaclass=ABCMeta):
    """The public methods of :class:`TaskVerbs`, for callers on any thread and loop."""

    def start_task(
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

    async def start_task_async(
        self,
        server_id: str,
        name: str,
        arguments: ToolArguments | None = None,
        *,
        ttl_s: float | None = None,
        timeout: float | None = None,
    ) -> Task:
        """Call a tool as a task (2025-11-25), and return the task without waiting for its end; see :meth:`start_task`."""

    def get_task(self, server_id: str, task_id: str, *, timeout: float | None = None) -> Task:
        """Return the present state of a task, of either era; errors as for :meth:`request`."""

    async def get_task_async(self, server_id: str, task_id: str, *, timeout: float | None = None) -> Task:
        """Return the present state of a task, of either era; errors as for :meth:`request`. See :meth:`get_task`."""

    def task_result(self, server_id: str, task_id: str, *, timeout: float | None = None) -> CallToolResult:
        """Wait for the end of a task of 2025-11-25 and return the result of its tool; errors as for :meth:`request`."""

    async def task_result_async(self, server_id: str, task_id: str, *, timeout: float | None = None) -> CallToolResult:
        """Wait for the end of a task of 2025-11-25 and return the result of its tool; errors as for :meth:`request`. See :meth:`task_result`."""

    def list_tasks(self, server_id: str, *, timeout: float | None = None) -> list[Task]:
        """Return the tasks of 2025-11-25 that a server keeps, from all pages; errors as for :meth:`list_tools`."""

    async def list_tasks_async(self, server_id: str, *, timeout: float | None = None) -> list[Task]:
        """Return the tasks of 2025-11-25 that a server keeps, from all pages; errors as for :meth:`list_tools`. See :meth:`list_tasks`."""

    def cancel_task(self, server_id: str, task_id: str, *, timeout: float | None = None) -> None:
        """Ask the server to cancel a task; :meth:`get_task` shows whether it did. Errors as for :meth:`request`."""

    async def cancel_task_async(self, server_id: str, task_id: str, *, timeout: float | None = None) -> None:
        """Ask the server to cancel a task; :meth:`get_task` shows whether it did. Errors as for :meth:`request`. See :meth:`cancel_task`."""
