"""Definitions in a form that can be compared: what counts, and what cannot be trusted."""

from __future__ import annotations

import pytest

from mcp_manager.gateway.endpoints.kinds import TOOLS
from mcp_manager.gateway.security.definitions import definition_of
from mcp_manager.gateway.security.resource_patterns import ResourcePatterns


def test_the_form_of_the_text_does_not_count_and_the_content_does() -> None:
    same = [
        b'{"name":"a","inputSchema":{"type":"object","maximum":1}}',
        b'{ "inputSchema": {"maximum": 1.0, "type": "\\u006fbject"}, "name": "a", "_meta": {"x": 2} }',
    ]
    others = [
        b'{"name":"b","inputSchema":{"type":"object","maximum":1}}',
        b'{"name":"a","inputSchema":{"type":"object","maximum":true}}',
        b'{"name":"a","title":null,"inputSchema":{"type":"object","maximum":1}}',
        b'{"name":"a","description":"\\ud83d","inputSchema":{"type":"object","maximum":1}}',
    ]
    hashes = [None if (found := definition_of(TOOLS, raw)) is None else found.hash for raw in (*same, *others)]
    assert None not in hashes
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 1 + len(others)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"name":"a","description":"x","description":"y"}',
        b'{"name":"a","inputSchema":{"type":"object","\\u0074ype":"array"}}',
        b'{"name":"a","inputSchema":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[]",
    ],
)
def test_what_readers_may_understand_differently_has_no_definition(raw: bytes) -> None:
    assert definition_of(TOOLS, raw) is None


def test_patterns_of_resources_follow_no_path_upwards() -> None:
    patterns = ResourcePatterns(["file:///docs/*", "db://{table}/rows"])
    expected = {
        "file:///docs/a": True,
        "file:///docs/a/b": True,
        "file:///docs/a..b": True,
        "file:///docs/../etc": False,
        "file:///docs/%2e%2e/etc": False,
        "file:///docs/..%2fetc": False,
        "file:///docs/%25252525252e%252e": False,
        "db://x/rows": True,
        "db://x/y/rows": False,
        "db://{table}/rows": True,
        "other://x": False,
    }
    assert {uri: patterns.match(uri) for uri in expected} == expected
