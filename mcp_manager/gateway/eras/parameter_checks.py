"""``Mcp-Param-…``: header fields that repeat arguments of a tool (2026-07-28, streamable HTTP, custom headers)."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager.gateway import messages
from mcp_manager.gateway.answering import Answering
from mcp_manager.gateway.channels import Incoming
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.eras.header_checks import decoded_field, mismatch
from mcp_manager.gateway.eras.request_checks import Asked
from mcp_manager.gateway.eras.results import members_of_result
from mcp_manager.protocol.methods import LIST_TOOLS
from mcp_manager.protocol.parameter_headers import (
    ANNOTATION,
    InvalidAnnotation,
    MirroredParameter,
    argument_text,
    mirrored_parameters,
)
from mcp_manager.runtime.background import background_task, read_failure

__all__ = ["ParameterChecks"]

_ANNOTATION: Final = ANNOTATION.encode()
_MOST_ENDPOINTS: Final = 10_000
_MOST_PAGES: Final = 1_000

_Parameters = dict[str, tuple[MirroredParameter, ...]]


class _Tool(msgspec.Struct, rename="camel"):
    name: str
    input_schema: msgspec.Raw = msgspec.Raw(b"{}")


class _Call(msgspec.Struct):
    arguments: Any = None


_tools_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_tool_decoder = msgspec.json.Decoder(_Tool)
_schema_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_call_decoder = msgspec.json.Decoder(_Call)


class ParameterChecks:
    """Check the header fields that repeat arguments, by the schemas that clients have been shown.

    The tools of an endpoint are listed once, with the first call, and learned again from every list that passes.
    """

    def __init__(self) -> None:
        self.known: dict[str, _Parameters] = {}
        """The arguments that are repeated, by endpoint and tool."""
        self._listing: dict[str, asyncio.Task[_Parameters]] = {}

    def has_none(self, endpoint: Endpoint, name: str | None) -> bool:
        """Return whether a tool is known to have no arguments that are repeated, so that there is nothing to check."""
        known = self.known.get(endpoint.key)
        return known is not None and (name or "") not in known

    async def check(
        self, message: Message, asked: Asked, incoming: Incoming, endpoint: Endpoint, answering: Answering
    ) -> None:
        """Check a ``tools/call``.

        Raises
        ------
        RpcError
            -32020: a field is missing, is not valid, or says something else than the body.
        """
        known = self.known.get(endpoint.key)
        if known is None:
            known = await self._list(asked, endpoint, answering)
        parameters = known.get(asked.name or "")
        if parameters is None:
            return
        wrong = _wrong_field(message, parameters, incoming)
        if wrong is None:
            return
        # The tool may have changed.
        parameters = (await self._list(asked, endpoint, answering)).get(asked.name or "", ())
        wrong = _wrong_field(message, parameters, incoming)
        if wrong is not None:
            raise mismatch(wrong)

    def learn(self, endpoint: Endpoint, response: bytes) -> None:
        """Learn from a response to ``tools/list`` that a client gets."""
        known = self.known.get(endpoint.key)
        if known is not None:
            _learn(known, response)

    async def aclose(self) -> None:
        """End the lists that are under way. Idempotent."""
        listing = list(self._listing.values())
        for each in listing:
            each.cancel()
        await asyncio.gather(*listing, return_exceptions=True)

    async def _list(self, asked: Asked, endpoint: Endpoint, answering: Answering) -> _Parameters:
        """List all tools of an endpoint, once for all who ask at the same time; return the arguments to check by tool."""
        listing = self._listing.get(endpoint.key)
        if listing is None:
            listing = background_task(self._read(asked, endpoint, answering), "list tools for their header fields")
            self._listing[endpoint.key] = listing
            listing.add_done_callback(lambda _: self._listing.pop(endpoint.key, None))
            listing.add_done_callback(read_failure)
        # Whoever goes meanwhile must not end it for the others.
        return await asyncio.shield(listing)

    async def _read(self, asked: Asked, endpoint: Endpoint, answering: Answering) -> _Parameters:
        known: _Parameters = {}
        cursor: bytes | None = None
        seen: set[bytes] = set()
        for _ in range(_MOST_PAGES):
            params = b"{}" if cursor is None else b'{"cursor":%b}' % cursor
            page = scan(messages.request(b"0", LIST_TOOLS, params))
            cursor = _learn(known, await answering.answer(endpoint, page, asked.client))
            if cursor is None or cursor == b"null" or cursor in seen:
                break
            seen.add(cursor)
        if len(self.known) >= _MOST_ENDPOINTS:
            self.known.clear()
        self.known[endpoint.key] = known
        return known


def _learn(known: _Parameters, response: bytes) -> bytes | None:
    """Learn one page, and return the cursor of the next one as JSON."""
    members = members_of_result(response)
    if members is None or "tools" not in members:
        return None
    if known or _ANNOTATION in response or b"\\u" in response:
        try:
            tools = _tools_decoder.decode(members["tools"])
        except (msgspec.DecodeError, RecursionError):
            return None
        for tool in tools:
            _learn_tool(known, tool)
    cursor = members.get("nextCursor")
    return None if cursor is None else bytes(cursor)


def _learn_tool(known: _Parameters, raw: msgspec.Raw) -> None:
    try:
        tool = _tool_decoder.decode(raw)
        known.pop(tool.name, None)
        schema = bytes(tool.input_schema)
        if _ANNOTATION not in schema and b"\\u" not in schema:
            return
        parameters = mirrored_parameters(_schema_decoder.decode(schema))
    except (msgspec.DecodeError, RecursionError, InvalidAnnotation):
        # What cannot be read cannot be checked; the server checks its own.
        return
    if parameters:
        known[tool.name] = parameters


def _wrong_field(message: Message, parameters: tuple[MirroredParameter, ...], incoming: Incoming) -> str | None:
    """Return the name of a field that does not say what the arguments say, ``None`` if all agree."""
    try:
        arguments = _call_decoder.decode(message.params or b"{}").arguments
    except (msgspec.DecodeError, RecursionError):
        return None
    for parameter in parameters:
        text = argument_text(parameter, arguments)
        field = incoming.header(parameter.header.lower().encode("ascii"))
        if (text is None) != (field is None):
            return parameter.header
        if text is None or field is None:
            continue
        if decoded_field(field) != text:
            return parameter.header
    return None
