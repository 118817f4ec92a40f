"""Which results of a server are kept, for how long, and what makes the cache forget them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_manager.protocol.caching import cache_key, freshness
from mcp_manager.session.knowledge.response_cache import ResponseCache

MS = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.ns = 1_000

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> ResponseCache:
    return ResponseCache(clock)


def result(ttl_ms: Any = 1000, **members: Any) -> bytes:
    return json.dumps({"ttlMs": ttl_ms, **members}).encode()


def keep(cache: ResponseCache, method: str, params: bytes | None, kept: bytes) -> bool:
    ticket = cache.ticket(method, params)
    assert ticket is not None
    return cache.keep(ticket, kept)


def find(cache: ResponseCache, method: str, params: bytes | None = None) -> bytes | None:
    ticket = cache.ticket(method, params)
    assert ticket is not None
    return cache.find(ticket)


def read(uri: str) -> bytes:
    return json.dumps({"uri": uri}).encode()


def test_a_result_is_fresh_for_its_ttl_and_not_a_nanosecond_longer(cache: ResponseCache, clock: Clock) -> None:
    assert keep(cache, "tools/list", None, result(5))
    clock.ns += 5 * MS - 1
    assert find(cache, "tools/list") == result(5)
    clock.ns += 1
    assert find(cache, "tools/list") is None
    assert len(cache) == cache.size == 0


@pytest.mark.parametrize("ttl_ms", [0, -1, -0.5, None, "5", True, [1], float("nan")])
def test_what_has_no_positive_ttl_is_not_kept(cache: ResponseCache, ttl_ms: Any) -> None:
    assert not keep(cache, "tools/list", None, result(ttl_ms))
    assert not keep(cache, "tools/list", None, b'{"tools":[]}')
    assert find(cache, "tools/list") is None


def test_a_ttl_is_believed_for_a_day_at_most() -> None:
    kept = freshness(result(10**30))
    assert kept is not None
    assert kept.ttl_ns == 86_400_000 * MS


@pytest.mark.parametrize(
    ("scope", "is_public"), [("public", True), ("private", False), (None, False), ("Public", False), (1, False)]
)
def test_only_what_says_so_is_public(scope: Any, is_public: bool) -> None:
    kept = freshness(result(1, cacheScope=scope))
    assert kept is not None
    assert kept.is_public is is_public


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "completion/complete", "tasks/get", "ping"])
def test_other_methods_are_not_cacheable(method: str) -> None:
    assert cache_key(method, None) is None


@pytest.mark.parametrize(
    "params",
    [
        b'{"uri":"x","inputResponses":{}}',
        b'{"uri":"x","requestState":"s"}',
        b'{"uri":"x","_meta":{"tenant":1}}',
        b'{"uri":"x","_meta":3}',
        b"[1]",
        b"{",
    ],
)
def test_requests_whose_answers_depend_on_more_are_not_cacheable(params: bytes) -> None:
    assert cache_key("resources/read", params) is None


def test_the_key_is_method_and_parameters() -> None:
    assert cache_key("resources/read", b'{"uri":"x","a":1}') == cache_key("resources/read", b' {"a":1, "uri":"x"}')
    assert cache_key("tools/list", None) == cache_key("tools/list", b"{}")
    assert cache_key("tools/list", b'{"_meta":{"progressToken":"t"}}') == cache_key("tools/list", None)
    different = [
        cache_key("tools/list", None),
        cache_key("tools/list", b'{"cursor":""}'),
        cache_key("tools/list", b'{"cursor":"1"}'),
        cache_key("tools/list", b'{"cursor":1}'),
        cache_key("prompts/list", None),
        cache_key("resources/read", b'{"uri":"x"}'),
        cache_key("resources/read", b'{"uri":"X"}'),
    ]
    assert len(set(different)) == len(different)


def test_a_list_that_changed_is_forgotten_with_all_its_pages(cache: ResponseCache) -> None:
    pages = [None, b'{"cursor":"1"}']
    for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list"):
        for params in pages:
            keep(cache, method, params, result())
    cache.changed("notifications/tools/list_changed", None)
    assert [find(cache, "tools/list", params) for params in pages] == [None, None]
    assert len(cache) == 6
    cache.changed("notifications/resources/list_changed", None)
    assert len(cache) == 2
    assert find(cache, "prompts/list") is not None


def test_an_updated_resource_is_forgotten_and_no_other(cache: ResponseCache) -> None:
    for uri in ("file:///a", "file:///a/b", "file:///ab", "file:///c"):
        keep(cache, "resources/read", read(uri), result())
    cache.changed("notifications/resources/updated", read("file:///a/b"))
    # The updated resource may be a part of the one that was read.
    assert find(cache, "resources/read", read("file:///a")) is None
    assert find(cache, "resources/read", read("file:///a/b")) is None
    assert find(cache, "resources/read", read("file:///ab")) is not None
    assert find(cache, "resources/read", read("file:///c")) is not None
    cache.changed("notifications/resources/updated", b"{}")
    assert len(cache) == 0


def test_an_answer_that_was_overtaken_by_a_change_is_not_kept(cache: ResponseCache) -> None:
    ticket = cache.ticket("tools/list", None)
    assert ticket is not None
    cache.changed("notifications/tools/list_changed", None)
    assert not cache.keep(ticket, result())
    read_ticket = cache.ticket("resources/read", read("x"))
    assert read_ticket is not None
    cache.changed("notifications/resources/updated", read("x"))
    assert not cache.keep(read_ticket, result())
    assert len(cache) == 0


def test_a_bad_cursor_drops_every_page(cache: ResponseCache) -> None:
    keep(cache, "tools/list", None, result())
    keep(cache, "tools/list", b'{"cursor":"1"}', result())
    keep(cache, "prompts/list", None, result())
    first = cache.ticket("tools/list", None)
    bad = cache.ticket("tools/list", b'{"cursor":"gone"}')
    assert first is not None and bad is not None
    cache.refused(first)
    assert len(cache) == 3
    cache.refused(bad)
    assert len(cache) == 1


def test_private_answers_do_not_cross_credentials(cache: ResponseCache) -> None:
    cache.context = "alice"
    keep(cache, "tools/list", None, result(cacheScope="public"))
    keep(cache, "prompts/list", None, result(cacheScope="private"))
    under_way = cache.ticket("resources/list", None)
    assert under_way is not None
    cache.context = "bob"
    assert find(cache, "tools/list") is not None
    assert find(cache, "prompts/list") is None
    assert not cache.keep(under_way, result(cacheScope="public"))
    cache.context = "alice"
    assert find(cache, "prompts/list") is not None


def test_what_is_used_least_makes_room(clock: Clock) -> None:
    cache = ResponseCache(clock, max_entries=2)
    for uri in ("a", "b"):
        keep(cache, "resources/read", read(uri), result())
    assert find(cache, "resources/read", read("a")) is not None
    keep(cache, "resources/read", read("c"), result())
    assert [find(cache, "resources/read", read(uri)) is not None for uri in "abc"] == [True, False, True]


def test_the_bytes_are_bounded(clock: Clock) -> None:
    cache = ResponseCache(clock, max_bytes=100)
    assert not keep(cache, "resources/read", read("big"), result(text="x" * 100))
    for uri in "abcdef":
        assert keep(cache, "resources/read", read(uri), result(text="x" * 10))
        assert cache.size <= 100
    assert 1 <= len(cache) <= 3


def test_a_cache_that_is_off_gives_no_tickets(clock: Clock) -> None:
    assert ResponseCache(clock, enabled=False).ticket("tools/list", None) is None


def test_fresh_until_tells_when_what_was_read_may_not_hold_any_more(cache: ResponseCache, clock: Clock) -> None:
    assert cache.fresh_until("tools/list") == 0
    keep(cache, "tools/list", None, result(10))
    keep(cache, "tools/list", b'{"cursor":"1"}', result(5))
    assert cache.fresh_until("tools/list") == 1_000 + 5 * MS
    clock.ns += 5 * MS
    assert cache.fresh_until("tools/list") == 0
