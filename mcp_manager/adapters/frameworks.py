"""What the adapters for agent frameworks have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mcp_manager.adapters.answers import ToolAnswer
from mcp_manager.adapters.schemas import resolved
from mcp_manager.verbs.fleet_tools import FleetTool

__all__ = ["data_of", "metadata_of", "not_installed", "usable_schema"]


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


def usable_schema(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments without references that lead nowhere, at which frameworks fail.

    Such a reference is replaced by ``{}``, which allows anything. A schema without one is returned as it is.
    """
    return parameters if _all_resolve(parameters, parameters) else _resolved(parameters, parameters)


def _all_resolve(schema: Any, root: Mapping[str, Any]) -> bool:
    if isinstance(schema, list):
        return all(_all_resolve(each, root) for each in schema)
    if not isinstance(schema, dict):
        return True
    if not _resolves(schema.get("$ref"), root):
        return False
    return all(_all_resolve(each, root) for each in schema.values())


def _resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_resolved(each, root) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _resolved(value, root) for name, value in schema.items() if name != "$ref" or _resolves(value, root)}


def _resolves(reference: object, root: Mapping[str, Any]) -> bool:
    # What is no text is no reference, but a property of that name.
    return not isinstance(reference, str) or resolved({"$ref": reference}, root) is not None
