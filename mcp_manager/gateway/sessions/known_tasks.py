"""``KnownTasks``: whose the tasks are that requests of clients have become."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from mcp_manager.gateway.client import Client

__all__ = ["TASK_STATUS", "KnownTask", "KnownTasks"]

TASK_STATUS: Final = "notifications/tasks/status"
"""The notification about the state of a task (2025-11-25, tasks)."""

_MOST: Final = 20_000
_MOST_OF_ONE: Final = 2_000
_LONGEST_ID: Final = 1_024

_Key = tuple[str, str]
"""The server and the id that it gave."""


class KnownTask(msgspec.Struct, frozen=True):
    """A task of one principal.

    Parameters
    ----------
    client
        Who has made it.
    client_id
        The id that this client knows.
    """

    client: Client
    client_id: str


class KnownTasks:
    """Note the owners of tasks: of each principal the 2,000 newest, and 20,000 in all.

    It decides what lists of tasks show, and who is told of their states. Whether a client may use a task, the sealed id
    says: see :class:`~mcp_manager.gateway.endpoints.task_ids.TaskIds`.
    """

    def __init__(self) -> None:
        self._owners: OrderedDict[_Key, dict[str, KnownTask]] = OrderedDict()
        self._of_principals: dict[str, OrderedDict[_Key, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def note(self, server_id: str, task_id: str, client: Client, client_id: str) -> None:
        """Note that a request of a client has become a task."""
        if len(task_id) > _LONGEST_ID:
            return
        key, principal = (server_id, task_id), client.principal
        owners = self._owners.setdefault(key, {})
        self._owners.move_to_end(key)
        mine = self._of_principals.setdefault(principal, OrderedDict())
        self._count += principal not in owners
        owners[principal] = KnownTask(client, client_id)
        mine[key] = None
        mine.move_to_end(key)
        if len(mine) > _MOST_OF_ONE:
            self._forget(next(iter(mine)), principal)
        while self._count > _MOST:
            oldest, of_task = next(iter(self._owners.items()))
            self._forget(oldest, next(iter(of_task)))

    def of(self, server_id: str, task_id: str, principal: str) -> KnownTask | None:
        """Return a task of a principal; ``None`` if it is not known to be one."""
        return self._owners.get((server_id, task_id), {}).get(principal)

    def owners(self, server_id: str, task_id: str) -> list[KnownTask]:
        """Return whose a task is: nobody's if that is not known, several if a server gives the same id to several."""
        return list(self._owners.get((server_id, task_id), {}).values())

    def _forget(self, key: _Key, principal: str) -> None:
        owners = self._owners[key]
        del owners[principal]
        if not owners:
            del self._owners[key]
        mine = self._of_principals[principal]
        del mine[key]
        if not mine:
            del self._of_principals[principal]
        self._count -= 1
