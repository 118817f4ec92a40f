"""What the adapters for agent frameworks share: schemas that stay small, media that models accept, missing packages."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from support.tool_server import PIXEL

from mcp_manager.adapters.frameworks import expandable_schema
from mcp_manager.adapters.media import media_of
from mcp_manager.results import AudioContent, EmbeddedResource, ImageContent, ResourceContents, TextContent


def doubling(levels: int) -> dict[str, Any]:
    """Return a schema that becomes twice as large with each level once its references are replaced."""
    names = [f"#/$defs/level{number}" for number in range(levels)]
    defs: dict[str, Any] = {
        f"level{number}": {"type": "object", "properties": {"a": {"$ref": after}, "b": {"$ref": after}}}
        for number, after in enumerate(names[1:])
    }
    defs[f"level{levels - 1}"] = {"type": "string"}
    return {"type": "object", "properties": {"x": {"$ref": names[0]}, "y": {"type": "integer"}}, "$defs": defs}


def everything_in_everything(count: int) -> dict[str, Any]:
    """Return a schema whose definitions all refer to each other."""
    names = [f"d{number}" for number in range(count)]
    defs = {each: {"properties": {name: {"$ref": f"#/$defs/{name}"} for name in names}} for each in names}
    return {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}, "y": {"type": "integer"}}, "$defs": defs}


def chain(length: int) -> dict[str, Any]:
    """Return a schema with definitions of which each refers to the next."""
    defs: dict[str, Any] = {f"d{number}": {"items": {"$ref": f"#/$defs/d{number + 1}"}} for number in range(length)}
    defs[f"d{length}"] = {}
    return {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}, "y": {"type": "integer"}}, "$defs": defs}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"items": {"$ref": "#/$defs/x"}}}},
        {"properties": {"a": {"$ref": "#"}, "$ref": {"type": "string"}}},
        doubling(8),
        everything_in_everything(4),
        chain(40),
    ],
    ids=["empty", "recursive", "itself", "doubling", "circles", "chain"],
)
def test_a_schema_that_stays_small_without_references_is_kept(schema: dict[str, Any]) -> None:
    assert expandable_schema(schema) is schema


@pytest.mark.parametrize(
    "schema", [doubling(40), everything_in_everything(12), chain(1000)], ids=["doubling", "circles", "chain"]
)
def test_a_schema_that_would_become_huge_loses_its_references(schema: dict[str, Any]) -> None:
    assert expandable_schema(schema) == {"type": "object", "properties": {"x": {}, "y": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("said", "kind", "mime_type", "name"),
    [
        ("image/png", "image", "image/png", "png"),
        ("IMAGE/JPG; q=1", "image", "image/jpeg", "jpeg"),
        ("audio/x-wav", "audio", "audio/wav", "wav"),
        ("audio/mp3", "audio", "audio/mpeg", "mp3"),
    ],
)
def test_media_that_models_accept_are_recognized(said: str, kind: str, mime_type: str, name: str) -> None:
    for block in (
        ImageContent(data=PIXEL, mime_type=said),
        AudioContent(data=PIXEL, mime_type=said),
        EmbeddedResource(resource=ResourceContents(uri="x:y", mime_type=said, blob=PIXEL)),
    ):
        media = media_of(block)
        assert media is not None
        assert (media.kind, media.mime_type, media.format, media.base64) == (kind, mime_type, name, PIXEL)
        assert media.url == f"data:{mime_type};base64,{PIXEL}"
    assert media.data.startswith(b"\x89PNG") if media is not None else False


@pytest.mark.parametrize(
    "block",
    [
        TextContent(text="x"),
        ImageContent(data=PIXEL, mime_type="image/svg+xml"),
        ImageContent(data=PIXEL),
        ImageContent(data="", mime_type="image/png"),
        ImageContent(data="not base64", mime_type="image/png"),
        ImageContent(data="ünicode", mime_type="image/png"),
        EmbeddedResource(resource=ResourceContents(uri="x:y", mime_type="image/png", text="x")),
        EmbeddedResource(resource=ResourceContents(uri="x:y", mime_type="application/pdf", blob=PIXEL)),
    ],
)
def test_what_models_refuse_is_no_media(block: Any) -> None:
    assert media_of(block) is None


@pytest.mark.parametrize(
    ("module", "package", "distribution"),
    [
        ("langchain", "langchain_core.tools", "langchain-core"),
        ("pydantic_ai", "pydantic_ai", "pydantic-ai-slim"),
        ("llama_index", "llama_index.core.base.llms.types", "llama-index-core"),
        ("openai_agents", "agents", "openai-agents"),
    ],
)
def test_a_missing_framework_is_named(
    module: str, package: str, distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"mcp_manager.adapters.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {distribution}"):
        importlib.import_module(name)
