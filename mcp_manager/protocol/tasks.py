"""Calls that go on as tasks, in the shape of either era: SEP-2663, and the experimental tasks of 2025-11-25."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.multi_round import InputRequest, MalformedResult

__all__ = ["TaskState", "TaskStatus", "poll_delay_s", "read_created_task", "read_task", "task_params", "with_task"]

_DEFAULT_S: Final = 1.0
_SHORTEST_S: Final = 0.05
_LONGEST_S: Final = 60.0
# Only upwards: servers may refuse whoever asks more often than they said.
_SPREAD: Final = 0.1


TaskStatus = Literal["working", "input_required", "completed", "failed", "cancelled"]
"""The states of a task, the same in either era."""


class TaskState(msgspec.Struct, frozen=True, rename="camel"):
    """What a server says of a task. ``pollIntervalMs`` and ``pollInterval`` are the same, of either era.

    ``result`` and ``error`` are JSON as it was written, empty where there is none.
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
    """Decode the task that a request became (2025-11-25), ``None`` if it was answered at once; raises as :func:`read_task`."""
    try:
        return _created_decoder.decode(result, limits=None).task
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedResult(f"the task is malformed: {error}") from None


def poll_delay_s(state: TaskState, random: float) -> float:
    """Return the seconds to wait before a task is asked for again; ``random`` is uniform in [0, 1).

    What the server suggests, or one second, within 50 ms to a minute, and up to a tenth more.
    """
    hint_ms = state.poll_interval_ms if state.poll_interval_ms is not None else state.poll_interval
    wanted_s = _DEFAULT_S if hint_ms is None else hint_ms / 1000
    return min(max(wanted_s, _SHORTEST_S), _LONGEST_S) * (1.0 + _SPREAD * random)


def task_params(task_id: str, **members: Any) -> bytes:
    """Encode the params of a request about a task."""
    return msgspec.json.encode({"taskId": task_id, **members})


def with_task(params: bytes | None, ttl_ms: int | None = None) -> bytes:
    """Return params that ask for the request to become a task (2025-11-25, creating tasks).

    Raises
    ------
    msgspec.DecodeError
        They are no object.
    """
    members: dict[str, Any] = dict(_params_decoder.decode(params or b"{}"))
    members["task"] = {} if ttl_ms is None else {"ttl": ttl_ms}
    return msgspec.json.encode(members)
