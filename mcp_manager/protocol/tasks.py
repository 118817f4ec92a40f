"""Calls that become tasks, in either era: SEP-2663, and the experimental tasks of 2025-11-25."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.multi_round import InputRequest, MalformedResult

__all__ = [
    "TaskState",
    "TaskStatus",
    "asks_for_result",
    "poll_delay_s",
    "read_created_task",
    "read_task",
    "related_task",
    "task_params",
    "with_task",
]

_DEFAULT_S: Final = 1.0
_SHORTEST_S: Final = 0.05
_LONGEST_S: Final = 60.0
# Only upwards, because a server may refuse to be asked more often than it said.
_SPREAD: Final = 0.1


TaskStatus = Literal["working", "input_required", "completed", "failed", "cancelled"]
"""The states of a task, the same in both eras."""


class TaskState(msgspec.Struct, frozen=True, rename="camel"):
    """The state of a task, as a server reports it.

    ``pollIntervalMs`` and ``pollInterval`` are the names of the same member in the two eras, in milliseconds.
    ``result`` and ``error`` are raw JSON, empty if there is none.
    """

    task_id: str
    status: TaskStatus
    status_message: str | None = None
    poll_interval_ms: float | None = None
    poll_interval: float | None = None
    input_requests: dict[str, InputRequest] = msgspec.field(default_factory=dict)
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Created(msgspec.Struct):
    task: TaskState | None = None


class _RelatedTask(msgspec.Struct, rename="camel"):
    task_id: str


class _RelatedMeta(msgspec.Struct):
    related: _RelatedTask | None = msgspec.field(default=None, name="io.modelcontextprotocol/related-task")


class _RelatedParams(msgspec.Struct):
    meta: _RelatedMeta | None = msgspec.field(default=None, name="_meta")


class _ResultRequest(msgspec.Struct):
    method: str
    params: _RelatedTask


_related_decoder = JsonDecoder(_RelatedParams)
_request_decoder = JsonDecoder(_ResultRequest)
_task_decoder = JsonDecoder(TaskState)
_created_decoder = JsonDecoder(_Created)
_params_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_task(result: bytes | memoryview) -> TaskState:
    """Decode a task; raises :class:`MalformedResult`."""
    try:
        return _task_decoder.decode(result)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedResult(f"the task is malformed: {error}") from None


def read_created_task(result: bytes | memoryview) -> TaskState | None:
    """Decode the task that a request became (2025-11-25), ``None`` if it did not; raises :class:`MalformedResult`."""
    try:
        return _created_decoder.decode(result, limits=None).task
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedResult(f"the task is malformed: {error}") from None


def related_task(params: bytes | None) -> str | None:
    """Return the id of the task that a message of a server belongs to (2025-11-25, associating task-related messages).

    ``None`` if it belongs to no task; "" if that is malformed.
    """
    if params is None or b"related-task" not in params:
        return None
    try:
        meta = _related_decoder.decode(params, limits=None).meta
    except (msgspec.DecodeError, RecursionError):
        return ""
    return meta.related.task_id if meta is not None and meta.related is not None else None


def asks_for_result(frame: bytes, task_id: str) -> bool:
    """Tell whether a request, as it was sent, waits for the result of a task (2025-11-25, ``tasks/result``)."""
    if b"tasks/result" not in frame:
        return False
    try:
        request = _request_decoder.decode(frame, limits=None)
    except (msgspec.DecodeError, RecursionError):
        return False
    return request.method == "tasks/result" and request.params.task_id == task_id


def poll_delay_s(state: TaskState, random: float) -> float:
    """Return the seconds to wait before polling a task again; ``random`` is uniform in [0, 1).

    This is the server's suggestion or one second, limited to 50 ms to one minute, plus up to a tenth of jitter.
    """
    hint_ms = state.poll_interval_ms if state.poll_interval_ms is not None else state.poll_interval
    wanted_s = _DEFAULT_S if hint_ms is None else hint_ms / 1000
    return min(max(wanted_s, _SHORTEST_S), _LONGEST_S) * (1.0 + _SPREAD * random)


def task_params(task_id: str, **members: Any) -> bytes:
    """Encode the params of a request about a task."""
    return msgspec.json.encode({"taskId": task_id, **members})


def with_task(params: bytes | None, ttl_ms: int | None = None) -> bytes:
    """Return params that request the call to become a task (2025-11-25, creating tasks).

    Parameters
    ----------
    params
        The original params.
    ttl_ms
        How long the server shall keep the task, in milliseconds; ``None`` for its default.

    Raises
    ------
    msgspec.DecodeError
        The params are not an object.
    """
    members: dict[str, Any] = dict(_params_decoder.decode(params or b"{}"))
    members["task"] = {} if ttl_ms is None else {"ttl": ttl_ms}
    return msgspec.json.encode(members)
