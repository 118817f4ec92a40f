"""The URIs of resources in results, put into the terms that clients know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import RESULT, scan_reply
from mcp_manager.gateway import messages
from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = ["with_client_uris"]

_SEARCHED: Final = 4096
_LONG: Final = 65_536
_MARK: Final = b'"resource'
_CONTENTS: Final = b'"contents"'

_members_decoder: JsonDecoder[dict[str, msgspec.Raw]] = JsonDecoder(dict[str, msgspec.Raw])
_entries_decoder: JsonDecoder[list[msgspec.Raw]] = JsonDecoder(list[msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)

Rename = Callable[[str], str]


def with_client_uris(response: bytes, rename: Rename) -> bytes:
    """Return a response with other URIs for the resources that it links, embeds or contains.

    They are in the content of a tool's result and of a prompt's messages, and in the contents of a resource (2025-11-25,
    server/tools, server/prompts, server/resources), also in a task that has ended (SEP-2663). A response of more than 64 KiB that mentions none in its first and
    last 4 KiB is left as it is.

    Parameters
    ----------
    response
        The response of a server.
    rename
        Returns the URI that clients know, or the same one.
    """
    if not _may_have_uris(response):
        return response
    reply = scan_reply(response)
    if reply.kind != RESULT:
        return response
    try:
        result = _in_result(reply.result or b"null", rename)
    except (msgspec.DecodeError, RecursionError):
        return response
    return response if result is None else messages.response(reply.id_raw or messages.NO_ID, result)


def _may_have_uris(response: bytes) -> bool:
    if len(response) <= _LONG:
        return _MARK in response or _CONTENTS in response
    return any(_MARK in part or _CONTENTS in part for part in (response[:_SEARCHED], response[-_SEARCHED:]))


def _in_result(result: bytes | msgspec.Raw, rename: Rename) -> bytes | None:
    members = _members_decoder.decode(result)
    changed = False
    for member, convert in (("content", _in_block), ("contents", _in_resource), ("messages", _in_message)):
        if member in members:
            changed |= _in_list(members, member, convert, rename)
    if "taskId" in members and bytes(members.get("result", b"")).startswith(b"{"):
        inner = _in_result(members["result"], rename)
        if inner is not None:
            members["result"] = msgspec.Raw(inner)
            changed = True
    return msgspec.json.encode(members) if changed else None


def _in_list(
    members: dict[str, msgspec.Raw],
    member: str,
    convert: Callable[[bytes | msgspec.Raw, Rename], bytes | None],
    rename: Rename,
) -> bool:
    entries = _entries_decoder.decode(members[member])
    converted = [convert(each, rename) for each in entries]
    if not any(each is not None for each in converted):
        return False
    kept: list[Any] = [old if new is None else msgspec.Raw(new) for old, new in zip(entries, converted, strict=True)]
    members[member] = msgspec.Raw(msgspec.json.encode(kept))
    return True


def _in_block(block: bytes | msgspec.Raw, rename: Rename) -> bytes | None:
    members = _members_decoder.decode(block)
    kind = bytes(members.get("type", b""))
    if kind == b'"resource_link"':
        return _in_resource(block, rename)
    if kind != b'"resource"' or "resource" not in members:
        return None
    return _put(members, "resource", _in_resource(members["resource"], rename))


def _in_message(message: bytes | msgspec.Raw, rename: Rename) -> bytes | None:
    members = _members_decoder.decode(message)
    return _put(members, "content", _in_block(members["content"], rename)) if "content" in members else None


def _in_resource(resource: bytes | msgspec.Raw, rename: Rename) -> bytes | None:
    members = _members_decoder.decode(resource)
    if "uri" not in members:
        return None
    uri = _text_decoder.decode(members["uri"])
    known = rename(uri)
    return None if known == uri else _put(members, "uri", msgspec.json.encode(known))


def _put(members: dict[str, msgspec.Raw], member: str, value: bytes | None) -> bytes | None:
    if value is None:
        return None
    members[member] = msgspec.Raw(value)
    return msgspec.json.encode(members)
