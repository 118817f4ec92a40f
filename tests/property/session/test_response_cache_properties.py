"""In every order of events, the cache serves no result that has expired, was changed, or is private to others."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcp_manager.session.knowledge.response_cache import ResponseCache, Ticket

MAX_ENTRIES = 6
MAX_BYTES = 1500
METHODS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read")
CHANGES = {
    "notifications/tools/list_changed": {"tools/list"},
    "notifications/prompts/list_changed": {"prompts/list"},
    "notifications/resources/list_changed": {"resources/list", "resources/templates/list"},
}
PARAMS = st.sampled_from([None, "1", "2", "3"])


class Sent:
    """A request in flight, and what has happened since it was sent."""

    def __init__(self, ticket: Ticket, method: str, param: str | None, context: str) -> None:
        self.ticket = ticket
        self.method = method
        self.param = param
        self.context = context
        self.outdated = False


class CacheMachine(RuleBasedStateMachine):
    """The model: for every key, the newest results that may be served now, by the credentials that may see them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.serial = 0
        self.context = "alice"
        self.cache = ResponseCache(lambda: self.now, max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES)
        self.cache.context = self.context
        self.sent: list[Sent] = []
        self.kept: dict[tuple[str, str | None], tuple[bytes, int, str | None]] = {}

    def encode(self, method: str, param: str | None) -> bytes | None:
        if param is None:
            return None
        return json.dumps({"uri" if method == "resources/read" else "cursor": param}).encode()

    @rule(method=st.sampled_from(METHODS), param=PARAMS)
    def ask(self, method: str, param: str | None) -> None:
        ticket = self.cache.ticket(method, self.encode(method, param))
        assert ticket is not None
        found = self.cache.find(ticket)
        may_be = self.kept.get((method, param))
        if found is not None:
            assert may_be is not None, "it was never kept, or has changed since"
            result, expires, owner = may_be
            assert found == result
            assert self.now < expires
            assert owner in (None, self.context)
        self.sent.append(Sent(ticket, method, param, self.context))

    @rule(data=st.data(), ttl_ms=st.sampled_from([0, 1, 3, 10, -5]), public=st.booleans(), padding=st.integers(0, 600))
    def answer(self, data: Any, ttl_ms: int, public: bool, padding: int) -> None:
        if not self.sent:
            return
        sent = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
        self.serial += 1
        scope = "public" if public else "private"
        result = json.dumps(
            {"ttlMs": ttl_ms, "cacheScope": scope, "serial": self.serial, "padding": "x" * padding}
        ).encode()
        was_kept = self.cache.keep(sent.ticket, result)
        may_be_kept = ttl_ms > 0 and not sent.outdated and sent.context == self.context
        assert was_kept == may_be_kept
        if not sent.outdated and sent.context == self.context:
            self.kept.pop((sent.method, sent.param), None)
        if may_be_kept:
            self.kept[sent.method, sent.param] = (
                result,
                self.now + ttl_ms * 1_000_000,
                None if public else sent.context,
            )

    @rule(kind=st.sampled_from(sorted(CHANGES)))
    def change_list(self, kind: str) -> None:
        self.cache.changed(kind, None)
        self._forget(lambda method, param: method in CHANGES[kind])

    @rule(uri=st.sampled_from(["1", "2", "3"]))
    def update(self, uri: str) -> None:
        self.cache.changed("notifications/resources/updated", json.dumps({"uri": uri}).encode())
        self.kept.pop(("resources/read", uri), None)
        for sent in self.sent:
            sent.outdated |= sent.method == "resources/read"

    @rule(method=st.sampled_from(METHODS[:4]))
    def refuse_cursor(self, method: str) -> None:
        ticket = self.cache.ticket(method, b'{"cursor":"bad"}')
        assert ticket is not None
        self.cache.refused(ticket)
        self._forget(lambda kept, param: kept == method)

    @rule(context=st.sampled_from(["alice", "bob"]))
    def log_in(self, context: str) -> None:
        self.context = self.cache.context = context

    @rule(ms=st.sampled_from([1, 2, 5]))
    def wait(self, ms: int) -> None:
        self.now += ms * 1_000_000

    @invariant()
    def it_is_bounded(self) -> None:
        assert len(self.cache) <= MAX_ENTRIES
        assert 0 <= self.cache.size <= MAX_BYTES

    @invariant()
    def a_list_is_fresh_no_longer_than_its_pages(self) -> None:
        until = self.cache.fresh_until("tools/list")
        assert until == 0 or self.now < until

    def _forget(self, concerns: Any) -> None:
        for key in [key for key in self.kept if concerns(*key)]:
            del self.kept[key]
        for sent in self.sent:
            sent.outdated |= concerns(sent.method, sent.param)


TestCache = CacheMachine.TestCase
