"""The fallbacks of a failed call: another server's result, the last good result, or a configured one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import RESULT, Message, scan_reply
from mcp_manager.calls.call import Call
from mcp_manager.config import FallbackConfig
from mcp_manager.errors import CallError, ToolNotAllowedError
from mcp_manager.protocol import methods
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.multi_round import COMPLETE, MalformedResult, result_type
from mcp_manager.protocol.safety import CONTENT, LISTS, tool_of
from mcp_manager.servers.supervisor import Recovery, Supervisor
from mcp_manager.transports.base import CallListener

__all__ = ["STALE_AGE", "STAND_IN", "STAND_IN_SERVER", "Fallbacks", "from_other", "may_ask_another"]

STAND_IN: Final = "mcp-manager/fallback"
"""The member of ``_meta`` that marks a result as a fallback: ``server``, ``stale`` or ``static``."""
STAND_IN_SERVER: Final = "mcp-manager/fallback-server"
"""The member of ``_meta`` with the id of the server that answered, for ``server``."""
STALE_AGE: Final = "mcp-manager/stale-age-s"
"""The member of ``_meta`` with the age of the result in seconds, for ``stale``."""

_NO_FALLBACK: Final = FallbackConfig()
_members_decoder = JsonDecoder(dict[str, msgspec.Raw])
_meta_decoder = JsonDecoder(dict[str, Any])


class Fallbacks:
    """Find fallbacks as a server's :class:`~mcp_manager.config.FallbackConfig` says.

    Parameters
    ----------
    servers
        Returns the supervisors of all deployed servers.
    ask
        ``await ask(call)`` makes all attempts of a call to another server, without fallbacks.
    clock
        Returns monotonic nanoseconds.
    """

    def __init__(
        self,
        servers: Callable[[], Iterable[Supervisor]],
        ask: Callable[[Call], Awaitable[Message]],
        clock: Callable[[], int],
    ) -> None:
        self._servers = servers
        self._ask = ask
        self._clock = clock

    def keep(self, call: Call, reply: Message) -> None:
        """Keep the result of a call for later fallbacks, if its server keeps results and the method allows it."""
        kept = call.supervisor.template.knowledge.kept
        # The result of a call with a key may depend on its session, so no other caller may see it.
        if (
            kept is not None
            and call.where.key is None
            and call.caller is None
            and (call.method in CONTENT or call.method in LISTS)
        ):
            result = reply.result_buffer
            if result is not None and _is_for_all(result, call.listener):
                kept.keep(call.method, call.request.params, bytes(result), self._clock())

    async def answer(self, call: Call, failure: CallError) -> tuple[Message, Recovery] | None:
        """Return a fallback for a failed call and its kind; ``None`` if there is none, the server answered, or the tool is forbidden.

        If other servers were asked and failed too, ``failure.attempts`` and ``failure.delivery`` cover their attempts.
        """
        if call.supervisor.config.fallback == _NO_FALLBACK or failure.delivery == "answered":
            return None
        if isinstance(failure, ToolNotAllowedError):
            return None
        is_safe = call.is_safe
        if call.caller is not None:
            # The credentials of a caller are for the server that was called, and kept results are somebody else's.
            return self._static(call)
        reply = await self._from_others(call, failure, is_safe)
        if reply is not None:
            return reply, "server"
        return self._own(call, is_safe)

    async def _from_others(self, call: Call, failure: CallError, is_safe: bool) -> Message | None:
        """Ask the other servers with the fallback tag, each once; return the first result, ``None`` without any."""
        for other in self._others(call):
            now_ns = self._clock()
            if now_ns >= call.deadline_ns or not may_ask_another(failure, is_safe):
                break
            try:
                reply = await self._ask(call.to_other(other, now_ns))
            except (CallError, KeyError) as error:
                # A KeyError: the other server was removed in the meantime.
                if isinstance(error, CallError):
                    failure.attempts += error.attempts
                    if error.delivery not in ("not_sent", "rejected"):
                        failure.delivery = "unknown"
            else:
                if reply.kind == RESULT:
                    return from_other(reply, other)
                if reply.error_code not in (METHOD_NOT_FOUND, INVALID_PARAMS):
                    failure.delivery = "unknown"
        return None

    def _others(self, call: Call) -> Iterator[Supervisor]:
        """Return the servers to ask instead, the highest priority first."""
        tag = call.supervisor.config.fallback.tag
        # Other methods concern the server itself or its sessions; no other server can answer them.
        if tag is None or call.method not in CONTENT:
            return iter(())
        tagged = [each for each in self._servers() if tag in each.config.tags and each is not call.supervisor]
        return iter(sorted(tagged, key=lambda each: -each.config.priority))

    def _own(self, call: Call, is_safe: bool) -> tuple[Message, Recovery] | None:
        """Return the server's last good result or its configured one, and its kind; ``None`` without either.

        The last result of a request that is not safe to repeat is not used: it would claim a second execution.
        """
        config = call.supervisor.config.fallback
        kept = call.supervisor.template.knowledge.kept
        found = kept.find(call.method, call.request.params) if kept is not None and is_safe else None
        if found is not None:
            age_s = (self._clock() - found[0]) / 1e9
            if age_s <= config.stale_s:
                return marked(found[1], {STAND_IN: "stale", STALE_AGE: round(age_s, 3)}), "stale"
        return self._static(call)

    def _static(self, call: Call) -> tuple[Message, Recovery] | None:
        """Return the server's configured result, and its kind; ``None`` without one."""
        config = call.supervisor.config.fallback
        if not config.static:
            return None
        tool = tool_of(call.request.params) if call.method == methods.CALL_TOOL else None
        name = f"{call.method}:{tool}" if tool is not None and f"{call.method}:{tool}" in config.static else call.method
        if name not in config.static:
            return None
        return marked(msgspec.json.encode(config.static[name]), {STAND_IN: "static"}), "static"


def _is_for_all(result: bytes | memoryview, listener: CallListener | None) -> bool:
    """Tell whether a result is complete, and does not depend on what whoever made the call has answered."""
    if listener is None:
        return True
    if listener.has_answered:
        return False
    try:
        return not listener.takes_every_result or result_type(result) == COMPLETE
    except MalformedResult:
        return False


def from_other(reply: Message, other: Supervisor) -> Message:
    """Mark a reply as another server's: set ``_meta`` in its result; an error is returned unchanged."""
    result = reply.result_buffer
    if result is None:
        return reply
    try:
        return marked(bytes(result), {STAND_IN: "server", STAND_IN_SERVER: other.server_id})
    except msgspec.DecodeError:
        # A result that is not an object has no _meta; whoever decodes it reports that.
        return reply


def may_ask_another(error: CallError, is_safe: bool) -> bool:
    """Tell whether a request may be sent to another server after this failure."""
    return error.delivery in ("not_sent", "rejected") or (error.delivery == "unknown" and is_safe)


def marked(result: bytes, marks: dict[str, Any]) -> Message:
    """Make a reply from a result with ``marks`` added to its ``_meta``; all other members stay byte for byte."""
    members = _members_decoder.decode(result)
    try:
        meta = _meta_decoder.decode(members.get("_meta", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        meta = {}
    members["_meta"] = msgspec.Raw(msgspec.json.encode({**meta, **marks}))
    return scan_reply(b'{"jsonrpc":"2.0","id":0,"result":' + msgspec.json.encode(members) + b"}")
