"""Exchanged tokens: kept until shortly before they expire, obtained once for all who wait, bounded in number."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from mcp_manager.auth.oauth.token_reply import Tokens
from mcp_manager.gateway.security import exchanged_tokens
from mcp_manager.gateway.security.credential_errors import CredentialsUnavailableError, LoginRequiredError
from mcp_manager.gateway.security.exchanged_tokens import ExchangedTokens
from mcp_manager.gateway.security.known_principals import KnownPrincipals
from mcp_manager.gateway.security.principal import Principal

ALICE = ("alice", frozenset({"read"}))


class Source:
    def __init__(self) -> None:
        self.now = 0.0
        self.subjects: list[str] = []
        self.failure: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    def clock(self) -> float:
        return self.now

    async def exchange(self, subject: str) -> Tokens:
        self.subjects.append(subject)
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        return Tokens(f"{subject}#{len(self.subjects)}", "", time.time() + 1000.0)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def tokens(source: Source) -> AsyncIterator[ExchangedTokens]:
    tokens = ExchangedTokens("a", source.exchange, source.clock)
    yield tokens
    await tokens.aclose()


async def test_one_request_serves_all_who_wait(source: Source, tokens: ExchangedTokens) -> None:
    source.open.clear()
    waiting = [asyncio.ensure_future(tokens.token(ALICE, "s")) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    source.open.set()
    assert await asyncio.gather(*waiting[1:]) == ["s#1"] * 4
    assert source.subjects == ["s"]
    # With other scopes it is another token.
    assert await tokens.token(("alice", frozenset()), "t") == "t#2"


async def test_a_token_is_renewed_before_it_expires_with_the_newest_of_the_client(
    source: Source, tokens: ExchangedTokens
) -> None:
    assert await tokens.token(ALICE, "s") == "s#1"
    source.now = 930.0
    assert await tokens.token(ALICE, "s") == "s#1"
    source.now = 950.0
    source.failure = CredentialsUnavailableError("down", server_id="a")
    assert await tokens.token(ALICE, "t") == "s#1"
    await asyncio.sleep(0.01)
    assert await tokens.token(ALICE, "t") == "s#1"
    source.now = 1001.0
    with pytest.raises(CredentialsUnavailableError):
        await tokens.token(ALICE, "u")
    source.failure = None
    source.now = 1100.0
    assert (await tokens.token(ALICE, "u")).startswith("u#")


async def test_a_refusal_counts_for_a_while_and_for_the_same_token(source: Source, tokens: ExchangedTokens) -> None:
    source.failure = LoginRequiredError("no", server_id="a")
    for _ in range(3):
        with pytest.raises(LoginRequiredError):
            await tokens.token(ALICE, "s")
    assert source.subjects == ["s"]
    source.failure = None
    assert await tokens.token(ALICE, "new") == "new#2"
    assert not tokens.refused(ALICE, "new#2")
    source.now = 6.0
    assert tokens.refused(ALICE, "new#2")
    assert await tokens.token(ALICE, "new") == "new#3"


async def test_the_tokens_that_are_kept_are_bounded(
    source: Source, tokens: ExchangedTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanged_tokens, "_MOST_KEPT", 2)
    for name in "abc":
        await tokens.token((name, frozenset()), name)
    assert len(tokens) == 2


def test_principals_are_known_until_they_expire() -> None:
    now = 0.0
    known = KnownPrincipals(lambda: now)
    first, second = Principal("p", expires_at=10.0), Principal("p", expires_at=20.0)
    known.note(first)
    known.note(second)
    assert known.find("p") is second
    now = 20.0
    assert known.find("p") is None
