"""What a caller gets in place of the answer that no attempt has brought."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

import msgspec

from mcp_manager._core.jsonrpc import Message, scan_reply
from mcp_manager.errors import CallError
from mcp_manager.protocol import methods
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.safety import CONTENT, LISTS, tool_of
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.transports.base import Sendable

__all__ = ["STALE_AGE", "STAND_IN", "STAND_IN_SERVER", "Fallbacks", "from_other", "may_ask_another"]

STAND_IN: Final = "mcp-manager/fallback"
"""The member of a result's ``_meta`` that says what it is in place of an answer: ``server``, ``stale`` or ``static``."""
STAND_IN_SERVER: Final = "mcp-manager/fallback-server"
"""Beside it, the id of the server that has answered."""
STALE_AGE: Final = "mcp-manager/stale-age-s"
"""Beside it, how many seconds old the result is."""

_members_decoder = JsonDecoder(dict[str, msgspec.Raw])
_meta_decoder = JsonDecoder(dict[str, Any])


class Fallbacks:
    """Find what stands in for an answer; see :class:`~mcp_manager.config.FallbackConfig`.

    Parameters
    ----------
    servers
        Returns the supervisors of all deployed servers.
    clock
        Monotonic nanoseconds.
    """

    def __init__(self, servers: Callable[[], Iterable[Supervisor]], clock: Callable[[], int]) -> None:
        self._servers = servers
        self._clock = clock

    def keep(self, supervisor: Supervisor, method: str, request: Sendable, reply: Message) -> None:
        """Keep a result for later, if its server is configured so and it is of a kind that may be given again."""
        kept = supervisor.settings.kept
        if kept is not None and (method in CONTENT or method in LISTS):
            result = reply.result_buffer
            if result is not None:
                kept.keep(method, request.params, bytes(result), self._clock())

    def others(self, supervisor: Supervisor, method: str) -> Iterator[Supervisor]:
        """Return the servers to ask in place of one: the highest priority first, each once."""
        tag = supervisor.config.fallback.tag
        # The rest is about the server itself or its sessions: no other one can answer for it.
        if tag is None or method not in CONTENT:
            return iter(())
        tagged = [each for each in self._servers() if tag in each.config.tags and each is not supervisor]
        return iter(sorted(tagged, key=lambda each: -each.config.priority))

    def own(
        self, supervisor: Supervisor, method: str, request: Sendable, *, is_safe: bool
    ) -> tuple[Message, Literal["stale", "static"]] | None:
        """Return what a server's own settings and past have in place of an answer, and which of the two it is.

        Parameters
        ----------
        is_safe
            The request does no harm when it is executed twice. The result of one that does something would claim that it
            was done once more: that is not given again.
        """
        config = supervisor.config.fallback
        kept = supervisor.settings.kept
        found = kept.find(method, request.params) if kept is not None and is_safe else None
        if found is not None:
            age_s = (self._clock() - found[0]) / 1e9
            if age_s <= config.stale_s:
                return marked(found[1], {STAND_IN: "stale", STALE_AGE: round(age_s, 3)}), "stale"
        if not config.static:
            return None
        tool = tool_of(request.params) if method == methods.CALL_TOOL else None
        name = f"{method}:{tool}" if tool is not None and f"{method}:{tool}" in config.static else method
        if name not in config.static:
            return None
        return marked(msgspec.json.encode(config.static[name]), {STAND_IN: "static"}), "static"


def from_other(reply: Message, other: Supervisor) -> Message:
    """Mark the result of another server; an error is passed on as it is."""
    result = reply.result_buffer
    if result is None:
        return reply
    try:
        return marked(bytes(result), {STAND_IN: "server", STAND_IN_SERVER: other.server_id})
    except msgspec.DecodeError:
        # No object: there is nowhere to say it, and who decodes it will say what is wrong.
        return reply


def may_ask_another(error: CallError, is_safe: bool) -> bool:
    """Tell whether a request may be sent to another server after this failure."""
    return error.delivery in ("not_sent", "rejected") or (error.delivery == "unknown" and is_safe)


def marked(result: bytes, marks: dict[str, Any]) -> Message:
    """Make a reply of a result, with something added to its ``_meta``; every other member stays as it was written."""
    members = _members_decoder.decode(result)
    try:
        meta = _meta_decoder.decode(members.get("_meta", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        meta = {}
    members["_meta"] = msgspec.Raw(msgspec.json.encode({**meta, **marks}))
    return scan_reply(b'{"jsonrpc":"2.0","id":0,"result":' + msgspec.json.encode(members) + b"}")
