"""Tasks, each of which is there for its owner alone (2025-11-25, tasks, security; SEP-2663)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from mcp_manager._core.jsonrpc import RESULT, Message, scan_reply
from mcp_manager._core.splicing import UnclearMemberError, member_range, with_params
from mcp_manager.calls.exchange_listener import Answer, ServerMessage
from mcp_manager.errors import RpcError
from mcp_manager.gateway import messages
from mcp_manager.gateway.client import ANONYMOUS, Client
from mcp_manager.gateway.endpoints.task_ids import TaskIds
from mcp_manager.gateway.sessions.known_tasks import TASK_STATUS, KnownTasks
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.tasks import related_task

__all__ = ["LIST_TASKS", "TASKS", "EndpointTasks", "OwnedTasks", "asks_for_task", "is_of_tasks", "seals_tasks"]

TASKS: Final = "tasks"
"""The first part of the methods that concern tasks."""
LIST_TASKS: Final = "tasks/list"
_BEGINNINGS: Final = ("tasks/", "notifications/tasks")
_METHODS: Final = frozenset({"tasks/get", "tasks/result", "tasks/cancel", "tasks/update", LIST_TASKS})
_OWN: Final = {"source": "gateway"}
_ASKS_FOR_TASK: Final = b"task"
_TASK_ID: Final = b'"taskId"'
_RELATED: Final = b"related-task"
_RELATED_KEY: Final = "io.modelcontextprotocol/related-task"
_FOLDED: Final = "taskid"
_LONGEST_ERROR_ID: Final = 100

Adapt = Callable[[bytes], bytes]
Rename = Callable[[str], str | None]

_members_decoder: JsonDecoder[dict[str, msgspec.Raw]] = JsonDecoder(dict[str, msgspec.Raw])
_entries_decoder: JsonDecoder[list[msgspec.Raw]] = JsonDecoder(list[msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)


def is_of_tasks(method: str) -> bool:
    """Return whether a method concerns tasks, or may be taken for one that does: ``Tasks/Get``."""
    if TASKS not in method.casefold():
        return False
    plain = "".join(char for char in method if char.isprintable() and not char.isspace()).casefold()
    return plain.startswith(_BEGINNINGS)


def asks_for_task(message: Message) -> bool:
    """Return whether a request asks to become a task, or may be understood so (2025-11-25, creating tasks)."""
    params = message.params
    try:
        return params is not None and member_range(params, _ASKS_FOR_TASK) is not None
    except UnclearMemberError:
        return True


def seals_tasks(client: Client, *, is_merged: bool) -> bool:
    """Return whether a client gets sealed ids: not if all clients are one, and the endpoint shows one server as it is."""
    return is_merged or client.principal != ANONYMOUS


class OwnedTasks:
    """The tasks of all endpoints.

    Parameters
    ----------
    sealer
        Seals the ids that clients get.
    known
        Whose tasks there are.

    Attributes
    ----------
    is_personal
        Says of a server whether it gets credentials of each client, and so knows itself whose its tasks are.
    may_keep
        Says of a server whether it may make a task of a request that asks for that.
    """

    def __init__(self, sealer: Sealer, known: KnownTasks | None = None) -> None:
        self.ids: TaskIds = TaskIds(sealer)
        self.known: KnownTasks = KnownTasks() if known is None else known
        self.is_personal: Callable[[str], bool] = lambda _: False
        self.may_keep: Callable[[str], bool] = lambda _: True

    def at(self, endpoint: str, *, is_merged: bool) -> EndpointTasks:
        """Return the tasks of an endpoint.

        Parameters
        ----------
        endpoint
            Its name.
        is_merged
            Whether it may show several servers, so that all ids have to name theirs.
        """
        return EndpointTasks(self, endpoint, is_merged=is_merged)


class EndpointTasks:
    """The tasks of one endpoint; made by :meth:`OwnedTasks.at`."""

    __slots__ = ("_endpoint", "_is_merged", "_tasks")

    def __init__(self, tasks: OwnedTasks, endpoint: str, *, is_merged: bool) -> None:
        self._tasks = tasks
        self._endpoint = endpoint
        self._is_merged = is_merged

    def seals(self, client: Client) -> bool:
        """Return whether a client gets sealed ids here."""
        return seals_tasks(client, is_merged=self._is_merged)

    def creating(self, message: Message, client: Client, server_id: str, adapt: Adapt | None) -> Adapt | None:
        """Return what adapts the response to a request that may become a task (2025-11-25); otherwise ``adapt``."""
        if not self._tasks.may_keep(server_id) or not asks_for_task(message):
            return adapt
        return partial(self._created, client, server_id, adapt)

    def find(self, message: Message, client: Client) -> tuple[str, str, Message]:
        """Return the server of the task that a request is about, the id of the client, and the request for the server.

        Raises
        ------
        RpcError
            The client has no such task.
        """
        try:
            members = _members_decoder.decode(message.params or b"{}")
            client_id = _text_decoder.decode(members["taskId"])
        except (KeyError, msgspec.DecodeError, RecursionError):
            raise RpcError(INVALID_PARAMS, "Invalid params: taskId must be a string", _OWN) from None
        found = self._tasks.ids.open(client.principal, self._endpoint, client_id)
        if found is None:
            raise self.unknown(client_id)
        server_id, task_id = found
        # Some servers do not tell small letters from capital ones.
        members = {name: value for name, value in members.items() if name.casefold() != _FOLDED}
        members["taskId"] = msgspec.Raw(msgspec.json.encode(task_id))
        return server_id, client_id, with_params(message, msgspec.json.encode(members))

    def unknown(self, client_id: str) -> RpcError:
        """Return the error for a task that a client does not have."""
        return RpcError(INVALID_PARAMS, f"Task not found: {client_id[:_LONGEST_ERROR_ID]}", _OWN)

    def answering(self, client_id: str, adapt: Adapt | None) -> Adapt:
        """Return what adapts the response to a request about one task."""
        return partial(self._of_one, client_id, adapt)

    def listing(self, client: Client, server_id: str, adapt: Adapt | None) -> Adapt:
        """Return what adapts a list of tasks: those that are surely not the client's are left out."""
        return partial(self._listed, client, server_id, adapt)

    def check_method(self, method: str, client: Client) -> None:
        """Refuse a method about tasks that may name those of others in another way, or that may be taken for one."""
        if client.principal != ANONYMOUS and is_of_tasks(method) and method not in _METHODS:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method[:100]}", _OWN)

    def told(self, client: Client, server_id: str, sent: ServerMessage) -> ServerMessage | None:
        """Return a message of a server in the terms of the client that it reaches; ``None`` if it is not for this one.

        A program shares one session among all clients: what it says of a task may come while another client calls.
        """
        if not self.seals(client):
            return sent
        raw = sent.raw_params
        try:
            if sent.method == TASK_STATUS:
                members = _members_decoder.decode(raw)
                known = self._tasks.known.of(server_id, _text_decoder.decode(members["taskId"]), client.principal)
                if known is None:
                    return None
                members["taskId"] = msgspec.Raw(msgspec.json.encode(known.client_id))
                return msgspec.structs.replace(sent, raw_params=msgspec.json.encode(members))
            if _RELATED not in raw:
                return sent
            task_id = related_task(raw)
            if task_id is None:
                return sent
            owners = self._tasks.known.owners(server_id, task_id)
            if owners and not any(each.client.principal == client.principal for each in owners):
                return None
            members = _members_decoder.decode(raw)
            _rename_related(members, partial(self._id_for, client, server_id))
            return msgspec.structs.replace(sent, raw_params=msgspec.json.encode(members))
        except (KeyError, msgspec.DecodeError, RecursionError):
            return None

    def answer(self, client: Client, answer: Awaitable[Answer] | Answer) -> Awaitable[Answer] | Answer:
        """Return an answer of a client to a question of a server, in the terms of the server."""
        if isinstance(answer, Awaitable):
            return self._answered(client, answer)
        return self._for_server(client, answer)

    async def _answered(self, client: Client, answer: Awaitable[Answer]) -> Answer:
        return self._for_server(client, await answer)

    def _for_server(self, client: Client, answer: Answer) -> Answer:
        if not isinstance(answer, bytes) or _RELATED not in answer:
            return answer
        try:
            members = _members_decoder.decode(answer)
            _rename_related(members, partial(self._id_from, client))
        except (msgspec.DecodeError, RecursionError):
            return answer
        return msgspec.json.encode(members)

    def _id_for(self, client: Client, server_id: str, task_id: str) -> str:
        return self._tasks.ids.seal(client.principal, self._endpoint, server_id, task_id)

    def _id_from(self, client: Client, client_id: str) -> str:
        found = self._tasks.ids.open(client.principal, self._endpoint, client_id)
        return client_id if found is None else found[1]

    def _created(self, client: Client, server_id: str, adapt: Adapt | None, response: bytes) -> bytes:
        response = response if adapt is None else adapt(response)
        if _TASK_ID not in response:
            return response
        is_sealed = self.seals(client)

        def rename(task_id: str) -> str:
            client_id = self._id_for(client, server_id, task_id) if is_sealed else task_id
            self._tasks.known.note(server_id, task_id, client, client_id)
            return client_id

        def change(members: dict[str, msgspec.Raw]) -> bool:
            if "task" not in members:
                return False
            task = _members_decoder.decode(members["task"])
            _rename(task, rename)
            members["task"] = msgspec.Raw(msgspec.json.encode(task))
            _rename_related(members, rename)
            return is_sealed

        return _changed(response, change)

    def _of_one(self, client_id: str, adapt: Adapt | None, response: bytes) -> bytes:
        response = response if adapt is None else adapt(response)
        if _TASK_ID not in response:
            return response

        def rename(_: str) -> str:
            return client_id

        def change(members: dict[str, msgspec.Raw]) -> bool:
            return _rename(members, rename) | _rename_related(members, rename)

        return _changed(response, change)

    def _listed(self, client: Client, server_id: str, adapt: Adapt | None, response: bytes) -> bytes:
        response = response if adapt is None else adapt(response)
        if not self.seals(client):
            return response
        knows_owners = client.principal == ANONYMOUS or self._tasks.is_personal(server_id)

        def rename(task_id: str) -> str | None:
            if knows_owners:
                return self._id_for(client, server_id, task_id)
            known = self._tasks.known.of(server_id, task_id, client.principal)
            return None if known is None else self._id_for(client, server_id, task_id)

        def change(members: dict[str, msgspec.Raw]) -> bool:
            members["tasks"] = msgspec.Raw(msgspec.json.encode(_renamed_entries(members, rename)))
            return True

        return _changed(response, change)


def _changed(response: bytes, change: Callable[[dict[str, msgspec.Raw]], bool]) -> bytes:
    """Return a response whose result was changed; it stays as it is if there is none, or nothing to change."""
    reply = scan_reply(response)
    if reply.kind != RESULT:
        return response
    try:
        members = _members_decoder.decode(reply.result or b"null")
        if not change(members):
            return response
    except (msgspec.DecodeError, RecursionError):
        return response
    return messages.response(reply.id_raw or messages.NO_ID, msgspec.json.encode(members))


def _renamed_entries(members: dict[str, msgspec.Raw], rename: Rename) -> list[msgspec.Raw]:
    """Return the tasks of a list that keep an id; what cannot be read may be of others."""
    kept: list[msgspec.Raw] = []
    try:
        for entry in _entries_decoder.decode(members.get("tasks", b"[]")):
            task = _members_decoder.decode(entry)
            if _rename(task, rename):
                kept.append(msgspec.Raw(msgspec.json.encode(task)))
    except (msgspec.DecodeError, RecursionError):
        return []
    return kept


def _rename(members: dict[str, msgspec.Raw], rename: Rename) -> bool:
    """Put another id into a task; return whether it has one."""
    if "taskId" not in members:
        return False
    renamed = rename(_text_decoder.decode(members["taskId"]))
    if renamed is None:
        return False
    members["taskId"] = msgspec.Raw(msgspec.json.encode(renamed))
    return True


def _rename_related(members: dict[str, msgspec.Raw], rename: Rename) -> bool:
    """Put another id into the ``_meta`` of a message that belongs to a task; return whether it has one."""
    if "_meta" not in members or _RELATED not in bytes(members["_meta"]):
        return False
    meta = _members_decoder.decode(members["_meta"])
    if _RELATED_KEY not in meta:
        return False
    related = _members_decoder.decode(meta[_RELATED_KEY])
    if not _rename(related, rename):
        return False
    meta[_RELATED_KEY] = msgspec.Raw(msgspec.json.encode(related))
    members["_meta"] = msgspec.Raw(msgspec.json.encode(meta))
    return True
