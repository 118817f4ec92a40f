"""What the adapters for agent frameworks share: schemas without dead ends, media that models accept, missing packages."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from support.tool_server import PIXEL

from mcp_manager.adapters.frameworks import usable_schema
from mcp_manager.adapters.media import media_of
from mcp_manager.results import AudioContent, EmbeddedResource, ImageContent, ResourceContents, TextContent


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/x"}},
            "$defs": {"x": {"items": {"$ref": "#/$defs/x"}}},
        },
        {"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#/definitions/x~1y~0z"}}, "definitions": {"x/y~z": True}},
        {"properties": {"a": {"$ref": "#/anyOf/1"}}, "anyOf": [True, {"type": "object"}]},
        # No reference, but a property and an example that are called like one.
        {"properties": {"$ref": {"type": "string"}}},
    ],
)
def test_a_schema_whose_references_resolve_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert usable_schema(schema) is schema


@pytest.mark.parametrize(
    "reference", ["#/$defs/y", "#anchor", "#/anyOf/2", "#/anyOf/x", "#/type", "https://host/x", "", "#/$defs/circle"]
)
def test_a_reference_that_leads_nowhere_allows_anything(reference: str) -> None:
    schema = {
        "type": "object",
        "anyOf": [{}, {}],
        "properties": {"a": {"$ref": reference, "description": "d"}, "b": {"items": [{"$ref": reference}]}},
        "$defs": {"x": {}, "circle": {"$ref": "#/$defs/circle"}},
    }
    assert usable_schema(schema) == {
        **schema,
        "properties": {"a": {"description": "d"}, "b": {"items": [{}]}},
        "$defs": {"x": {}, "circle": {}},
    }


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
