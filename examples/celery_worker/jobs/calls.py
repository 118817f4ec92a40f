"""The calls of tasks: when a call that failed is tried again, and when it must not be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval

from jobs.errors import ToolCallFailed
from jobs.fleet import manager
from mcp_manager import CallError, McpManagerError

T = TypeVar("T")


class ToolTask(Task[..., Any]):
    """A task that calls tools.

    The manager itself repeats a call within its deadline. A task repeats it later, over minutes: while a server is away or
    overloaded.

    Attributes
    ----------
    is_repeatable
        Whether the tool may be executed twice; then the task may be, too.
    """

    is_repeatable = False
    max_retries = 5
    longest_pause_s = 300

    def call(self, server_id: str, tool: str, arguments: Mapping[str, Any], *, into: type[T], timeout: float) -> T:
        """Call a tool and return what it returned; end the task otherwise.

        Raises
        ------
        ToolCallFailed
            The call failed for good. ``delivery`` says whether the tool may have been executed.
        Retry
            The task is in the queue again.
        """
        try:
            return manager().call_tool(server_id, tool, arguments, timeout=timeout, into=into).data
        except SoftTimeLimitExceeded:
            raise ToolCallFailed("SoftTimeLimitExceeded", "the call was given up", "unknown") from None
        except McpManagerError as error:
            failure = ToolCallFailed.of(error)
            if not self.may_repeat(error):
                raise failure from error
            raise self.retry(exc=failure, countdown=self.pause(error)) from error

    def may_repeat(self, error: McpManagerError) -> bool:
        """Tell whether the call may succeed later, and does no harm if it is repeated."""
        is_harmless = error.delivery in ("not_sent", "rejected") or (error.delivery == "unknown" and self.is_repeatable)
        return error.retryable and is_harmless

    def pause(self, error: McpManagerError) -> float:
        """Return the seconds until the next attempt: what the server says, or longer each time."""
        if isinstance(error, CallError) and error.retry_after_s is not None:
            return error.retry_after_s
        retries = self.request.retries or 0
        return get_exponential_backoff_interval(2, retries, self.longest_pause_s, full_jitter=True)
