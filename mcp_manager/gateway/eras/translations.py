"""Answers of servers that a client of 2026-07-28 cannot take as they are: URLs to visit first, and tasks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import ERROR, FrameError, scan_reply
from mcp_manager.errors import RpcError
from mcp_manager.gateway import messages
from mcp_manager.gateway.eras.results import members_of_result
from mcp_manager.protocol.error_codes import INTERNAL_ERROR, URL_ELICITATION_REQUIRED
from mcp_manager.protocol.methods import ELICIT
from mcp_manager.protocol.multi_round import MAX_QUESTIONS, MalformedResult
from mcp_manager.protocol.tasks import TaskState, poll_delay_s, read_task, task_params

__all__ = ["cancellation_of_task", "result_of_task", "url_questions"]

_OWN: Final = {"source": "gateway"}
_URL_NEEDED: Final = str(URL_ELICITATION_REQUIRED).encode()
_LONGEST_ERROR: Final = 64 * 1024
_FOLLOWED_S: Final = 300.0
_UNDER_WAY: Final = ("working", "input_required")


class _Elicitations(msgspec.Struct):
    elicitations: list[dict[str, Any]]


class _UrlNeeded(msgspec.Struct):
    code: int
    data: _Elicitations


_url_decoder = msgspec.json.Decoder(_UrlNeeded)


def url_questions(response: bytes) -> dict[str, Any] | None:
    """Return the questions that a response asks in the way of 2025-11-25, as ``inputRequests``; ``None`` if it is another.

    A server of that revision refuses a request with -32042 until the user has visited URLs (2025-11-25,
    client/elicitation). 2026-07-28 has a result that asks for the same.
    """
    if len(response) > _LONGEST_ERROR or _URL_NEEDED not in response:
        return None
    try:
        reply = scan_reply(response)
        if reply.kind != ERROR or reply.error_code != URL_ELICITATION_REQUIRED:
            return None
        asked = _url_decoder.decode(reply.error or b"").data.elicitations
    except (FrameError, msgspec.DecodeError, RecursionError):
        return None
    if not 0 < len(asked) <= MAX_QUESTIONS:
        return None
    return {
        f"input_{number}": {"method": ELICIT, "params": {"mode": "url", **params}}
        for number, params in enumerate(asked, 1)
    }


async def result_of_task(response: bytes, id_raw: bytes, send: Callable[[bytes], Awaitable[bytes]]) -> bytes:
    """Wait for the result of a task on behalf of a client that does not declare the tasks extension (SEP-2663).

    Parameters
    ----------
    response
        The response with the task.
    id_raw
        The id of the client's request, as JSON.
    send
        ``await send(request)`` sends a request to the server of the task, and returns the response.

    Returns
    -------
    The response that the request would have had without a task.

    Raises
    ------
    RpcError
        The task needs input, was cancelled, takes longer than 300 seconds, or cannot be read.
    """
    try:
        async with asyncio.timeout(_FOLLOWED_S):
            state = _state_of(response)
            while state.status in _UNDER_WAY:
                if state.status == "input_required":
                    raise _ended("needs input, which only clients with the tasks extension can give")
                await asyncio.sleep(poll_delay_s(state, random.random()))
                state = _state_of(await send(messages.request(id_raw, "tasks/get", task_params(state.task_id))))
    except TimeoutError:
        raise _ended(f"takes longer than {_FOLLOWED_S:g} seconds") from None
    if state.status == "completed" and bytes(state.result).startswith(b"{"):
        return messages.response(id_raw, bytes(state.result))
    if state.status == "failed" and bytes(state.error).startswith(b"{"):
        return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_raw, bytes(state.error))
    raise _ended(f"has ended without a result: {state.status}")


def cancellation_of_task(response: bytes, id_raw: bytes) -> bytes | None:
    """Return the request that cancels the task of a response, ``None`` if it cannot be read."""
    try:
        return messages.request(id_raw, "tasks/cancel", task_params(_state_of(response).task_id))
    except RpcError:
        return None


def _state_of(response: bytes) -> TaskState:
    members = members_of_result(response)
    if members is None:
        raise _ended("cannot be asked for")
    try:
        return read_task(msgspec.json.encode(members))
    except MalformedResult:
        raise _ended("is malformed") from None


def _ended(how: str) -> RpcError:
    return RpcError(INTERNAL_ERROR, f"The server made a task of the request, which {how}", _OWN)
