"""What is known of a server follows its settings when they change in place."""

from __future__ import annotations

import time
from typing import Any

from mcp_manager.config import ServerConfig
from mcp_manager.config.redaction import Secrets
from mcp_manager.session.knowledge.knowledge import Knowledge

RESULT = b'{"tools":[],"ttlMs":60000,"cacheScope":"public"}'


def config(**settings: Any) -> ServerConfig:
    return ServerConfig(url="http://localhost/mcp", **settings)


def known(**settings: Any) -> Knowledge:
    before = config(**settings)
    return Knowledge("a", before, Secrets(before), time.monotonic_ns, (), None)


def test_results_are_cached_only_while_the_settings_say_so() -> None:
    knowledge = known()
    ticket = knowledge.cache.ticket("tools/list", None)
    assert ticket is not None
    assert knowledge.cache.keep(ticket, RESULT)
    knowledge.adjust(config(tags=("x",)))
    assert knowledge.cache.find(ticket) == RESULT
    knowledge.adjust(config(cache=False))
    assert (knowledge.cache.ticket("tools/list", None), len(knowledge.cache)) == (None, 0)
    # A result that was requested before is not kept either.
    assert not knowledge.cache.keep(ticket, RESULT)
    knowledge.adjust(config())
    assert knowledge.cache.find(ticket) is None
    assert knowledge.cache.ticket("tools/list", None) is not None


def test_secrets_are_those_of_the_present_settings_and_those_that_were_obtained() -> None:
    secrets = Secrets(config(hidden_texts=("sesame",)))
    secrets.add("Bearer obtained-token")
    assert secrets.masked("sesame pepper obtained-token") == "*** pepper ***"
    assert secrets.masked_json(b'"pepper"') == b'"pepper"'
    secrets.adjust(config(hidden_texts=("pepper",)))
    assert secrets.masked("sesame pepper obtained-token") == "sesame *** ***"
    assert secrets.masked_json(b'"pepper"') == b'"***"'
