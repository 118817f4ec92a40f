"""The results of servers as typed records that keep unknown members, and the reading of paged lists."""

from __future__ import annotations

from mcp_manager.results.content import (
    Annotations,
    AudioContent,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    SamplingMessage,
    TextContent,
    ToolResultContent,
    ToolUseContent,
    UnknownContent,
)
from mcp_manager.results.pages import drain_pages
from mcp_manager.results.prompts import (
    CompleteResult,
    Completion,
    GetPromptResult,
    Prompt,
    PromptArgument,
    PromptMessage,
)
from mcp_manager.results.reading import decode_result
from mcp_manager.results.record import Extra, Icon, Record
from mcp_manager.results.resources import ReadResourceResult, Resource, ResourceContents, ResourceTemplate
from mcp_manager.results.server import DiscoverResult
from mcp_manager.results.tools import CallToolResult, Tool, ToolAnnotations, ToolExecution, promises_of

__all__ = [
    "Annotations",
    "AudioContent",
    "CallToolResult",
    "CompleteResult",
    "Completion",
    "ContentBlock",
    "DiscoverResult",
    "EmbeddedResource",
    "Extra",
    "GetPromptResult",
    "Icon",
    "ImageContent",
    "Prompt",
    "PromptArgument",
    "PromptMessage",
    "ReadResourceResult",
    "Record",
    "Resource",
    "ResourceContents",
    "ResourceLink",
    "ResourceTemplate",
    "SamplingMessage",
    "TextContent",
    "Tool",
    "ToolAnnotations",
    "ToolExecution",
    "ToolResultContent",
    "ToolUseContent",
    "UnknownContent",
    "decode_result",
    "drain_pages",
    "promises_of",
]
