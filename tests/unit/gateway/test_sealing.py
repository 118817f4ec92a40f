"""Sealed texts: only this gateway's keys open them, for the purpose that they were made for."""

from __future__ import annotations

import base64

import pytest

from mcp_manager.errors import ConfigError
from mcp_manager.gateway.sessions import sealing
from mcp_manager.gateway.sessions.sealing import Sealer

OLD, NEW = "an old key of at least 32 characters", "a new key of at least 32 characters"


def test_what_is_sealed_can_be_opened_for_its_purpose_only() -> None:
    sealer = Sealer()
    sealed = sealer.seal(b"session", b"content")
    assert sealer.open(b"session", sealed) == b"content"
    assert sealer.open(b"state", sealed) is None
    assert Sealer().open(b"session", sealed) is None
    assert "content" not in base64.urlsafe_b64decode(sealed + "==").decode("latin-1")


def test_the_first_key_seals_and_all_open() -> None:
    sealed = Sealer([OLD]).seal(b"p", b"x")
    assert Sealer([NEW, OLD]).open(b"p", sealed) == b"x"
    assert Sealer([OLD]).open(b"p", Sealer([NEW, OLD]).seal(b"p", b"x")) is None


def test_every_changed_character_is_noticed() -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(b"p", b"0123456789")
    for at, character in enumerate(sealed[:-1]):
        forged = sealed[:at] + ("A" if character != "A" else "B") + sealed[at + 1 :]
        assert sealer.open(b"p", forged) is None


@pytest.mark.parametrize("text", ["", "A", "AAAA", "é" * 40, "=" * 40, "A" * 40, "+/" * 20, "a b" * 20, "\n" * 40])
def test_other_texts_open_to_nothing(text: str) -> None:
    assert Sealer([OLD]).open(b"p", text) is None


def test_a_short_key_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError, match="too short") as refused:
        Sealer(["secret"])
    assert "secret" not in refused.value.message


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "AESGCM", None)
    with pytest.raises(ConfigError, match=r"pip install 'pymcp-manager\[serve\]'"):
        Sealer()
