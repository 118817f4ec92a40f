"""The verb that calls a tool or sends any request."""

from __future__ import annotations

import base64
import binascii
import math
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import click
import msgspec

from mcp_manager.cli.arguments import is_pair, tool_arguments
from mcp_manager.cli.connecting import progress
from mcp_manager.cli.grants import manager_of
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import complain, one_line, print_json, safe_text
from mcp_manager.cli.source import lazy, load, only, patient, suggestion
from mcp_manager.errors import AuthError, InvalidRequestError, ProtocolError, ToolError, ToolNotFoundError
from mcp_manager.manager import McpManager
from mcp_manager.protocol.tool_rules import not_allowed, rules_of
from mcp_manager.results import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    Tool,
    UnknownContent,
)

__all__ = ["run"]

_NO_SLASH: Final = frozenset({"ping", "initialize"})


async def run(options: Options) -> int:
    """Call a tool or send a request, and print what is returned; return 1 if that is an error, else 0."""
    if options.timeout is not None and not 0 < options.timeout < math.inf:
        raise InvalidRequestError("--timeout must be a number of seconds above 0")
    fleet = await load(options)
    server_id, words = fleet.server_and_rest()
    if server_id is None:
        raise click.UsageError("missing argument SERVER, and the name of a tool or method")
    config = only(fleet.config, server_id)
    rules = rules_of(config.servers[server_id].tools)
    if not words:
        raise click.UsageError("missing argument: the name of a tool or method")
    name, given = words[0], words[1:]
    if options.timeout is None:
        config = patient(config)
    manager = manager_of(lazy(config))
    try:
        if not _is_method(name, given, options):
            if rules is not None and not rules.permits(name):
                raise not_allowed(server_id, name, rules)
            return await _call(manager, server_id, name, given, options)
        if len(given) > 1:
            raise click.UsageError(f"unexpected argument {given[1]!r}")
        return await _send(manager, server_id, _request(name, *given), options)
    except AuthError as error:
        raise fleet.advised(error) from None


def _is_method(name: str, given: Sequence[str], options: Options) -> bool:
    """Tell whether a name is that of a method: one with a slash, unless arguments of a tool follow."""
    if options.kind is not None:
        return options.kind == "method"
    return ("/" in name or name in _NO_SLASH) and not any(map(is_pair, given))


# Requests


async def _send(manager: McpManager, server_id: str, request: bytes, options: Options) -> int:
    async with progress(options, lambda: f"waiting for {one_line(server_id)}"), manager:
        reply = await manager.execute_raw(server_id, request, timeout=options.timeout)
    try:
        decoded = msgspec.json.decode(reply)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"the reply is not JSON: {error}", server_id=server_id, delivery="answered") from None
    if sys.stdout.isatty():
        # Escapes what could control the terminal.
        print_json(decoded)
    else:
        print(reply.decode("utf-8", "replace"))
    return 1 if isinstance(decoded, dict) and "error" in decoded else 0


def _request(method: str, params: str | None = None) -> bytes:
    """Build the request with the params unchanged; a notification gets no id."""
    request: dict[str, Any] = {} if method.startswith("notifications/") else {"id": 1}
    try:
        request["method"] = method
        if params is not None:
            msgspec.json.decode(params)
            request["params"] = msgspec.Raw(params.encode())
        return msgspec.json.encode(request)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequestError(f"Invalid request: PARAMS_JSON is not JSON: {error}") from None
    except UnicodeEncodeError:
        raise InvalidRequestError("Invalid request: the arguments are not UTF-8") from None


# Tools


async def _call(manager: McpManager, server_id: str, name: str, given: Sequence[str], options: Options) -> int:
    said = f"waiting for {one_line(server_id)}"

    def report(done: float, total: float | None, message: str | None) -> None:
        nonlocal said
        share = f"{done:g} of {total:g}" if total is not None else f"{done:g}"
        said = f"{one_line(server_id)}: {share}{f', {one_line(message)}' if message else ''}"

    end = None if options.timeout is None else time.monotonic() + options.timeout

    def left() -> float | None:
        return None if end is None else max(0.0, end - time.monotonic())

    async with progress(options, lambda: said), manager:
        tool = _found(name, await manager.list_tools(server_id, timeout=left()))
        arguments = tool_arguments(given, tool.input_schema, one_line(name))
        result = await manager.call_tool(server_id, name, arguments, timeout=left(), on_progress=report)
    if options.json:
        print_json(msgspec.json.decode(result.to_json()))
    else:
        _show(result)
        if result.is_error:
            complain(f"the tool {name} of server {server_id!r} failed: isError is set{_hint(result)}")
    return 1 if result.is_error else 0


def _hint(result: CallToolResult) -> str:
    try:
        result.raise_for_error()
    except ToolError as error:
        return f" ({error.hint})" if error.hint else ""
    return ""


def _found(name: str, tools: Sequence[Tool]) -> Tool:
    for tool in tools:
        if tool.name == name:
            return tool
    near = suggestion(name, [tool.name for tool in tools])
    error = ToolNotFoundError(name)
    error.hint = near.strip() or f"its tools: {', '.join(tool.name for tool in tools[:20]) or 'none'}"
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def _show(result: CallToolResult) -> None:
    shown = [_shown(block) for block in result.content]
    if not any(shown) and result.structured_content is not None:
        print_json(result.structured_content)
    for text in shown:
        print(text)


def _shown(block: ContentBlock) -> str:
    """Return a block as text; what is no text is described."""
    if isinstance(block, TextContent):
        return safe_text(block.text)
    if isinstance(block, ImageContent | AudioContent):
        return f"[{block.type}: {one_line(block.mime_type) or 'unknown type'}, {_size(block.data)}]"
    if isinstance(block, ResourceLink):
        return f"[resource: {one_line(block.uri)}]"
    if isinstance(block, EmbeddedResource):
        content = block.resource
        if content.text is not None:
            return safe_text(content.text)
        return f"[resource: {one_line(content.uri)}, {_size(content.blob or '')}]"
    if isinstance(block, UnknownContent):
        return f"[{one_line(block.received_type) or block.type}]"
    return f"[{block.type}]"


def _size(data: str) -> str:
    try:
        return f"{len(base64.b64decode(data, validate=True))} bytes"
    except (binascii.Error, ValueError):
        return "malformed"
