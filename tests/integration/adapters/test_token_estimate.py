"""The estimate of tokens, held against the tokenizer of large models; LlamaIndex ships its table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec
import pytest
from support.tool_server import WEATHER_TOOLS

from mcp_manager.adapters.token_budget import estimated_tokens

tiktoken = pytest.importorskip("tiktoken", reason="the extra models is not installed")

DEFINITIONS = [
    *WEATHER_TOOLS,
    {
        "name": "github__create_pull_request_review",
        "description": "Create a review on a pull request. Comments may refer to single lines of the diff, in which case "
        "both `path` and `line` are required; see https://docs.github.com/en/rest/pulls/reviews.",
        "parameters": {
            "type": "object",
            "properties": {
                "owner": {"type": "string", "description": "Repository owner"},
                "pullNumber": {"type": "integer", "minimum": 1},
                "event": {"enum": ["APPROVE", "REQUEST_CHANGES", "COMMENT"]},
                "comments": {"type": "array", "items": {"$ref": "#/$defs/Comment"}},
            },
            "required": ["owner", "pullNumber", "event"],
            "$defs": {"Comment": {"type": "object", "properties": {"path": {"type": "string"}}}},
        },
    },
    {"name": "s__abfrage", "description": "Liefert die Wettervorhersage für eine Stadt in Europa.", "parameters": {}},
    {"name": "s__yubao", "description": "查询指定城市的天气预报 返回未来三天的温度和降水概率。", "parameters": {}},
]


@pytest.fixture
def encode(monkeypatch: pytest.MonkeyPatch) -> object:
    spec = importlib.util.find_spec("llama_index")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    tables = [found for each in places if (found := Path(each) / "core" / "_static" / "tiktoken_cache").is_dir()]
    if not tables:
        pytest.skip("no table of tokens is at hand")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tables[0]))
    return tiktoken.get_encoding("cl100k_base").encode


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each["name"])
def test_the_estimate_is_not_too_low_and_not_much_too_high(encode, definition) -> None:  # type: ignore[no-untyped-def]
    text = msgspec.json.encode(definition).decode()
    assert 0.9 <= estimated_tokens(text) / len(encode(text)) <= 1.5
