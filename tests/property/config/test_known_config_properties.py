"""What is taken for valid at first sight is what a full check finds valid."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.config import HealthConfig, ServerConfig, check_server_config, parse_server_config
from mcp_manager.config import _checked_values as known
from mcp_manager.config._url import check_url
from mcp_manager.config.parse import check_server_id
from mcp_manager.errors import ConfigError

ODD = [None, True, 1, 0, -1, 1.0, 1e9, "", "x", "http", "stdio", (), ("a",), {}, {"a": "b"}, HealthConfig(), object()]


@given(st.from_regex(known._PLAIN_URL, fullmatch=True))
def test_a_plain_url_is_a_valid_one(url: str) -> None:
    assert known.is_plain_url(url)
    check_url(url, "url", template=True)


@given(st.from_regex(known._PLAIN_ID, fullmatch=True))
def test_a_plain_id_is_a_valid_one(server_id: str) -> None:
    assert check_server_id(server_id) == server_id


@given(st.dictionaries(st.sampled_from(ServerConfig.__struct_fields__), st.sampled_from(ODD), max_size=3))
def test_what_is_known_passes_the_full_check(fields: dict[str, Any]) -> None:
    parse_server_config({"url": "http://a/mcp", "tags": ["a"], "connect_timeout_s": 1.0}, server_id="a")
    try:
        config = ServerConfig(**{"url": "http://a/mcp", **fields})
    except ConfigError:
        # A mapping that is no section.
        return
    if known.is_known(config):
        rest = {name: value for name, value in msgspec.to_builtins(config).items() if value is not None}
        try:
            parse_server_config(rest, server_id="a")
        except ConfigError as problem:
            pytest.fail(f"{fields} is known, and invalid: {problem}")


def test_servers_that_are_configured_alike_share_their_sections_and_are_known() -> None:
    first, second = (
        parse_server_config({"url": url, "health": {"interval_s": 7}, "retry": {}}, server_id="a")
        for url in ("http://a/", "http://b/")
    )
    assert second.health is first.health
    assert second.retry is ServerConfig().retry
    assert known.is_known(second)
    assert check_server_config(second, server_id="b") is second


def test_what_looks_like_a_known_value_is_checked() -> None:
    parse_server_config({"url": "http://a/", "priority": 1}, server_id="a")
    assert known.is_known(ServerConfig(url="http://a/", priority=1))
    assert not known.is_known(ServerConfig(url="http://a/", priority=True))
    with pytest.raises(ConfigError):
        check_server_config(ServerConfig(url="http://a/", priority=True), server_id="a")
