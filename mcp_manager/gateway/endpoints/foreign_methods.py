"""Requests that name neither a tool, a prompt nor a resource: tasks, and the methods of extensions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from mcp_manager._core.jsonrpc import RESULT, Message, scan_reply
from mcp_manager.errors import RpcError
from mcp_manager.gateway.callers import principal_of
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.asking import first_that_answers
from mcp_manager.gateway.endpoints.introductions import Introductions
from mcp_manager.manager import McpManager
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.protocol.methods import CLIENT_METHODS
from mcp_manager.protocol.multi_round import MalformedResult
from mcp_manager.protocol.tasks import read_created_task

__all__ = ["ForeignMethods", "resembles_known"]

_OWN: Final = {"source": "gateway"}
_TASKS: Final = "tasks"
_LIST_TASKS: Final = "tasks/list"
_MOST_TASKS: Final = 10_000
_LONGEST_ID: Final = 1_024
_LONGEST_TASK: Final = 16_384
_TASK_ID: Final = b'"taskId"'
_LOOK_S: Final = 2.0

_plain_methods = {method.casefold(): method for method in CLIENT_METHODS}


class _TaskParams(msgspec.Struct, rename="camel"):
    task_id: str


_task_decoder = msgspec.json.Decoder(_TaskParams)


class ForeignMethods:
    """Find the server that a request of an extension is for.

    Parameters
    ----------
    manager
        The fleet.
    introductions
        What the servers have said about themselves.
    """

    def __init__(self, manager: McpManager, introductions: Introductions) -> None:
        self._manager = manager
        self._introductions = introductions
        # The servers of tasks, by the client and the id; the one that was noted first comes first.
        self._tasks: OrderedDict[tuple[str, str], str] = OrderedDict()

    def note_task(self, client: Client, server_id: str, adapt: Callable[[bytes], bytes], response: bytes) -> bytes:
        """Note the task that a request of a client became (2025-11-25, tasks), if any, and return the adapted response."""
        if len(response) > _LONGEST_TASK or _TASK_ID not in response:
            return adapt(response)
        reply = scan_reply(response)
        if reply.kind == RESULT:
            try:
                task = read_created_task(reply.result or b"{}")
            except MalformedResult:
                task = None
            if task is not None and len(task.task_id) <= _LONGEST_ID:
                key = principal_of(client), task.task_id
                self._tasks[key] = server_id
                self._tasks.move_to_end(key)
                if len(self._tasks) > _MOST_TASKS:
                    self._tasks.popitem(last=False)
        return adapt(response)

    async def server_for(
        self, message: Message, client: Client, server_ids: list[str], hides_tools: Callable[[str], bool]
    ) -> str:
        """Return the only server that can answer a request, or for a task, the one that has it.

        Parameters
        ----------
        message
            The request.
        client
            Who asks.
        server_ids
            The servers that the endpoint shows, in the order of precedence.
        hides_tools
            Says of a server whether some of its tools are hidden. Then only those of its tasks are found that the client
            got here, because any other may be that of a hidden tool.

        Raises
        ------
        RpcError
            There is no such server, or there are several.
        """
        method = message.method or ""
        area = method.partition("/")[0]
        identities = await self._introductions.of(server_ids, _LOOK_S)
        able = [each for each, said in identities.items() if said is not None and _can(said, area)]
        if area == _TASKS and method != _LIST_TASKS:
            return await self._with_task(message, client, able, hides_tools)
        if method == _LIST_TASKS and any(map(hides_tools, able)):
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method}", _OWN)
        if len(able) == 1:
            return able[0]
        hint = f"{len(able)} servers have it: use the endpoint of one of them" if able else "no server declares it"
        raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method[:100]}", {**_OWN, "hint": hint})

    async def _with_task(
        self, message: Message, client: Client, server_ids: list[str], hides_tools: Callable[[str], bool]
    ) -> str:
        try:
            task_id = _task_decoder.decode(message.params or b"{}").task_id
        except (msgspec.DecodeError, RecursionError):
            raise RpcError(INVALID_PARAMS, "Invalid params: taskId must be a string", _OWN) from None
        found = self._tasks.get((principal_of(client), task_id))
        if found in server_ids:
            return found
        whole = [each for each in server_ids if not hides_tools(each)]
        is_sole = len(whole) == len(server_ids) == 1
        asked = b'{"method":"tasks/get","params":{"taskId":%b}}' % msgspec.json.encode(task_id)
        found = whole[0] if is_sole else await first_that_answers(self._manager, whole, asked)
        if found is None:
            raise RpcError(INVALID_PARAMS, f"Task not found: {task_id[:100]}", _OWN)
        return found


def resembles_known(method: str) -> bool:
    """Return whether a method is one of MCP's that concerns no extension, or may be taken for one: ``Tools/Call``."""
    shown = "".join(char for char in method if char.isprintable() and not char.isspace())
    known = _plain_methods.get(shown.casefold())
    return known is not None and (known != method or not known.startswith(f"{_TASKS}/"))


def _can(said: ServerIdentity, area: str) -> bool:
    if area in said.capabilities:
        return True
    extensions = said.capabilities.get("extensions")
    return isinstance(extensions, dict) and any(each.rpartition("/")[2] == area for each in extensions)
