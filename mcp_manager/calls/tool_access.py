"""The enforcement of a server's tool rules, on calls and on lists of tools."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

import msgspec

from mcp_manager._core.jsonrpc import Message, scan_reply
from mcp_manager.calls.call import Call
from mcp_manager.errors import ProtocolError
from mcp_manager.protocol.json_reading import TooMuchToDecodeError
from mcp_manager.protocol.methods import CALL_TOOL, LIST_TOOLS
from mcp_manager.protocol.safety import tool_of
from mcp_manager.protocol.tool_rules import (
    ToolPage,
    ToolRules,
    check_request,
    permitted_page,
    unmatched,
)
from mcp_manager.results.large_results import limits_for
from mcp_manager.runtime.current_trace import trace_ids
from mcp_manager.servers.supervisor import Supervisor

__all__ = ["ToolAccess"]

_log = logging.getLogger(__name__)

_SHOWN: Final = 80
# Filtering a longer list may take more than a millisecond, so it is done in a thread.
_SHORT: Final = 32 * 1024
# More comparisons of patterns with names than this may take more than a millisecond, so they are done in a thread.
_FEW: Final = 4_000
# How many names are remembered to suggest one, and how many patterns are logged.
_REMEMBERED: Final = 300
_LOGGED: Final = 10


class _Coverage:
    """The patterns of some rules that matched no tool on the pages of a list so far, and some names of tools.

    ``patterns`` is ``None`` before the first page was read.
    """

    __slots__ = ("names", "patterns", "rules")

    def __init__(self, rules: ToolRules) -> None:
        self.rules = rules
        self.patterns: set[str] | None = None
        self.names: list[str] = []


class ToolAccess:
    """Apply ``tools`` of the servers' configurations: refuse forbidden calls, and leave forbidden tools out of lists.

    A pattern that matches no tool of a server's list is logged once, because a misspelt one does not do what it should.
    """

    def __init__(self) -> None:
        # By server; the rules themselves once their patterns have been compared with a whole list.
        self._coverages: dict[str, _Coverage | ToolRules] = {}

    def check(self, supervisor: Supervisor, method: str, params: bytes | None) -> str | None:
        """Return the tool that a request calls, ``None`` if it calls none.

        Raises
        ------
        ToolNotAllowedError
            The server's rules forbid the tool, or the request does not say clearly which one it is.
        """
        rules = _rules_of(supervisor)
        if rules is not None:
            return check_request(supervisor.server_id, rules, method, params)
        return tool_of(params) if method == CALL_TOOL else None

    async def permitted(self, call: Call, reply: Message) -> Message:
        """Return the reply to a ``tools/list`` without the forbidden tools, and any other reply as it is.

        Raises
        ------
        ProtocolError
            The list is malformed or too large, so that nothing can be left out of it.
        """
        rules, result = _rules_of(call.supervisor), reply.result_buffer
        if rules is None or result is None or call.method != LIST_TOOLS:
            return reply
        config = call.supervisor.config
        limits = limits_for(config.max_response_bytes, config.max_response_values)
        hint = "the server has tool rules (tools)"
        try:
            if len(result) <= _SHORT:
                page = permitted_page(result, rules, limits)
            else:
                page = await asyncio.to_thread(permitted_page, result, rules, limits)
        except TooMuchToDecodeError as error:
            problem, hint = f"is too large: it has {error.excess}", f"raise {error.setting}"
        except (msgspec.DecodeError, RecursionError):
            problem = "is malformed"
        else:
            await self._compare(call, rules, page)
            if page.result is None:
                return reply
            return scan_reply(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (reply.id_raw or b"0", page.result))
        raise ProtocolError(
            f"the list of tools {problem}, so the forbidden ones cannot be left out",
            server_id=call.server_id,
            delivery="answered",
            hint=hint,
        )

    def forget(self, server_id: str) -> None:
        """Forget which tools a server has that was removed."""
        self._coverages.pop(server_id, None)

    async def _compare(self, call: Call, rules: ToolRules, page: ToolPage) -> None:
        """Compare the patterns of the rules with the names on a page; after the last page, log those without a match."""
        server_id = call.server_id
        if self._coverages.get(server_id) is rules or call.caller is not None:
            # What a caller is shown need not be all that the server has.
            return
        params = call.request.params
        if params is None or b'"cursor"' not in params:
            self._coverages[server_id] = _Coverage(rules)
        coverage = self._coverages.get(server_id)
        if not isinstance(coverage, _Coverage) or coverage.rules is not rules:
            return
        patterns = (*(rules.config.allow or ()), *rules.config.deny)
        if len(patterns) * len(page.names) <= _FEW:
            left = unmatched(patterns, page.names)
        else:
            left = await asyncio.to_thread(unmatched, patterns, page.names)
        coverage.patterns = left if coverage.patterns is None else coverage.patterns & left
        coverage.names += [each[:_SHOWN] for each in page.names[: _REMEMBERED - len(coverage.names)]]
        if not page.has_more and self._coverages.get(server_id) is coverage:
            self._coverages[server_id] = rules
            if coverage.patterns:
                text = await asyncio.to_thread(_described, coverage)
                masked = call.supervisor.template.secrets.masked(text)
                _log.warning("server %r: %s", server_id, masked, extra={"server_id": server_id, **trace_ids()})


def _rules_of(supervisor: Supervisor) -> ToolRules | None:
    checks = supervisor.tool_checks
    return None if checks is None else checks.rules


def _described(coverage: _Coverage) -> str:
    """Say which patterns match no tool, and which names resemble them."""
    import difflib  # noqa: PLC0415 - not needed to import the package

    found: list[str] = []
    for field, pattern in _unmatched_fields(coverage):
        if len(found) == _LOGGED:
            found.append("and further ones")
            break
        near = difflib.get_close_matches(pattern, coverage.names, n=2)
        names = " or ".join(map(repr, near))
        found.append(f"tools.{field} has {pattern!r}" + (f" (did you mean {names}?)" if names else ""))
    return f"no tool of the server matches: {'; '.join(found)}"


def _unmatched_fields(coverage: _Coverage) -> Iterator[tuple[str, str]]:
    config, patterns = coverage.rules.config, coverage.patterns or ()
    for field, given in (("allow", config.allow or ()), ("deny", config.deny)):
        for pattern in dict.fromkeys(given):
            if pattern in patterns:
                yield field, pattern
