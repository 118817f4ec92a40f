"""What was configured or filled in is shown nowhere, in whichever form it comes back."""

from __future__ import annotations

import base64
import html
import json
import traceback
from pathlib import Path
from urllib.parse import quote, quote_plus

import msgspec
import pytest

from mcp_manager.config import AuthConfig, ManagerConfig, ServerConfig, load_manager_config
from mcp_manager.config.redaction import Secrets, shown_place
from mcp_manager.errors import ConfigError, ConnectError

SECRET = "sk-S3cr3t/V+lue <99>"
FORMS = {
    "as it is": SECRET,
    "in a URL": quote(SECRET, safe=""),
    "in a path": quote(SECRET),
    "in a form": quote_plus(SECRET),
    "in JSON": json.dumps(SECRET)[1:-1],
    "in HTML": html.escape(SECRET),
    "in Python": repr(SECRET)[1:-1],
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    **{f"Basic {user}": base64.b64encode(f"{user}:{SECRET}".encode()).decode() for user in ("me", "you", "them", "")},
    "in a URL by .NET": "sk-S3cr3t%2fV%2blue%20%3c99%3e",
    "in a path by nginx": "sk-S3cr3t/V%2blue%20%3c99%3e",
    "in a form by .NET": "sk-S3cr3t%2fV%2blue+%3c99%3e",
    "in JSON by PHP": r"sk-S3cr3t\/V+lue <99>",
    "in JSON by Go": r"sk-S3cr3t/V+lue \u003c99\u003e",
    "in JSON by .NET": r"sk-S3cr3t/V\u002Blue \u003C99\u003E",
    "in hex digits": SECRET.encode().hex(),
    "in large hex digits": SECRET.encode().hex().upper(),
    "in the middle": base64.b64encode(f"<{SECRET}>".encode()).decode(),
}


def loaded(tmp_path: Path, servers: object, **environment: str) -> ManagerConfig:
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return load_manager_config(path, environment=environment)


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_masked_in_every_form_it_may_come_back_in(form: str) -> None:
    secrets = Secrets(ServerConfig(url="http://h/", auth=AuthConfig(type="bearer", token=SECRET)))
    said = secrets.masked(f"you sent {FORMS[form]}, did you?")
    assert said.startswith("you sent ")
    assert said.endswith(", did you?")
    # Of base64, the characters stay that it shares with what stands before and behind.
    assert "***" in said
    assert len(said) <= len("you sent ***, did you?") + 8 + 4 * form.startswith("Basic")


@pytest.mark.parametrize("quotes", [("&quot;", "&#x27;"), ("&quot;", "&#39;"), ("&#34;", "&#39;")])
def test_a_secret_with_quotes_is_masked_as_every_library_escapes_them_for_html(quotes: tuple[str, str]) -> None:
    secrets = Secrets(ServerConfig(url="http://h/", auth=AuthConfig(type="bearer", token="S3\"cr3'tV4lue")))
    assert secrets.masked(f"you sent S3{quotes[0]}cr3{quotes[1]}tV4lue") == "you sent ***"


@pytest.mark.parametrize("value", ["a", "abc"])
def test_what_is_too_short_to_be_told_from_words_is_not_masked(value: str) -> None:
    secrets = Secrets(ServerConfig(url="http://h/", auth=AuthConfig(type="bearer", token=value), hidden_texts=(value,)))
    assert secrets.masked("a cab, abc") == "a cab, abc"


def test_what_was_filled_in_is_masked_wherever_it_was(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        {
            "path": {"url": "http://h/s/${T}/mcp"},
            "program": {"command": "/opt/${T}/serve", "args": ["${T}"], "cwd": "/srv/${T}", "env": {"T": "${T}"}},
            "short": {"url": "http://h:${PORT}/${API_KEY}/mcp"},
            "none": {"url": "http://h/mcp"},
        },
        T="S3cr3tV4lue99",
        PORT="8080",
        API_KEY="k3y9",
    )
    for text in (repr(config), *(repr(each) for each in config.servers.values())):
        assert "S3cr3tV4lue99" not in text
        assert "k3y9" not in text
    places = {name: shown_place(each, each.command or each.instance_url(0)) for name, each in config.servers.items()}
    assert places == {
        "path": "http://h/s/***/mcp",
        "program": "/opt/***/serve",
        "short": "http://h:8080/***/mcp",
        "none": "http://h/mcp",
    }
    assert config.servers["none"].hidden_texts == ()
    for server in config.servers.values():
        assert Secrets(server).masked("S3cr3tV4lue99") == (
            "***" if server.hidden_texts[:1] == ("S3cr3tV4lue99",) else "S3cr3tV4lue99"
        )


def test_defaults_fill_in_for_every_server_and_more_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    path.write_text(
        json.dumps(
            {
                "defaults": {"headers": {"X-Team": "${TEAM}"}},
                "servers": {"a": {"url": "http://h/S3cr3t-in-the-file", "hidden_texts": ["S3cr3t-in-the-file"]}},
            }
        )
    )
    server = load_manager_config(path, environment={"TEAM": "the-blue-team"}).servers["a"]
    assert Secrets(server).masked("the-blue-team at S3cr3t-in-the-file") == "*** at ***"
    assert "S3cr3t" not in repr(server)
    assert msgspec.to_builtins(server)["hidden_texts"] == ("S3cr3t-in-the-file", "the-blue-team")


def test_an_error_of_a_file_quotes_nothing_that_was_filled_in(tmp_path: Path) -> None:
    for settings in (
        {"url": "${T}://h/"},
        {"url": "http://h:${T}/"},
        {"url": "${T}"},
        {"url": "http://h/", "proxy": "${T}://h"},
    ):
        with pytest.raises(ConfigError) as failure:
            loaded(tmp_path, {"a": settings}, T="S3cr3tV4lue99")
        assert "s3cr3tv4lue99" not in f"{failure.value!r} {failure.value}".lower()


@pytest.mark.parametrize("given", ["text", [1], [{}]])
def test_texts_to_hide_are_checked_also_where_others_join_them(tmp_path: Path, given: object) -> None:
    with pytest.raises(ConfigError, match="hidden_texts"):
        loaded(tmp_path, {"a": {"url": "http://h/${T}", "hidden_texts": given}}, T="S3cr3tV4lue99")


def test_the_cause_of_an_error_that_quotes_a_secret_goes_with_it() -> None:
    secrets = Secrets(ServerConfig(url="http://h/", auth=AuthConfig(type="bearer", token="0123456789")))
    for cause, is_shown in ((OSError("no route to 0123456789"), False), (OSError("no route"), True)):
        try:
            raise ConnectError("failed for 0123456789", hint="not 0123456789") from cause
        except ConnectError as error:
            secrets.hide_in(error)
            text = "".join(traceback.format_exception(error))
            assert "failed for ***" in text
            assert "0123456789" not in str(error)
            assert ("no route" in text) is is_shown


def test_nothing_is_worked_out_before_a_text_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_manager.config.redaction.forms_of", None)
    secrets = Secrets(ServerConfig(url="http://h/", auth=AuthConfig(type="bearer", token="0123456789")))
    secrets.add("Bearer another-token")
    secrets.add("a=0123456789", "Cookie")
    assert secrets.are_sent
    with pytest.raises(TypeError):
        secrets.masked("anything")


def test_a_text_cut_within_a_secret_does_not_end_with_its_beginning() -> None:
    token = "abcdef" * 3 + "0123456789"
    secrets = Secrets(ServerConfig(url="http://h/", auth=AuthConfig(type="bearer", token=token)))
    for length in range(6, len(token)):
        assert secrets.masked_so_far(f"got {token[:length]}") == "got ***"
    assert secrets.masked_so_far("got abcdefg") == "got abcdefg"
