"""The verb ``key``: keys are made, listed and revoked, and open a gateway."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from support.authorization import ProtectedServer
from support.token_issuer import Request
from support.token_issuer import made_key as made_private_key

from mcp_manager.cli import main
from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.gateway.security.authentication import Authentication, Denial
from mcp_manager.gateway.security.principal import Principal


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "keys.jsonl"


def test_a_key_is_shown_once_and_opens_a_gateway(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "new", "ci", "--scope", "a", "--scope", "b", "--claim", "groups=x", "--claim", "groups=y"]) == 0
    shown = capsys.readouterr()
    key = shown.out.strip()
    assert key.startswith("mcpm_")
    assert key not in shown.err + path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    authentication = Authentication(ClientAuthConfig(type="api_key", keys_file=str(path)))
    request = Request(authorization=f"Bearer {key}".encode())
    found = authentication.of(request)
    assert isinstance(found, Principal)
    assert (found.name, found.scopes, found.claims) == ("ci", {"a", "b"}, {"groups": ("x", "y")})
    # Another of the same name, and one of them is revoked by its id.
    assert main(["key", "new", "ci", "--json", "--expires", "90d"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["key", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed] == ["ci", "ci"]
    assert made["key"] not in json.dumps(listed) + path.read_text()
    [old] = [each["id"] for each in listed if each["id"] != made["id"]]
    assert main(["key", "revoke", old, "-q"]) == 0
    authentication.reread_keys()
    assert isinstance(authentication.of(request), Denial)
    assert main(["key", "list"]) == 0
    table = capsys.readouterr().out
    assert made["id"] in table
    assert old not in table
    assert main(["key", "revoke", "ci", "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["revoked"]] == [made["id"]]
    assert path.read_bytes() == b""


def test_a_file_keeps_its_owner_and_mode(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Root makes keys, and a service of another user reads them.
    assert main(["key", "new", "a", "-q"]) == 0
    path.chmod(0o640)
    owner = 65534 if os.getuid() == 0 else os.getuid()
    os.chown(path, owner, -1)
    assert main(["key", "new", "b", "-q"]) == 0
    assert main(["key", "revoke", "a", "-q"]) == 0
    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o640, owner)
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["new"], "key new needs a name"),
        (["list", "x"], "key list takes no name"),
        (["list"], "cannot be read: No such file"),
        (["revoke", "x"], "cannot be read: No such file"),
        (["new", "a/b"], "cannot be used"),
        (["new", "anonymous"], "no key can be named anonymous"),
        (["new", "a", "--scope", ""], "cannot be used"),
        (["new", "a", "--claim", "x"], "--claim has no name or no value"),
        (["new", "a", "--expires", "soon"], "--expires is neither a duration nor a date"),
        (["new", "a", "--expires", "2020-01-01"], "--expires has passed"),
        (["new", "a", "--expires", "999999w"], "--expires is neither"),
        (["new", "a", "--file", "none/keys"], "cannot be written"),
        (["make", "a"], "is not one of"),
    ],
)
def test_mistakes(path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", *words]) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.out == ""
    assert not path.exists()


def test_a_name_that_has_no_key(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "new", "a", "-q", "--expires", "2999-12-31T10:00:00+02:00"]) == 0
    before = path.read_bytes()
    assert b'"expires":"2999-12-31T10:00:00+02:00"' in before
    assert main(["key", "revoke", "b"]) == 2
    assert "no key with this name or id" in capsys.readouterr().err
    assert path.read_bytes() == before


def doctor(path: Path, auth: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Return what the doctor finds in a fleet without servers, as severity and text."""
    file = path.with_name("fleet.json")
    file.write_text(json.dumps({"servers": {}, "serve": {"auth": auth}}))
    status = main(["doctor", str(file), "--json"])
    found = [(each["severity"], each["seen"]) for each in json.loads(capsys.readouterr().out)["findings"]]
    assert status == (1 if any(severity == "error" for severity, _ in found) else 0)
    return found


def test_the_doctor_looks_at_keys(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    auth = {"type": "api_key", "keys_file": str(path)}
    [(severity, seen)] = doctor(path, auth, capsys)
    assert (severity, "cannot be read" in seen) == ("error", True)
    assert main(["key", "new", "a", "-q", "--expires", "1h"]) == 0
    capsys.readouterr()
    assert doctor(path, auth, capsys) == []
    path.chmod(0o666)
    [(severity, seen)] = doctor(path, auth, capsys)
    assert (severity, "others can write" in seen) == ("warning", True)
    path.write_text("")
    path.chmod(0o600)
    [(severity, seen)] = doctor(path, auth, capsys)
    assert (severity, "no key that is valid" in seen) == ("warning", True)


def test_the_doctor_asks_the_issuer(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jwk = {**made_private_key("ES256").as_dict(private=False), "kid": "one"}
    with ProtectedServer() as server:
        auth = {"type": "jwt", "issuer": server.origin, "audience": ["x"]}
        document = {"issuer": "{origin}", "jwks_uri": "{origin}/.well-known/keys"}
        server.documents = {"/.well-known/openid-configuration": document, "/.well-known/keys": {"keys": [jwk]}}
        assert doctor(path, auth, capsys) == []
        server.documents["/.well-known/keys"] = {"keys": []}
        [(severity, seen)] = doctor(path, auth, capsys)
        assert (severity, "no key that can be used" in seen) == ("error", True)
        server.documents = {}
        [(severity, seen)] = doctor(path, auth, capsys)
        assert (severity, "publishes no metadata" in seen) == ("error", True)
        opaque = {"type": "introspection", "issuer": server.origin, "client_id": "g", "client_secret": "s" * 20}
        found = doctor(path, opaque, capsys)
        assert [severity for severity, _ in found] == ["error", "warning"]
        assert "audience" in found[1][1]
        assert "s" * 20 not in str(found)
