"""Who sends a request: API keys, the forms of credentials, challenges, and the metadata of the resource."""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.token_issuer import Request

from mcp_manager import ConfigError
from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.gateway.security import keys_file
from mcp_manager.gateway.security.api_keys import ApiKey, key_hash, looks_like_key, made_key
from mcp_manager.gateway.security.authentication import Authentication, Denial
from mcp_manager.gateway.security.keys_file import KeysFile, changing_keys, read_keys
from mcp_manager.gateway.security.principal import EVERYBODY, Principal
from mcp_manager.gateway.security.protected_resource import ResourceMetadata


def wrote(path: Path, *keys: ApiKey) -> str:
    with changing_keys(str(path)) as held:
        held[:] = keys
    return str(path)


def with_keys(path: Path, *keys: ApiKey) -> Authentication:
    return Authentication(ClientAuthConfig(type="api_key", keys_file=wrote(path, *keys)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def reason(found: object) -> str:
    assert isinstance(found, Denial), found
    return f"{found.status} {found.reason}"


def test_nobody_needs_credentials_without_a_type() -> None:
    authentication = Authentication(ClientAuthConfig())
    assert authentication.of(Request(authorization=b"Bearer x")) is EVERYBODY
    assert authentication.is_open


def test_a_key_opens_the_gateway_in_both_header_fields(path: Path) -> None:
    key, kept = made_key("ci", scopes=("a", "b"), claims={"groups": ("x", "y")})
    authentication = with_keys(path, kept)
    assert not authentication.is_open
    found = authentication.of(Request(authorization=b"Bearer " + key.encode()))
    assert isinstance(found, Principal)
    assert (found.name, found.scopes, found.claims) == ("ci", {"a", "b"}, {"groups": ("x", "y")})
    assert found.credential == key
    for fields in (
        {"authorization": b"bearer  " + key.encode()},
        {"x_api_key": key.encode()},
        {"authorization": b"Basic eA==", "x_api_key": key.encode()},
    ):
        assert authentication.of(Request(**fields)) is found
    assert key not in f"{found!r} {authentication.config!r} {path.read_text()}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_operator_is_told_why_credentials_are_rejected(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, _ = made_key("ci")
    authentication = with_keys(path, made_key("other")[1])
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            authentication.of(Request(x_api_key=key.encode()))
            authentication.of(Request(authorization=b"Bearer"))
            authentication.of(Request())
    told = [each.getMessage() for each in caplog.records if "rejected" in each.getMessage()]
    assert told == [
        "rejected the credentials of a client: invalid_token: the API key is unknown or revoked",
        "rejected the credentials of a client: invalid_request: the request has no token after Bearer",
    ]
    assert key not in caplog.text


def test_what_opens_nothing(path: Path) -> None:
    key, kept = made_key("ci")
    other, _ = made_key("ci")
    raw = key.encode()
    authentication = with_keys(path, kept)
    for words, fields in {
        "401 no credentials": [{}, {"authorization": b"Basic eA=="}, {"authorization": b""}, {"authorization": raw}],
        "400 invalid_request: the request has no token": [{"authorization": b"Bearer"}, {"authorization": b"Bearer  "}],
        "400 invalid_request: the request has several": [
            {"authorization": b"Bearer " + raw + b", Bearer " + raw},
            {"x_api_key": raw + b", " + raw},
        ],
        "401 invalid_token: the token has characters": [
            {"authorization": b"Bearer " + raw + b" x"},
            {"authorization": b"Bearer \xff\x00"},
            {"x_api_key": b""},
        ],
        "401 invalid_token: the token is too long": [{"authorization": b"Bearer " + b"a" * 16_385}],
        "401 invalid_token: the API key is unknown or revoked": [{"authorization": b"Bearer " + other.encode()}],
        "401 invalid_token: this is not an API key": [
            {"authorization": b"Bearer " + raw[:-1]},
            {"authorization": b"Bearer " + raw[:-1] + b"_"},
            {"x_api_key": b"mcpm_"},
        ],
        "401 invalid_token: this gateway accepts only API keys": [
            {"authorization": b"Bearer a.b.c"},
            {"x_api_key": b"Bearer"},
        ],
    }.items():
        for each in fields:
            found = authentication.of(Request(**each))  # type: ignore[arg-type]
            assert reason(found).startswith(words), each
            assert isinstance(found, Denial)
            assert found.fields.startswith(b"WWW-Authenticate: Bearer ")
            assert raw not in found.fields + found.body
            assert found.fields.count(b"\r\n") == 2


@given(st.binary(max_size=60), st.booleans())
def test_any_field_is_refused(value: bytes, has_scheme: bool) -> None:
    authentication = OF_NO_KEYS
    for name in ("authorization", "x_api_key"):
        found = authentication.of(Request(**{name: b"Bearer " + value if has_scheme else value}))
        assert isinstance(found, Denial)
        msgspec.json.decode(found.body)
        assert all(line.isascii() and line.isprintable() for line in found.fields.decode("ascii").split("\r\n"))


@pytest.fixture(scope="module", autouse=True)
def _no_keys(tmp_path_factory: pytest.TempPathFactory) -> None:
    global OF_NO_KEYS
    path = tmp_path_factory.mktemp("keys") / "none"
    path.touch()
    OF_NO_KEYS = Authentication(ClientAuthConfig(type="api_key", keys_file=str(path)))


OF_NO_KEYS: Authentication


def test_keys_follow_their_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, kept = made_key("first")
    second, more = made_key("second")
    authentication = with_keys(path, kept)
    request, other = (Request(authorization=b"Bearer " + each.encode()) for each in (first, second))
    principal = authentication.of(request)
    assert isinstance(principal, Principal)
    assert "unknown or revoked" in reason(authentication.of(other))
    wrote(path, kept, more)
    authentication.reread_keys()
    assert isinstance(authentication.of(other), Principal)
    # A key that has not changed stands for the same object.
    assert authentication.of(request) is principal
    # A bad file changes nothing.
    path.write_text("{}\n")
    with caplog.at_level(logging.ERROR):
        authentication.reread_keys()
    assert "the old keys stay valid" in caplog.text
    assert "line 1" in caplog.text
    assert authentication.of(request) is principal
    path.unlink()
    authentication.reread_keys()
    assert authentication.of(request) is principal
    wrote(path, more)
    authentication.reread_keys()
    assert "unknown or revoked" in reason(authentication.of(request))
    assert not authentication.is_current(principal)
    assert isinstance(authentication.of(other), Principal)


def test_a_revoked_key_is_noticed_within_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, kept = made_key("ci")
    authentication = with_keys(path, kept)
    request = Request(authorization=b"Bearer " + key.encode())
    found = authentication.of(request)
    assert isinstance(found, Principal)
    looked: list[str] = []
    real = keys_file._state_of
    monkeypatch.setattr(keys_file, "_state_of", lambda path: looked.append(path) or real(path))
    for _ in range(100):
        assert authentication.of(request) is found
        assert authentication.of(Request(x_api_key=key.encode())) is found
    assert len(looked) <= 1
    wrote(path)
    at, now = time.monotonic() + 1.01, time.time() + 1.01
    monkeypatch.setattr(keys_file, "time", SimpleNamespace(monotonic=lambda: at, time=lambda: now))
    monkeypatch.setattr("mcp_manager.gateway.security.authentication.time", lambda: now)
    assert "unknown or revoked" in reason(authentication.of(request))


def test_a_key_expires(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, kept = made_key("ci", expires=datetime.now(UTC) + timedelta(seconds=100))
    authentication = with_keys(path, kept)
    request = Request(authorization=b"Bearer " + key.encode())
    found = authentication.of(request)
    assert isinstance(found, Principal)
    assert authentication.is_current(found)
    later = time.time() + 101
    monkeypatch.setattr("mcp_manager.gateway.security.authentication.time", lambda: later)
    monkeypatch.setattr(keys_file, "time", SimpleNamespace(monotonic=time.monotonic, time=lambda: later))
    assert "expired" in reason(authentication.of(request))
    assert not authentication.is_current(found)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x", "line 1: JSON is malformed"),
        ('{"name": "a"}', "line 1: Object missing required field `hash`"),
        ('{"name": "a b", "hash": "%h"}', "line 1: name is not as mcp-manager key writes it"),
        ('{"name": "anonymous", "hash": "%h"}', "line 1: name is not as"),
        ('{"name": "a\\n", "hash": "%h"}', "line 1: name is not as"),
        ('{"name": "a", "hash": "sha256:x"}', "line 1: hash is not as"),
        ('# a comment\n\n{"name": "a", "hash": "%h", "scope": "x"}', "line 3: Object contains unknown field `scope`"),
        (
            '{"name": "a", "hash": "%h", "expires": "2027-01-01T00:00:00"}',
            "line 1: Expected `datetime` with a timezone",
        ),
        ('{"name": "a", "hash": "%h"}\n{"name": "b", "hash": "%h"}', "line 2: repeats a key"),
        ("[" * 100_000, "line 1: "),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(path: Path, text: str, problem: str) -> None:
    hashed = key_hash(b"x")
    path.write_text(text.replace("%h", hashed))
    with pytest.raises(ConfigError) as caught:
        KeysFile(str(path))
    assert problem in str(caught.value)
    assert hashed not in str(caught.value)


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file") as caught:
        Authentication(ClientAuthConfig(type="api_key", keys_file=str(path)))
    assert "mcp-manager key new" in caught.value.hint
    with pytest.raises(ConfigError, match="cannot be written"), changing_keys(str(path / "deeper" / "file")):
        raise AssertionError
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_keys(str(path))


def test_changes_keep_links_and_write_nothing_after_a_failure(path: Path, tmp_path: Path) -> None:
    _, kept = made_key("ci")
    link = tmp_path / "link"
    link.symlink_to(path)
    wrote(link, kept)
    assert link.is_symlink()
    before = path.read_bytes()
    with pytest.raises(RuntimeError), changing_keys(str(path)) as keys:
        keys.clear()
        raise RuntimeError
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["keys.jsonl", "link"]


def test_keys_have_a_beginning_and_a_checksum() -> None:
    keys = [made_key("a")[0] for _ in range(50)]
    assert len(set(keys)) == 50
    for key in keys:
        assert looks_like_key(key)
        assert len(key) == 54
        assert not any(looks_like_key(each) for each in (key[:-1], key + "0", key.swapcase(), "x" + key[1:]))
        changed = key[:20] + ("0" if key[20] != "0" else "1") + key[21:]
        assert not looks_like_key(changed)


def documents(**auth: Any) -> ResourceMetadata:
    usual = {"type": "jwt", "issuer": "https://idp.example.com", "audience": ("x",), "scopes": ("a", "b")}
    return ResourceMetadata(ClientAuthConfig(**{**usual, **auth}), is_tls=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("auth", "host", "path", "url"),
    [
        ({}, b"h:1", "/mcp", "http://h:1/.well-known/oauth-protected-resource/mcp"),
        ({}, b"[::1]:80", "/mcp/v", "http://[::1]:80/.well-known/oauth-protected-resource/mcp/v"),
        ({}, b'h"', "/mcp", None),
        ({}, b"[::1%a]", "/mcp", None),
        ({}, None, "/mcp", None),
        ({}, b"h", '/mcp/"x"', None),
        ({}, b"h", "/" + "x" * 300, None),
        ({"issuer": None}, b"h", "/mcp", None),
        ({"type": "api_key"}, b"h", "/mcp", None),
        ({"resource": "https://g"}, b"h", "/mcp", "https://g/.well-known/oauth-protected-resource/mcp"),
        ({"resource": "https://g/a/"}, None, "/mcp", "https://g/.well-known/oauth-protected-resource/a/mcp"),
    ],
)
def test_the_url_of_the_metadata(auth: Any, host: bytes | None, path: str, url: str | None) -> None:
    made = documents(**auth)
    assert made.url(path, host) == url
    if url is not None:
        well_known = url.partition("/.well-known")[1] + url.partition("/.well-known")[2]
        document = json.loads(made.document(well_known, host) or b"")
        assert document["resource"] == url.replace("/.well-known/oauth-protected-resource", "")
        assert document["scopes_supported"] == ["a", "b"]


def test_there_is_no_document_elsewhere() -> None:
    made = documents()
    for path in (
        "/mcp",
        "/.well-known/other",
        "/.well-known/oauth-protected-resourceful",
        '/.well-known/oauth-protected-resource/"',
    ):
        assert made.document(path, b"h") is None, path
    # Hostile paths do not fill the memory.
    for number in range(1000):
        assert made.document(f"/.well-known/oauth-protected-resource/{number}", b"h") is not None
    assert len(made._kept) <= 256
