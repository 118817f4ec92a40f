"""A mapping with the contents of a configuration file, and with what no file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_manager.config._plain import describe, plain
from mcp_manager.config._problem import FieldProblem, join
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.spec import fields_of

__all__ = ["plain_document"]


def plain_document(source: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a mapping as decoding a file would return it; structs and server objects in ``servers`` stay.

    Raises
    ------
    FieldProblem
        It holds something else that is no JSON.
    """
    document: dict[str, Any] = {}
    for name, value in source.items():
        if not isinstance(name, str):
            raise FieldProblem("", f"expected names to be strings, got {describe(name)}")
        if name == "servers" and isinstance(value, Mapping):
            document[name] = {_server_id(key): _plain_server(each, join(name, str(key))) for key, each in value.items()}
        else:
            document[name] = plain(value, name)
    return document


def _server_id(key: object) -> str:
    if not isinstance(key, str):
        raise FieldProblem("servers", f"expected ids to be strings, got {describe(key)}")
    return key


def _plain_server(value: object, path: str) -> Any:
    if isinstance(value, ServerConfig):
        return value
    if not isinstance(value, Mapping):
        try:
            found = fields_of(value)
        except FieldProblem as problem:
            raise FieldProblem(path, problem.text, problem.hint) from None
        if not isinstance(found, Mapping):
            raise FieldProblem(path, "is neither a URL nor a mapping", "write a URL with http:// or https://")
        value = found
    return {
        name: each if name == "server" else plain(each, join(path, str(name)))
        for name, each in value.items()
        if isinstance(name, str)
    }
