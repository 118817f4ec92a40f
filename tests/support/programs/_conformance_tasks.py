"""Tasks of the stateless fixture: calls that go on after their response (SEP-2663)."""

from __future__ import annotations

import asyncio
import datetime
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from _conformance_tools import Question, ToolFailure

__all__ = ["EXTENSION", "Tasks", "missing_extension"]

EXTENSION: Final = "io.modelcontextprotocol/tasks"
_TTL_MS: Final = 60_000
_POLL_MS: Final = 50


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


def missing_extension() -> ToolFailure:
    """Return the refusal of a client that does not know tasks."""
    required = {"extensions": {EXTENSION: {}}}
    return ToolFailure(-32021, "Missing required client capability", {"requiredCapabilities": required})


@dataclass
class _Task:
    """One task, which is the call that its tool gets."""

    arguments: Mapping[str, Any]
    capabilities: Mapping[str, Any]
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    status: str = "working"
    created_at: str = field(default_factory=_now)
    outcome: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Question] = field(default_factory=dict)
    answers: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    running: asyncio.Task[Any] | None = None

    async def ask(self, questions: Mapping[str, Question]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        self.asked |= questions
        self.answers |= {key: loop.create_future() for key in questions}
        self.status = "input_required"
        given = {key: await self.answers[key] for key in questions}
        self.status = "working"
        return given

    async def report(self, progress: float, total: float) -> None:
        """Tasks have no stream for it."""

    async def log(self, level: str, data: Any) -> None:
        """Tasks have no stream for it."""

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        """No tool that tells something is a task."""

    async def interrupt(self) -> None:
        """Tasks have no stream to interrupt."""

    def described(self) -> dict[str, Any]:
        """Return the members of a task, as all results about it have them."""
        return {
            "taskId": self.id,
            "status": self.status,
            "createdAt": self.created_at,
            "lastUpdatedAt": _now(),
            "ttlMs": _TTL_MS,
            "pollIntervalMs": _POLL_MS,
        }


class Tasks:
    """All tasks, kept for as long as the server runs."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    def create(
        self,
        tool: Callable[[Any], Awaitable[dict[str, Any]]],
        arguments: Mapping[str, Any],
        capabilities: Mapping[str, Any],
        given: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Begin a task; ``given`` are answers that the client has given before."""
        task = _Task(arguments, capabilities)
        self._tasks[task.id] = task
        task.running = asyncio.create_task(_run(task, tool, given or {}))
        return {"resultType": "task", **task.described()}

    def result_of(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of ``tasks/get``, ``tasks/update`` or ``tasks/cancel``."""
        task = self._tasks.get(params.get("taskId", ""))
        if task is None:
            raise ToolFailure(-32602, "Unknown task")
        if method == "tasks/cancel":
            if task.running is not None and not task.running.done():
                task.running.cancel()
                task.status, task.asked = "cancelled", {}
            return {}
        if method == "tasks/update":
            for key, answer in params.get("inputResponses", {}).items():
                if key in task.asked:
                    del task.asked[key]
                    task.answers[key].set_result(answer)
            return {}
        described = {**task.described(), **task.outcome}
        if task.status == "input_required":
            if not task.asked:
                described["status"] = "working"
            else:
                described["inputRequests"] = {
                    key: {"method": method, "params": asked} for key, (method, asked) in task.asked.items()
                }
        return described


async def _run(task: _Task, tool: Callable[[Any], Awaitable[dict[str, Any]]], given: Mapping[str, Any]) -> None:
    if given:

        async def remembered(questions: Mapping[str, Question]) -> dict[str, Any]:
            return {key: given[key] for key in questions}

        task.ask = remembered  # type: ignore[method-assign]
    try:
        result = await tool(task)
    except ToolFailure as failure:
        task.status, task.outcome = "failed", {"error": {"code": failure.code, "message": str(failure)}}
    else:
        task.status, task.outcome = "completed", {"result": {"resultType": "complete", **result}}
