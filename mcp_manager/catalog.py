"""Typed results of MCP's verbs, decoded once from the bytes of the reply, and the draining of paged lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

from mcp_manager.errors import ProtocolError

__all__ = [
    "CallToolResult",
    "CompleteResult",
    "GetPromptResult",
    "Prompt",
    "PromptMessage",
    "ReadResourceResult",
    "Resource",
    "ResourceTemplate",
    "Tool",
    "decode_result",
    "drain_pages",
]

_MAX_PAGES: Final = 10_000

T = TypeVar("T")


class _Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of what a server sends; fields this version does not know are skipped."""


class Tool(_Record, frozen=True, kw_only=True):
    """One entry of ``tools/list``. The annotations are the server's own claims and not to be trusted.

    The schemas are most of a long list and seldom looked at: they are kept as received, and decoded on every access.
    """

    name: str
    title: str | None = None
    description: str | None = None
    input_schema_json: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"{}"), name="inputSchema")
    output_schema_json: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="outputSchema")
    annotations: dict[str, Any] | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments; raises :class:`ProtocolError` if it is no object."""
        return self._schema(self.input_schema_json)

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the structured content, if there is one; raises :class:`ProtocolError` if it is no object."""
        return None if bytes(self.output_schema_json) == b"null" else self._schema(self.output_schema_json)

    def _schema(self, schema: msgspec.Raw) -> dict[str, Any]:
        try:
            return _schema_decoder.decode(schema)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ProtocolError(f"a schema of tool {self.name!r} is malformed: {error}", delivery="answered") from None


_schema_decoder = msgspec.json.Decoder(dict[str, Any])


class Resource(_Record, frozen=True, kw_only=True):
    """One entry of ``resources/list``."""

    uri: str
    name: str = ""
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None
    annotations: dict[str, Any] | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")


class ResourceTemplate(_Record, frozen=True, kw_only=True):
    """One entry of ``resources/templates/list``."""

    uri_template: str
    name: str = ""
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None


class Prompt(_Record, frozen=True, kw_only=True):
    """One entry of ``prompts/list``."""

    name: str
    title: str | None = None
    description: str | None = None
    arguments: list[dict[str, Any]] | None = None


class CallToolResult(_Record, frozen=True, kw_only=True):
    """What a tool returned. ``is_error`` is the tool's own failure; the server and the call were fine."""

    content: list[dict[str, Any]] = msgspec.field(default_factory=list)
    structured_content: Any = None
    is_error: bool = False
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")

    @property
    def text(self) -> str:
        """The text blocks of ``content``, joined by newlines."""
        return "\n".join(block["text"] for block in self.content if isinstance(block.get("text"), str))


class ReadResourceResult(_Record, frozen=True, kw_only=True):
    """The contents of a resource: text or base64 ``blob`` each."""

    contents: list[dict[str, Any]] = msgspec.field(default_factory=list)


class PromptMessage(_Record, frozen=True, kw_only=True):
    """One message of a prompt."""

    role: str
    content: dict[str, Any]


class GetPromptResult(_Record, frozen=True, kw_only=True):
    """A prompt, filled in."""

    messages: list[PromptMessage] = msgspec.field(default_factory=list)
    description: str | None = None


class _Completion(_Record, frozen=True, kw_only=True):
    values: list[str] = msgspec.field(default_factory=list)
    total: int | None = None
    has_more: bool = False


class CompleteResult(_Record, frozen=True, kw_only=True):
    """Proposals for a prompt's or template's argument."""

    completion: _Completion = msgspec.field(default_factory=_Completion)


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decode_result(server_id: str, result: bytes | memoryview, kind: type[T]) -> T:
    """Decode a reply's ``result`` as ``kind``.

    Raises
    ------
    ProtocolError
        The result does not have that shape; the message names the place.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        decoded: T = decoder.decode(result)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(
            f"the result is not a {kind.__name__}: {error}", server_id=server_id, delivery="answered"
        ) from None
    return decoded


class _Page(msgspec.Struct, rename="camel"):
    next_cursor: str | None = None


async def drain_pages(
    server_id: str,
    member: str,
    kind: type[T],
    fetch: Callable[[str | None], Awaitable[bytes | memoryview]],
) -> list[T]:
    """Fetch all pages of a list.

    Parameters
    ----------
    member
        The member of the result that holds the entries, such as ``tools``.
    kind
        What an entry is decoded as.
    fetch
        ``await fetch(cursor)`` returns one page's result; the first cursor is ``None``.

    A cursor is opaque and ends only when it is absent: an empty string is a valid one (2025-11-25,
    server/utilities/pagination).

    Raises
    ------
    ProtocolError
        A page is malformed, or the cursors go round in a circle.
    """
    page_type = _page_type(member, kind)
    entries: list[T] = []
    seen: set[str] = set()
    cursor: str | None = None
    while True:
        page = decode_result(server_id, await fetch(cursor), page_type)
        entries.extend(getattr(page, member))
        cursor = page.next_cursor
        if cursor is None:
            return entries
        if cursor in seen or len(seen) >= _MAX_PAGES:
            raise ProtocolError(
                f"the pages of {member} never end: a cursor came back", server_id=server_id, delivery="answered"
            )
        seen.add(cursor)


_page_types: dict[tuple[str, Any], type[Any]] = {}


def _page_type(member: str, kind: type[Any]) -> type[Any]:
    known = _page_types.get((member, kind))
    if known is None:
        known = msgspec.defstruct(
            f"{kind.__name__}Page",
            [(member, list[kind])],  # type: ignore[valid-type]
            bases=(_Page,),
            rename={member: _camel(member), "next_cursor": "nextCursor"},
            kw_only=True,
        )
        _page_types[member, kind] = known
    return known


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
