"""What the adapters for agent frameworks have in common."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from mcp_manager.adapters.answers import ToolAnswer
from mcp_manager.adapters.well_formed import Schema, target_of
from mcp_manager.verbs.fleet_tools import FleetTool

__all__ = ["data_of", "expandable_schema", "metadata_of", "not_installed"]

_DEFINITIONS: Final = frozenset({"$defs", "definitions"})
# LangChain takes some 10 microseconds for each, at every request to a model.
_MOST_VALUES: Final = 20_000
_LONGEST_CHAIN: Final = 50


def not_installed(module: str, distribution: str) -> ImportError:
    """Return the error for a framework that is not installed."""
    return ImportError(f"{module} needs the package {distribution}: run pip install {distribution}", name=module)


def metadata_of(tool: FleetTool) -> dict[str, Any]:
    """Return what an application wants to know of a tool, and a model does not.

    Returns
    -------
    ``server_id``, ``tool`` (the server's own name), ``title``, and ``annotations`` and ``_meta`` under the names of the
    wire. What the server did not say is left out.
    """
    found: dict[str, Any] = {"server_id": tool.server_id, "tool": tool.tool.name}
    if tool.tool.title is not None:
        found["title"] = tool.tool.title
    if tool.tool.annotations is not None:
        found["annotations"] = tool.tool.annotations.to_dict()
    if tool.tool.meta is not None:
        found["_meta"] = msgspec.to_builtins(tool.tool.meta)
    return found


def data_of(answer: ToolAnswer) -> dict[str, Any] | None:
    """Return what an application gets of a result and a model does not.

    Returns
    -------
    ``structured_content`` and ``_meta`` of the result; ``None`` if it has neither.
    """
    result = answer.result
    if result is None:
        return None
    found: dict[str, Any] = {}
    if result.structured_content is not None:
        found["structured_content"] = result.structured_content
    if result.meta is not None:
        found["_meta"] = msgspec.to_builtins(result.meta)
    return found or None


def expandable_schema(parameters: Schema) -> Schema:
    """Return a schema for a framework that replaces references by what they refer to.

    A schema that would become huge by that, or has long chains of references, allows anything where it refers to
    something else; any other one is returned as it is.
    """
    if _is_small_expanded(parameters):
        return parameters
    return {name: _without_references(value) for name, value in parameters.items() if name not in _DEFINITIONS}


def _is_small_expanded(root: Schema) -> bool:
    left = _MOST_VALUES
    waiting: list[tuple[Any, frozenset[str]]] = [(root, frozenset())]
    while waiting:
        value, passed = waiting.pop()
        left -= 1
        if left < 0 or len(passed) > _LONGEST_CHAIN:
            return False
        if isinstance(value, list):
            waiting.extend((each, passed) for each in value)
        elif isinstance(value, dict):
            reference = value.get("$ref")
            # A schema within itself is not expanded again.
            if isinstance(reference, str) and reference not in passed:
                waiting.append((target_of(reference, root), passed | {reference}))
            waiting.extend(
                (each, passed) for name, each in value.items() if value is not root or name not in _DEFINITIONS
            )
    return True


def _without_references(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_references(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_references(value)
        for name, value in schema.items()
        if name != "$ref" or not isinstance(value, str)
    }
