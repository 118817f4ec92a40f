"""Rules of access and pins in a configuration: what is refused, and what is told."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mcp_manager import ConfigError
from mcp_manager.config.access import AllowConfig, ClientLimitConfig
from mcp_manager.config.gateway_tables import serve_config_of
from mcp_manager.config.rule_checks import warn_of_unknown_names


@pytest.mark.parametrize(
    ("serve", "problem"),
    [
        ({"allow": [{"tools": []}]}, "serve.allow[0].tools: is empty, and would mean the same as without it"),
        ({"allow": [{"claims": {}}]}, "serve.allow[0].claims: is empty"),
        ({"allow": [{}, {"tools": ["find"]}]}, "serve.allow[1].tools[0]: names no server"),
        ({"allow": [{"methods": ["notifications/x"]}]}, "serve.allow[0].methods[0]: is a notification"),
        ({"allow": [{"servers": ["a\n"]}]}, "serve.allow[0].servers[0]: contains a control character"),
        ({"allow": [{"principals": ["ana"]}]}, "serve.allow[0].principals: matches nobody"),
        ({"allow": [{"scopes": ["read"]}]}, "serve.allow[0].scopes: matches nobody"),
        ({"pins": {"mode": "block"}}, "serve.pins.path: missing"),
        ({"limits": [{"rate": 1.0}, {}]}, "serve.limits[1]: limits nothing (give it rate"),
        ({"limits": [{"tools": ["a__b"], "max_streams": 1}]}, "serve.limits[0].max_streams: does nothing with tools"),
        ({"limits": [{"tools": ["find"], "rate": 1.0}]}, "serve.limits[0].tools[0]: names no server"),
        ({"limits": [{"principals": ["ana"], "rate": 1.0}]}, "serve.limits[0].principals: matches nobody"),
    ],
)
def test_what_cannot_be_meant_is_refused(serve: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        serve_config_of(serve)
    assert problem in str(caught.value)


def test_rules_for_everybody_need_no_authentication() -> None:
    rules = [{"principals": ["anon*"], "tools": ["*"]}, {"servers": ["a"]}]
    assert len(serve_config_of({"allow": rules}).allow) == 2


def test_servers_and_views_that_are_not_there_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    rules = [AllowConfig(servers=("crn", "x*"), views=("few", "many", "*"))]
    limits = [ClientLimitConfig(views=("few", "*", "fe*"), rate=1.0)]
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_names(rules, limits, ["crm"], ["few"])
    assert [record.getMessage() for record in caplog.records] == [
        "serve.allow[0].servers: there is no server 'crn'; did you mean 'crm'?",
        "serve.allow[0].views: there is no view 'many'",
        "serve.limits[0].views: there is no view 'fe*'; did you mean 'few'?",
    ]
