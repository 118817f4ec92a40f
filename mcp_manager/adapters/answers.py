"""What a model is told of a tool call: its result, or what went wrong and whether it may have been executed."""

from __future__ import annotations

import copy
from typing import Final

import msgspec

from mcp_manager.errors import (
    AuthError,
    CallError,
    CircuitOpenError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    Delivery,
    InputRequiredError,
    McpManagerError,
    OverloadedError,
    ProtocolError,
    RpcError,
    ServerNotFoundError,
    SessionLostError,
    TaskError,
    ToolNotAllowedError,
)
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.results import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)

__all__ = ["ToolAnswer", "answer_of_error", "answer_of_result", "text_of_block"]

# The first class that matches.
_WHAT_HAPPENED: Final[tuple[tuple[type[CallError], str], ...]] = (
    (ToolNotAllowedError, "This tool may not be called"),
    (DeadlineExceededError, "The tool did not answer in time"),
    (ConnectError, "The server of this tool cannot be reached"),
    (CircuitOpenError, "The server of this tool has failed repeatedly and is not called for now"),
    (OverloadedError, "The server of this tool is too busy"),
    (SessionLostError, "The server of this tool has restarted"),
    (ConnectionLostError, "The connection to the server of this tool was lost"),
    (AuthError, "The server of this tool refused the credentials of this application"),
    (InputRequiredError, "The tool needs input from the user that is not available"),
    (TaskError, "The server of this tool cancelled the call"),
    (ProtocolError, "The server of this tool sent an invalid answer"),
)
_NO_TEXT: Final = "The tool failed, and did not say why."
_DELIVERY: Final[dict[Delivery, str]] = {
    "not_sent": "The call was not executed.",
    "rejected": "The call was not executed.",
    "unknown": "The call may have been executed: check that before you repeat it.",
    "answered": "The call has probably been executed: check that before you repeat it.",
}


class ToolAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model gets for one tool call.

    Attributes
    ----------
    text
        All of it as text; for images and other binary data, a note of what was there.
    is_error
        Whether the tool failed, or was not called.
    content
        The blocks of the result, their text cut to ``max_text`` characters; a single block of text for an error.
    result
        The result as it came; ``None`` if there is none.
    error
        Why there is no result, for the application: it may contain addresses and output of programs, which ``text``
        does not; ``None`` if there is a result.
    """

    text: str
    is_error: bool
    content: tuple[ContentBlock, ...]
    result: CallToolResult | None = None
    error: McpManagerError | None = None


def answer_of_result(result: CallToolResult, max_text: int | None) -> ToolAnswer:
    """Return what a model gets of a result, with at most ``max_text`` characters of text and a note of what is cut."""
    blocks: list[ContentBlock] = list(result.content)
    if not blocks and result.structured_content is not None:
        blocks = [TextContent(text=msgspec.json.encode(result.structured_content).decode())]
    if result.is_error and not any(text_of_block(each).strip() for each in blocks):
        # A model must see that it failed; some vendors refuse an error without text.
        blocks = [TextContent(text=_NO_TEXT)]
    content = tuple(blocks if max_text is None else _cut(blocks, max_text))
    text = "\n".join(text_of_block(each) for each in content)
    return ToolAnswer(text=text, is_error=result.is_error, content=content, result=result)


def answer_of_error(error: McpManagerError) -> ToolAnswer:
    """Return what a model gets if there is no result: what happened, but no addresses, output or secrets."""
    text = _told(error)
    return ToolAnswer(text=text, is_error=True, content=(TextContent(text=text),), error=error)


def text_of_block(block: ContentBlock) -> str:
    """Return a block of content as text; for binary data, a note of what it is."""
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, ImageContent | AudioContent):
        return f"[{block.type} {block.mime_type}, {_size(block.data)}]"
    if isinstance(block, EmbeddedResource):
        found = block.resource
        if found.text is not None:
            return found.text
        return f"[file {found.uri} {found.mime_type or ''}, {_size(found.blob or '')}]"
    if isinstance(block, ResourceLink):
        about = block.title or block.description or block.name
        return f"[resource {block.uri}{': ' if about else ''}{about}]"
    try:
        return msgspec.json.encode(block.to_dict()).decode()
    except RecursionError:
        return f"[{block.type}, nested too deeply]"


def _told(error: McpManagerError) -> str:
    if isinstance(error, RpcError):
        # The hint is for those who run the manager.
        told = copy.copy(error)
        told.hint = ""
        return f"The {'arguments are invalid' if error.code == INVALID_PARAMS else 'call failed'}: {told}"
    if isinstance(error, ServerNotFoundError):
        return "This tool is no longer available."
    if not isinstance(error, CallError):
        # The arguments or the name are wrong: the message is about what the model wrote.
        return str(error)
    what = next((text for kind, text in _WHAT_HAPPENED if isinstance(error, kind)), "The call failed")
    text = f"{what}. {_DELIVERY[error.delivery]}"
    if error.retryable and error.delivery in ("not_sent", "rejected"):
        after_s = error.retry_after_s
        text += f" Try again {'later' if after_s is None else f'in {max(1, round(after_s))} seconds'}."
    return text


def _cut(blocks: list[ContentBlock], max_text: int) -> list[ContentBlock]:
    total = sum(len(text_of_block(each)) for each in blocks)
    if total <= max_text:
        return blocks
    left = max_text
    kept: list[ContentBlock] = []
    for block in blocks:
        text = text_of_block(block)
        is_binary = isinstance(block, ImageContent | AudioContent)
        if is_binary or len(text) <= left:
            kept.append(block)
        elif left > 0:
            kept.append(TextContent(text=text[:left]))
        left -= len(text)
    kept.append(TextContent(text=f"[cut: {max_text:,} of {total:,} characters are shown]"))
    return kept


def _size(base64: str) -> str:
    size = len(base64.rstrip("=")) * 3 // 4
    return f"{size:,} bytes" if size < 10_000 else f"{size // 1000:,} kB"
