"""Many listeners are told of a change in turns."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from mcp_manager.gateway.news import Listening, News

TOOLS, PROMPTS = "notifications/tools/list_changed", "notifications/prompts/list_changed"


async def test_many_listeners_are_told_in_turns_and_each_in_order() -> None:
    news = News(60.0)
    endpoint: Any = SimpleNamespace(key="fleet", is_merged=True, lists_others=None, shows=lambda server_id: True)
    told: list[tuple[int, str]] = []

    def listen(number: int) -> Listening:
        def deliver(method: str, params: bytes) -> None:
            told.append((number, method))

        return news.listen(endpoint, deliver, frozenset({TOOLS, PROMPTS}))

    listenings = [listen(number) for number in range(100)]
    news.changed("a", TOOLS)
    news.changed("a", PROMPTS)
    assert told == []
    news._changes.tell_due(("fleet", None))
    assert 0 < len(told) < 100
    listenings[-1].close()
    counts = [len(told)]
    while len(told) < 198:
        await asyncio.sleep(0)
        counts.append(len(told))
    assert len(counts) > 2
    assert [[method for each, method in told if each == number] for number in range(100)] == [[TOOLS, PROMPTS]] * 99 + [
        []
    ]
    await news.aclose()
