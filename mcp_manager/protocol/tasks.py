"""Calls that become tasks, in either era: SEP-2663, and the experimental tasks of 2025-11-25."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.multi_round import InputRequest, MalformedResult

__all__ = ["TaskState", "TaskStatus", "poll_delay_s", "read_created_task", "read_task", "task_params", "with_task"]

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
