"""Tools of a fleet for LlamaIndex; needs the package llama-index-core."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_manager.adapters.answers import ToolAnswer, text_of_block
from mcp_manager.adapters.definitions import ToolDefinition
from mcp_manager.adapters.frameworks import data_of, metadata_of, not_installed
from mcp_manager.adapters.media import media_of
from mcp_manager.adapters.toolset import Toolset, as_toolset
from mcp_manager.results import ContentBlock
from mcp_manager.verbs.fleet_tools import FleetTool

try:
    from llama_index.core.base.llms.types import AudioBlock, ImageBlock, TextBlock
    from llama_index.core.tools import AsyncBaseTool, ToolMetadata, ToolOutput
    from pydantic import BaseModel
except ImportError as _error:
    raise not_installed(__name__, "llama-index-core") from _error

__all__ = ["LlamaIndexTool", "LlamaIndexToolMetadata", "tools"]

# LlamaIndex refuses a longer one for some models.
_LONGEST_DESCRIPTION: Final = 1024


@dataclass
class LlamaIndexToolMetadata(ToolMetadata):
    """The name, description and schema of a tool.

    Attributes
    ----------
    parameters
        The JSON Schema of the arguments, as the server sent it.
    details
        ``server_id``, ``tool``, ``title``, ``annotations`` and ``_meta``, as far as the server told them.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def get_parameters_dict(self) -> dict[str, Any]:
        """Return the whole schema; LlamaIndex's own method drops what it does not know."""
        return copy.deepcopy(self.parameters)

    def to_openai_tool(self, skip_length_check: bool = False) -> dict[str, Any]:
        """Return the tool for OpenAI, with its description cut to the length that is allowed unless that is not checked."""
        tool: dict[str, Any] = super().to_openai_tool(skip_length_check=True)
        if not skip_length_check and len(self.description) > _LONGEST_DESCRIPTION:
            tool["function"]["description"] = self.description[: _LONGEST_DESCRIPTION - 1] + "…"
        return tool


class LlamaIndexTool(AsyncBaseTool):
    """One tool of a fleet; :func:`tools` makes it."""

    def __init__(self, toolset: Toolset, metadata: LlamaIndexToolMetadata) -> None:
        self._toolset = toolset
        self._metadata = metadata

    @property
    def metadata(self) -> LlamaIndexToolMetadata:
        """The tool's name, description and schema."""
        return self._metadata

    # A tool may have an argument of any name, such as self. LlamaIndex passes a single argument without its name, and
    # tries again with it if that fails.
    def __call__(self, /, *unnamed: Any, **arguments: Any) -> ToolOutput:
        """Call the tool; see :meth:`call`."""
        return self.call(*unnamed, **arguments)

    def call(self, /, *unnamed: Any, **arguments: Any) -> ToolOutput:
        """Call the tool of a :class:`PyMcpManager` and block this thread until there is an answer."""
        _refuse(unnamed)
        return self._output(arguments, self._toolset.answer_blocking(self._metadata.get_name(), arguments))

    async def acall(self, /, *unnamed: Any, **arguments: Any) -> ToolOutput:
        """Call the tool; a failure becomes an output with ``is_error``."""
        _refuse(unnamed)
        return self._output(arguments, await self._toolset.answer(self._metadata.get_name(), arguments))

    def _output(self, arguments: dict[str, Any], answer: ToolAnswer) -> ToolOutput:
        return ToolOutput(
            tool_name=self._metadata.get_name(),
            blocks=list(map(_block_of, answer.content)),
            raw_input=arguments,
            # Outputs are saved with a workflow's context, so it is of plain types.
            raw_output=data_of(answer) or answer.text,
            is_error=answer.is_error,
            exception=answer.error,
        )


def tools(toolset: Toolset) -> list[LlamaIndexTool]:
    """Make LlamaIndex tools of a toolset, for ``FunctionAgent(tools=[*tools(toolset)], …)`` or ``predict_and_call``.

    A tool returns a ``ToolOutput`` with blocks of text, pictures and sounds. ``raw_output`` has the result's
    ``structured_content`` and ``_meta``, and is its text without either. A failed call returns one with ``is_error``,
    which tells the model what happened. ``acall`` works with every manager, ``call`` with a :class:`PyMcpManager`.
    Cancelling a task that awaits ``acall`` cancels the call.

    Parameters
    ----------
    toolset
        The tools.
    """
    return [
        LlamaIndexTool(toolset, _metadata_of(definition, tool))
        for definition, tool in zip(as_toolset(toolset).definitions, toolset.tools, strict=True)
    ]


def _metadata_of(definition: ToolDefinition, tool: FleetTool) -> LlamaIndexToolMetadata:
    parameters = definition.parameters
    return LlamaIndexToolMetadata(
        name=definition.name,
        description=definition.description,
        fn_schema=_model_of(definition.name, parameters),
        parameters=parameters,
        details=metadata_of(tool),
    )


def _model_of(name: str, parameters: dict[str, Any]) -> type[BaseModel]:
    """Make a model whose schema is the given one, because a model made from a schema would lose parts of it."""

    def model_json_schema(cls: type[BaseModel], *_: Any, **__: Any) -> dict[str, Any]:
        return copy.deepcopy(parameters)

    namespace = {
        "__module__": __name__,
        "model_config": {"extra": "allow"},
        "model_json_schema": classmethod(model_json_schema),
    }
    return type(name, (BaseModel,), namespace)


def _block_of(block: ContentBlock) -> TextBlock | ImageBlock | AudioBlock:
    media = media_of(block)
    if media is None:
        return TextBlock(text=text_of_block(block))
    if media.kind == "image":
        return ImageBlock(image=media.data, image_mimetype=media.mime_type)
    return AudioBlock(audio=media.data, format=media.format)


def _refuse(unnamed: tuple[Any, ...]) -> None:
    """Refuse arguments without names before anything is sent."""
    if unnamed:
        raise TypeError("Arguments of a tool need names")
