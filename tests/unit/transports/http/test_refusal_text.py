"""The line of a refusal that tells why, and what is never in it."""

from __future__ import annotations

import pytest
from yarl import URL

from mcp_manager._core.http_message import Exchange, WireReply
from mcp_manager._core.jsonrpc import Message
from mcp_manager.config import AuthConfig, ServerConfig
from mcp_manager.config.redaction import Secrets, is_credential
from mcp_manager.errors import ProtocolError, RpcError
from mcp_manager.protocol.rpc_error import rpc_error
from mcp_manager.session.knowledge.peer_faults import PeerFaults
from mcp_manager.transports.base import CallListener
from mcp_manager.transports.http.refusal_text import refusal_text
from mcp_manager.transports.http.reply import ReplyReader
from mcp_manager.transports.http.status import Credentials

PAGE = b"""<!DOCTYPE html>
<html><head><style>p { color: red }</style><!-- a comment --><TITLE lang=en>Attention
 Required! &amp; more</TITLE></head><body><p>Just a moment</p></body></html>"""


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"Missing X-Org-Id header\nline 2", "Missing X-Org-Id header"),
        (b"\r\n \n  boom \n", "boom"),
        (b"\xef\xbb\xbfboom", "boom"),
        (b'{"detail":"Your plan does not include MCP"}', "Your plan does not include MCP"),
        (b'{"detail":[{"loc":["body","x"],"msg":"Field required","type":"missing"}]}', "Field required"),
        (b'{"error":"database is locked"}', "database is locked"),
        (b'{"error":{"status":"DENIED","message":"quota used up"}}', "quota used up"),
        (b'{"error":null,"Message":"Forbidden"}', "Forbidden"),
        (b'{"error":"invalid_token","error_description":"expired"}', "invalid_token: expired"),
        (b'{"title":"Unprocessable","status":422,"detail":"2025-06-18 only"}', "Unprocessable: 2025-06-18 only"),
        (b'{"title":"Forbidden"}', "Forbidden"),
        (b'{"errors":[{"title":"No","detail":"way"}]}', "No: way"),
        (b'{"jsonrpc":"2.0","id":null,"error":"not an object"}', "not an object"),
        (rb'{"message":"cut \ud83d"}', "cut \ufffd"),
        (b'["first","second"]', "first"),
        (b'"plain"', "plain"),
        (b'{"code":7}', '{"code":7}'),
        (b'{"detail":"cut off', '{"detail":"cut off'),
        (b'{"detail":{"detail":{"detail":{"detail":{"detail":{"detail":{"detail":"deep"}}}}}}}', None),
        (PAGE, "Attention"),
        (b"<html><body><script>var x = 1;</script>\n<p>Just a <b>moment</b></p>", "Just a"),
        (b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", "Access Denied"),
        (b"", ""),
        (b"\x89PNG\r\n\0\0\0", ""),
        (b"\xff\xfe\xfd\xfc", ""),
        (b"{}", "{}"),
        (b"[" * 50_000, None),
        (b"<" * 60_000, None),
        (b"<script" * 9_000, None),
        (b'{"detail":"' + b"x" * 100_000 + b'"}', ""),
    ],
)
def test_the_explanation_is_found_whatever_it_is_wrapped_in(body: bytes, line: str | None) -> None:
    told = refusal_text(body)
    assert told == line or (line is None and len(told) <= 4096)


CONFIG = ServerConfig(
    url="https://example.test/mcp?api_key=in-query&plan=gold&long=value-of-ten",
    auth=AuthConfig(
        type="oauth", client_id="public-id", client_secret="c-secret", private_key="-----BEGIN\nAAAABBBB\n"
    ),
    headers={
        "Authorization": "Basic dXNlcjpwYXNzd29yZA==",
        "X-Org": "acme",
        "X-Session": "a-long-session-value",
        "Cookie": "sid=cookie-value; theme=dark",
    },
    env={"DEBUG": "1", "API": "sk-0123456789"},
    args=("serve", "--api-key", "arg-key", "--port", "8080", "--token=arg-token", "https://u:url-pass@host/", "--auth"),
)
HIDDEN = (
    "in-query",
    "value-of-ten",
    "c-secret",
    "AAAABBBB",
    "Basic dXNlcjpwYXNzd29yZA==",
    "dXNlcjpwYXNzd29yZA==",
    "password",
    "a-long-session-value",
    "cookie-value",
    "sk-0123456789",
    "arg-key",
    "arg-token",
    "url-pass",
)


def test_everything_that_a_server_was_trusted_with_is_masked() -> None:
    secrets = Secrets(CONFIG)
    for hidden in HIDDEN:
        assert secrets.masked(f"got {hidden}!") == "got ***!", hidden
    for shown in ("gold", "public-id", "acme", "1", "8080", "serve", "dark", "--api-key"):
        assert secrets.masked(f"got {shown}!") == f"got {shown}!"
    assert not secrets.are_sent
    assert Secrets(ServerConfig(url="http://a/", auth=AuthConfig(type="bearer", token="t"))).are_sent


def test_tokens_are_masked_from_when_they_are_obtained_and_the_latest_are_kept() -> None:
    secrets = Secrets(ServerConfig(url="http://a/"))
    assert secrets.masked("token-000") == "token-000"
    for number in range(200):
        secrets.add(f"Bearer token-{number:03d}")
        secrets.add(f"Bearer token-{number:03d}")
    assert secrets.masked("token-199 token-190") == "*** ***"
    assert secrets.masked("token-000") == "token-000"


def test_an_error_is_masked_without_delay_however_many_secrets_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = Secrets(ServerConfig(command="x", env={f"K{number}": f"value-{number:03d}" for number in range(50)}))
    assert secrets.masked_json(b'["value-001", "value-049", "token-1"]') == b'["***", "***", "token-1"]'
    with monkeypatch.context() as patched:
        patched.setattr("mcp_manager.config.redaction.json", None)
        assert secrets.masked_json(b'["value-007"]') == b'["***"]'
    secrets.add("Bearer token-1")
    assert secrets.masked_json(b'["value-001", "token-1"]') == b'["***", "***"]'


def test_cookies_that_change_with_every_reply_push_out_no_token() -> None:
    secrets = Secrets(ServerConfig(url="http://a/"))
    secrets.add("Bearer the-access-token")
    for number in range(100):
        secrets.add(f"AWSALB=balancer/{number:04d}; AWSALBCORS=balancer/{number:04d}", "Cookie")
    assert secrets.masked("the-access-token balancer/0099") == "*** ***"
    assert secrets.masked("balancer/0000") == "balancer/0000"


def test_as_many_cookies_as_come_at_once_are_all_masked() -> None:
    secrets = Secrets(ServerConfig(url="http://a/"))
    cookies = [f"value-of-cookie-{number:02d}" for number in range(60)]
    secrets.add("; ".join(f"c{number}={value}" for number, value in enumerate(cookies)), "Cookie")
    for value in cookies:
        assert secrets.masked(value) == "***"


def test_what_is_quoted_is_masked_before_it_is_cut() -> None:
    secrets = Secrets(ServerConfig(url="http://a/", auth=AuthConfig(type="bearer", token="0123456789")))
    assert secrets.quoted("key 0123456789 \x1b[31m\r\nis\0 bad", 200) == "key *** [31m is bad"
    for length in range(4, 20):
        assert "012" not in secrets.quoted("key 0123456789 is bad", length)
        assert len(secrets.quoted("key 0123456789 is bad", length)) <= length


@pytest.mark.parametrize("length", [1500, 2500, 6000])
@pytest.mark.parametrize(
    "form", ["got {0} for {0} by {0}", '{{"error_description": "not valid: {0}"}}', "<p>{0}</p><p>{0}"]
)
def test_a_secret_that_a_long_text_was_cut_in_is_not_quoted(form: str, length: int) -> None:
    token = "eyJ" + "ab0c1d" * (length // 6)
    secrets = Secrets(ServerConfig(url="http://a/", auth=AuthConfig(type="bearer", token=token)))
    said = secrets.quoted(refusal_text(form.format(token).encode()), 200)
    assert "***" in said
    assert "eyJab0" not in said


class _Sink:
    def on_message(self, message: Message, listener: CallListener | None = None) -> None:
        raise AssertionError("there is no message")

    def on_fault(self, kind: str, detail: str) -> None:
        raise AssertionError("nothing is overlooked")


@pytest.mark.parametrize(
    ("status", "field", "value"),
    [
        (302, b"location", "/login/{}?next=/"),
        (308, b"location", "https://elsewhere.example/{}"),
        (200, b"content-type", "text/{}"),
        (200, b"content-type", "text/" + "x" * 45 + "{}"),
        (200, b"content-encoding", "{}"),
    ],
)
def test_no_field_of_a_response_echoes_a_secret(status: int, field: bytes, value: str) -> None:
    secrets = Secrets(ServerConfig(url="http://a/", auth=AuthConfig(type="bearer", token="Sentinel-0123456789")))
    reader = ReplyReader("a", _Sink(), 1 << 20, secrets, Credentials.FIXED)
    fields = {b"content-type": b"application/json", field: value.format("Sentinel-0123456789").encode()}
    reply = WireReply(status, list(fields.items()), b"hello")
    with pytest.raises(ProtocolError) as caught:
        reader.read(reply, Exchange(b"", 1, 0), URL("http://a/"), has_session=True)
    assert "***" in str(caught.value)
    assert "sentinel" not in f"{caught.value!r} {caught.value}".lower()


def test_an_error_echoes_no_secret_in_whichever_member_or_spelling() -> None:
    secrets = Secrets(ServerConfig(url="http://a/", auth=AuthConfig(type="bearer", token='k"é/y')))
    frame = r'{"code":-32000,"message":"bad k\"é/y","data":{"seen":["k\"\u00e9/y"],"n":1e400}}'.encode()
    error = rpc_error("s", frame, secrets)
    assert (error.message, error.data) == ("bad ***", {"seen": ["***"], "n": float("inf")})
    assert 'k"' not in f"{error!r} {error}"


def test_the_text_of_an_rpc_error_has_no_control_characters() -> None:
    error = RpcError(1, "\x1b[31mred\r\nINJECTED\0\u202e")
    assert str(error) == " [31mred  INJECTED   (JSON-RPC error 1)"
    assert error.message == "\x1b[31mred\r\nINJECTED\0\u202e"


def test_a_fault_is_logged_without_secrets_and_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    secrets = Secrets(ServerConfig(url="http://a/", auth=AuthConfig(type="bearer", token="0123456789")))
    PeerFaults("s", lambda: 0, secrets).count("odd", "0123456789\nnext")
    assert [record.getMessage() for record in caplog.records] == ["server 's': odd: *** next (1 so far)"]


@pytest.mark.parametrize(
    "name", ["Authorization", "x-api-key", "X-Goog-Api-Key", "--token", "PASSWORD", "key", "apikey"]
)
def test_names_of_credentials(name: str) -> None:
    assert is_credential(name)


@pytest.mark.parametrize("name", ["X-Org", "Accept", "monkey", "--port", "X-Request-Id", "keyboard"])
def test_names_of_other_things(name: str) -> None:
    assert not is_credential(name)
