"""Every malformed server configuration: the exception, the field it names, and no secret anywhere in it."""

from __future__ import annotations

import enum
import json
import logging
import traceback
from typing import Any

import msgspec
import pytest

from mcp_manager.config import AuthConfig, ServerConfig, check_server_config, parse_server_config, validate_server_id
from mcp_manager.errors import ConfigError

SECRET = "s3cr3t-SENTINEL-value"
URL = {"url": "http://localhost:8001/mcp"}
DOCUMENTED = {
    "name": "docker-server",
    "server_type": "infrastructure",
    "url": "http://localhost:8001",
    "auth": {"type": "api_key", "key": "secret"},
    "priority": 10,
    "tags": ["docker", "production"],
}


def refused(source: Any, *, server_id: Any = "one", lenient: bool = False) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_server_config(source, server_id=server_id, lenient=lenient)
    error = caught.value
    everything = "".join(
        [str(error), repr(error), repr(error.args), repr(vars(error)), *traceback.format_exception(error)]
    )
    assert SECRET not in everything
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "\n" not in str(error)
    return error


def message(source: Any, **options: Any) -> str:
    text = str(refused(source, **options))
    assert text.startswith("Invalid server config: ")
    return text.removeprefix("Invalid server config: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "malformed JSON at line 1, column 1"),
        ("{", "malformed JSON at line 1, column 2"),
        ('{"url": "http://h",\n "priority": }', "malformed JSON at line 2, column 14"),
        (f'{{"auth": {{"key": "{SECRET}}}', "malformed JSON at line 1"),
        (f'{{"auth": {{"key": "{SECRET}\\q"}}', "malformed JSON at line 1"),
        ('{"priority": NaN}', "NaN is not a JSON value"),
        ('{"priority": -Infinity}', "-Infinity is not a JSON value"),
        ('{"url": "http://a", "url": "http://b"}', "url: malformed JSON: the key is given twice"),
        (f'{{"env": {{"A={SECRET}": "", "A={SECRET}": ""}}}}', "the key is given twice"),
        ('{"priority": ' + "9" * 5000 + "}", "too many digits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("[]", "expected an object, got an array"),
        ("null", "expected an object, got null"),
        ("7", "expected an object, got 7"),
        (f'"{SECRET}"', "expected an object, got a string"),
        (b"\xff\xfe{}", "byte 0 is not UTF-8"),
        (b'{"auth": {"key": "' + SECRET.encode() + b'\xff"}}', "is not UTF-8"),
        (7, "expected JSON text or a mapping, got 7"),
        (None, "expected JSON text or a mapping, got null"),
    ],
)
def test_text_that_is_no_json_object(text: Any, expected: str) -> None:
    assert expected in message(text)


def http(**fields: Any) -> dict[str, Any]:
    return {**URL, **fields}


def stdio(**fields: Any) -> dict[str, Any]:
    return {"command": "server", **fields}


@pytest.mark.parametrize(
    ("source", "field", "problem"),
    [
        # types
        (http(name=5), "name", "expected a string, got a number"),
        (http(server_type=None), "server_type", "expected a string, got null"),
        (http(url=8001), "url", "expected a string or an array, got a number"),
        ({"url": ["http://a", 5]}, "url[1]", "expected a string, got a number"),
        (http(auth=SECRET), "auth", "expected an object, got a string"),
        (http(auth={"type": "api_key", "key": 5}), "auth.key", "expected a string"),
        (http(auth={"type": "api_key", "key": [SECRET]}), "auth.key", "expected a string, got an array"),
        (http(auth={"type": "bearer", "token": {"a": SECRET}}), "auth.token", "expected a string, got an object"),
        (http(auth={"type": 1}), "auth.type", "expected a string, got a number"),
        (http(auth={"type": SECRET}), "auth.type", "not one of none, api_key, bearer"),
        (http(headers=[SECRET]), "headers", "expected an object, got an array"),
        (http(headers={"X-A": [SECRET]}), "headers.X-A", "expected a string, got an array"),
        (http(headers={f"X-A: {SECRET}": 1}), "headers[…]", "expected a string, got a number"),
        (stdio(env={"TOKEN": 7}), "env.TOKEN", "expected a string, got a number"),
        (stdio(env={f"TOKEN={SECRET}": 1.5}), "env[…]", "expected a string, got a number"),
        (stdio(env={f"TOKEN={SECRET}": float("nan")}), "env[…]", "expected a finite number"),
        (stdio(args="--flag"), "args", "expected an array"),
        (stdio(args=["a", None]), "args[1]", "expected a string, got null"),
        ({"command": ["npx", "-y"]}, "command", "expected a string, got an array"),
        (http(tags="a"), "tags", "expected an array, got a string"),
        (http(priority="10"), "priority", "expected an integer, got a string"),
        (http(priority=True), "priority", "expected an integer, got true"),
        (http(priority=1.5), "priority", "expected an integer, got 1.5"),
        (http(connect_timeout_s="5"), "connect_timeout_s", "expected a number, got a string"),
        (stdio(start_timeout_s="60"), "start_timeout_s", "expected a number, got a string"),
        (http(breaker={"enabled": 1}), "breaker.enabled", "expected true or false, got 1"),
        (http(breaker=[]), "breaker", "expected an object, got an array"),
        (http(health={"interval_s": None}), "health.interval_s", "expected a number, got null"),
        (http(extras=[]), "extras", "expected an object, got an array"),
        (http(extras={"a": b"x"}), "extras.a", "expected a JSON value, got a Python bytes"),
        (http(extras={"a": 2**64}), "extras.a", "the number is out of range"),
        (http(extras={"a": {1: 2}}), "extras.a", "expected names to be strings, got 1"),
        ({1: 2}, "", "expected field names to be strings, got 1"),
        # ranges
        (http(priority=-1), "priority", "expected an integer >= 0, got -1"),
        (http(priority=300), "priority", "expected an integer <= 255, got 300"),
        (http(priority=2**70), "priority", "out of range"),
        (http(priority=10**5000), "priority", "out of range"),
        (http(connect_timeout_s=-1), "connect_timeout_s", "got -1"),
        (http(connect_timeout_s=0), "connect_timeout_s", "got 0"),
        (stdio(start_timeout_s=0), "start_timeout_s", "got 0"),
        (stdio(start_timeout_s=1e9), "start_timeout_s", "got 1000000000.0"),
        (http(request_timeout_s=float("nan")), "request_timeout_s", "expected a finite number, got nan"),
        (http(request_timeout_s=float("inf")), "request_timeout_s", "expected a finite number, got inf"),
        (http(request_timeout_s=1e300), "request_timeout_s", "got 1e+300"),
        (http(breaker={"failure_rate": 1.5}), "breaker.failure_rate", "got 1.5"),
        (http(breaker={"failure_rate": 0}), "breaker.failure_rate", "got 0"),
        (http(breaker={"jitter": 1.0}), "breaker.jitter", "got 1.0"),
        (http(breaker={"consecutive_failures": 0}), "breaker.consecutive_failures", "got 0"),
        (http(breaker={"rpc_error": [-32603]}), "breaker", "(did you mean 'rpc_errors'?)"),
        (http(breaker={"rpc_errors": -32603}), "breaker.rpc_errors", "array"),
        (http(breaker={"rpc_errors": ["-32603"]}), "breaker.rpc_errors[0]", "int"),
        (http(breaker={"rpc_errors": [-32000, 32603]}), "breaker.rpc_errors[1]", "(did you mean -32603?)"),
        (http(breaker={"rpc_errors": [1, 2**31]}), "breaker.rpc_errors[1]", "2147483647"),
        (http(breaker={"rpc_errors": [-(2**31) - 1]}), "breaker.rpc_errors[0]", "2147483648"),
        (http(breaker={"rpc_errors": [-1, 5, -1]}), "breaker.rpc_errors[2]", "repeats the code -1"),
        (http(breaker={"rpc_errors": list(range(65))}), "breaker.rpc_errors", "64"),
        (http(breaker={"open_s": 600}), "breaker.open_s", "exceeds breaker.open_max_s"),
        (http(health={"unhealthy_interval_s": 90}), "health.unhealthy_interval_s", "exceeds"),
        (http(health={"idle_interval_s": 5}), "health.interval_s", "exceeds"),
        (http(restart={"initial_s": 90}), "restart.initial_s", "exceeds restart.max_s"),
        (http(instances=-1), "instances", "expected an integer >= 0, got -1"),
        (http(instances=65), "instances", "exceeds max_instances, which is 64"),
        (http(max_instances=0), "max_instances", "got 0"),
        ({"url": ["http://a", "http://b"], "instances": 3}, "instances", "exceeds the number of URLs, which is 2"),
        (http(max_response_bytes=0), "max_response_bytes", "got 0"),
        (http(max_response_values=10), "max_response_values", "got 10"),
        # unknown fields
        (http(prioritty=1), "", "unknown field 'prioritty' (did you mean 'priority'?)"),
        (http(URL="http://h"), "", "unknown field 'URL' (did you mean 'url'?)"),
        (http(requestTimeoutS=1), "", "did you mean 'request_timeout_s'?"),
        (http(zzz=1), "", "unknown field 'zzz' (mcp-manager help server-settings lists the known ones)"),
        (http(tmeout=1), "", "unknown field 'tmeout' (did you mean 'request_timeout_s'?)"),
        (http(tools={"zzz": 1}), "tools", "unknown field 'zzz' (the known fields are allow, deny)"),
        (http(**{"a\nb": 1}), "", r"unknown field 'a\nb'"),
        (http(auth={"type": "none", "kee": SECRET}), "auth", "unknown field 'kee' (did you mean 'key'?)"),
        (http(breaker={"open": 5}), "breaker", "unknown field 'open' (did you mean 'open_s'?)"),
        # transport
        ({}, "url", "missing (give url for an HTTP server or command for a stdio server)"),
        ({"url": None}, "url", "missing"),
        ({"transport": "stdio"}, "command", "missing"),
        (http(command="server"), "command", "cannot be combined with url"),
        (http(transport="stdio"), "url", "cannot be combined with the stdio transport"),
        (stdio(transport="http"), "command", "cannot be combined with the http transport"),
        (stdio(transport="sse"), "command", "cannot be combined with the sse transport"),
        (http(type="http", transport="sse"), "transport", "contradicts type"),
        (http(type="sse", protocol_version="stateless"), "protocol_version", "is not available over HTTP+SSE"),
        (http(type="sse", protocol_version="2026-07-28"), "protocol_version", "is not available over HTTP+SSE"),
        (http(type="ws"), "type", "the WebSocket transport is not supported yet"),
        (http(type="carrier-pigeon"), "type", "unknown transport 'carrier-pigeon'"),
        (http(type=["http"]), "type", "expected a string, got an array"),
        (http(type="http", transport="stdio"), "transport", "contradicts type"),
        (http(args=["a"]), "args", "does not apply to an HTTP server"),
        (http(env={"A": SECRET}), "env", "does not apply to an HTTP server"),
        (stdio(headers={"X-A": SECRET}), "headers", "does not apply to a stdio server"),
        (stdio(auth={"type": "api_key", "key": SECRET}), "auth", "does not apply to a stdio server"),
        (stdio(auth={"type": "none", "token": SECRET}), "auth", "does not apply to a stdio server"),
        # child process
        ({"command": ""}, "command", "must not be empty"),
        ({"command": "  "}, "command", "must not be empty"),
        ({"command": "a\x00b"}, "command", "contains a NUL character"),
        (stdio(args=["ok", f"{SECRET}\x00"]), "args[1]", "contains a NUL character"),
        (stdio(cwd=""), "cwd", "must not be empty"),
        (stdio(cwd="/a\x00"), "cwd", "contains a NUL character"),
        (stdio(env={"": "x"}), "env", "name 1 must not be empty"),
        (stdio(env={"A": "x", f"TOKEN={SECRET}": ""}), "env", "name 2 contains '='"),
        (stdio(env={"TOKEN": f"{SECRET}\x00"}), "env.TOKEN", "contains a NUL character"),
        (stdio(inherit_env=["A=B"]), "inherit_env[0]", "contains '='"),
        # text
        (http(name="a\nb"), "name", "contains a control character"),
        (http(name="\x1b[31m"), "name", "contains a control character"),
        (http(server_type="x" * 257), "server_type", "is 257 characters long"),
        (http(tags=["a", "b", "a"]), "tags[2]", "repeats the tag 'a'"),
        (http(tags=[""]), "tags[0]", "must not be empty"),
        (http(tags=["a\x7f"]), "tags[0]", "contains a control character"),
        (http(name="\ud800"), "name", "lone surrogate"),
        (http(auth={"type": "bearer", "token": SECRET + "\udfff"}), "auth.token", "lone surrogate"),
        (stdio(env={"A\ud800": SECRET}), "env", "lone surrogate"),
        (http(extras={"a": [["\ud800"]]}), "extras.a[0][0]", "lone surrogate"),
        (http(connect="sometimes"), "connect", "'sometimes' is not one of eager, lazy"),
    ],
)
def test_bad_field(source: dict[Any, Any], field: str, problem: str) -> None:
    text = message(source)
    assert text.startswith(f"{field}: " if field else "")
    assert problem in text


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "must not be empty"),
        ("localhost:8001", "does not begin with http:// or https://"),
        (f"{SECRET}:x@h", "does not begin with http:// or https://"),
        ("//h/x", "does not begin with"),
        ("ftp://h/x", "has the unsupported scheme 'ftp'"),
        ("file:///etc/passwd", "has the unsupported scheme 'file'"),
        ("ws://h/x", "WebSocket transport is not supported yet"),
        ("http://", "has no host"),
        ("http:///x", "has no host"),
        ("http://:80/x", "has no host"),
        ("http://?a=b", "has no host"),
        ("http://h:0/", "has an invalid port 0"),
        ("http://h:65536/", "has an invalid port 65536"),
        ("http://h:99999999999999999999/", "has an invalid port"),
        ("http://h:000000080/", "has an invalid port ("),
        ("http://h:-1/", "has an invalid port"),
        ("http://h:80a/", "has an invalid port"),
        ("http://h:٣/", "has an invalid port"),
        ("http://h:/", "has an invalid port"),
        ("http://[::1]:/", "has an invalid port"),
        ("http://[::1]:99999/", "has an invalid port 99999"),
        (f"http://user:{SECRET}@h/", "put credentials in auth"),
        (f"http://{SECRET}@h/", "put credentials in auth"),
        (f"http://user:{SECRET}@h:99999/", "put credentials in auth"),
        (f"http://user:{SECRET}/x@h/", "has an invalid port ("),
        ("http://user:12345678/x@h/", "has an invalid port ("),
        ("http://user:99999/x@h/", "has an invalid port ("),
        ("http://h/x#part", "contains a fragment"),
        ("http://h/a b", "percent-encode it"),
        ("http://h/\r\nX: y", "percent-encode it"),
        (" http://h/", "percent-encode it"),
        ("http://h\\@evil/", "percent-encode it"),
        ("http://a..b/", "has an invalid host name"),
        ("http://-a/", "has an invalid host name"),
        (f"http://{'a' * 64}/", "has an invalid host name"),
        (f"http://{'.'.join(['a' * 60] * 5)}/", "has an invalid host name"),
        ("http://256.1.1.1/", "has an invalid host name"),
        ("http://1.2.3/", "has an invalid host name"),
        ("http://h%73t/", "has an invalid host name"),
        ("http://[::1/", "has an invalid host name"),
        ("http://[::1]x/", "has an invalid host name"),
        ("http://[zz]/", "has an invalid host name"),
        ("http://[1:2]/", "has an invalid host name"),
        ("http://h/{x}", "has a bad placeholder"),
        ("http://h/{}", "has a bad placeholder"),
        ("http://h/{i", "has a bad placeholder"),
        ("http://h/{i:3d}", "has a bad placeholder"),
        ("http://h/{i!r}", "has a bad placeholder"),
        ("http://h/{i.__class__}", "has a bad placeholder"),
        ("http://h/{i:0999d}", "has a bad placeholder"),
    ],
)
def test_bad_url(url: str, problem: str) -> None:
    text = message({"url": url})
    assert text.startswith("url: ")
    assert problem in text


def test_bad_url_in_a_list() -> None:
    assert message({"url": ["http://a", "ftp://b"]}).startswith("url[1]: has the unsupported scheme 'ftp'")
    assert message({"url": ["http://a/{i}"]}).startswith("url[0]: has a bad placeholder")
    assert message({"url": []}).startswith("url: the list is empty")


def test_template_is_checked_for_the_last_instance() -> None:
    template = "http://localhost:900{i}/mcp"
    assert parse_server_config({"url": template, "instances": 10}, server_id="x").instances == 10
    assert message({"url": template, "instances": 11}).startswith("url: has an invalid port 90010")


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"": "x"}, "name 1 is not a header name"),
        ({"X A": "x"}, "name 1 is not a header name"),
        ({"X-A": "x", f"X-B: {SECRET}": ""}, "name 2 is not a header name"),
        ({"X-A\r\n": "x"}, "name 1 is not a header name"),
        ({"X-Ä": "x"}, "name 1 is not a header name"),
        ({"X-A": f"{SECRET}\r\nX-B: 1"}, "X-A: contains a line break or NUL character"),
        ({"X-A": f"{SECRET}\n"}, "X-A: contains a line break or NUL character"),
        ({"X-A": f"{SECRET}\x00"}, "X-A: contains a line break or NUL character"),
        ({"X-A": f" {SECRET}"}, "X-A: begins or ends with white space"),
        ({"X-A": f"{SECRET}\x07"}, "X-A: contains a control or non-ASCII character"),
        ({"X-A": f"{SECRET}é"}, "X-A: contains a control or non-ASCII character"),
        ({"X-A": "1", "x-a": SECRET}, "x-a: is given twice"),
    ],
)
def test_bad_header(headers: dict[str, str], problem: str) -> None:
    text = message(http(headers=headers))
    assert text.startswith("headers")
    assert problem in text


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "CONNECTION",
        "Mcp-Session-Id",
        "MCP-Protocol-Version",
        "Accept",
        "Content-Type",
        "Last-Event-ID",
    ],
)
def test_headers_of_the_manager(name: str) -> None:
    assert message(http(headers={name: SECRET})).startswith(f"headers.{name}: is set by the manager")
    auth = {"type": "api_key", "key": SECRET, "header": name}
    assert message(http(auth=auth)).startswith("auth.header: names a header that is set by the manager")


def test_a_trace_is_not_configured() -> None:
    told = message(http(headers={"Traceparent": SECRET}))
    assert told.startswith("headers.Traceparent: names one call")
    assert "McpManager(trace_context=...)" in told


@pytest.mark.parametrize(
    ("auth", "field", "problem"),
    [
        ({"type": "api_key"}, "auth.key", "missing"),
        ({"type": "api_key", "key": None}, "auth.key", "missing"),
        ({"type": "api_key", "key": ""}, "auth.key", "must not be empty"),
        ({"type": "api_key", "key": "k", "token": SECRET}, "auth.token", "cannot be combined with type 'api_key'"),
        ({"type": "api_key", "key": f"{SECRET}\n"}, "auth.key", "contains a line break"),
        ({"type": "api_key", "key": f"{SECRET}ß"}, "auth.key", "non-ASCII"),
        ({"type": "api_key", "key": SECRET, "header": "X Y"}, "auth.header", "is not a header name"),
        ({"type": "api_key", "key": SECRET, "header": ""}, "auth.header", "is not a header name"),
        ({"type": "bearer"}, "auth.token", "missing"),
        ({"type": "bearer", "token": ""}, "auth.token", "must not be empty"),
        ({"type": "bearer", "key": SECRET}, "auth.key", "cannot be combined with type 'bearer'"),
        ({"type": "bearer", "token": f"Bearer {SECRET}"}, "auth.token", "without 'Bearer'"),
        (
            {"type": "bearer", "token": SECRET, "header": "X-Other"},
            "auth.header",
            "cannot be combined with type 'bearer'",
        ),
        ({"type": "none", "key": SECRET}, "auth.key", "cannot be combined with type 'none'"),
        ({"token_file": "/t"}, "auth.token_file", "set auth.type to 'bearer' or 'api_key'"),
        ({"type": "oauth", "token_command": ["p"]}, "auth.token_command", "cannot be combined with type 'oauth'"),
        ({"type": "bearer", "token": SECRET, "token_file": "/t"}, "auth.token_file", "give one of token, token_file"),
        ({"type": "bearer", "token_command": [SECRET], "token_file": "/t"}, "auth.token_command", "give one of"),
        ({"type": "api_key", "key": "", "token_file": "/t"}, "auth.token_file", "give one of key"),
        ({"type": "bearer", "token_command": ["", SECRET]}, "auth.token_command[0]", "must not be empty"),
        ({"type": "bearer", "token_command": ["p", f"{SECRET}\0"]}, "auth.token_command[1]", "NUL"),
        ({"type": "bearer", "token_command": SECRET}, "auth.token_command", "expected an array"),
        ({"type": "bearer", "token_file": "/t\0"}, "auth.token_file", "NUL"),
        ({"key": SECRET}, "auth.key", "set auth.type to 'api_key'"),
        ({"token": SECRET}, "auth.token", "set auth.type to 'bearer'"),
    ],
)
def test_bad_auth(auth: dict[str, Any], field: str, problem: str) -> None:
    text = message(http(auth=auth))
    assert text.startswith(f"{field}: ")
    assert problem in text


def test_headers_of_a_program() -> None:
    assert parse_server_config(http(headers_command=["p", "x"]), server_id="a").headers_command == ("p", "x")
    assert "must not be empty" in message(http(headers_command=[" "]))
    assert "cannot be combined with auth" in message(http(headers_command=["p"], auth={"type": "oauth"}))
    assert "pass credentials to a child process in env" in message(stdio(headers_command=["p"]))
    assert "pass credentials to a child process in env" in message(stdio(auth={"type": "bearer", "token_file": "/t"}))


def test_auth_header_clashes_with_headers() -> None:
    bearer = http(auth={"type": "bearer", "token": SECRET}, headers={"authorization": SECRET})
    assert message(bearer).startswith("auth: Authorization is also given in headers")
    api_key = http(auth={"type": "api_key", "key": SECRET, "header": "X-K"}, headers={"x-k": SECRET})
    assert message(api_key).startswith("auth.header: X-K is also given in headers")


@pytest.mark.parametrize(
    "server_id", ["", " ", "a\nb", "a\x00", "\x7f", "a\u2028b", "\u202eabc", "\ud800", "x" * 257, None, 7]
)
def test_bad_server_id(server_id: Any) -> None:
    assert message(URL, server_id=server_id).startswith("server_id: ")
    with pytest.raises(ConfigError, match=r"^Invalid server config: server_id: "):
        validate_server_id(server_id)


@pytest.mark.parametrize("server_id", ["a", "docker-1", "a b/c:d", "日本", "x" * 256, "👩\u200d💻"])
def test_good_server_id(server_id: str) -> None:
    assert validate_server_id(server_id) == server_id
    assert parse_server_config(URL, server_id=server_id).name == server_id


def test_error_names_its_server() -> None:
    assert refused({}, server_id="docker-1").server_id == "docker-1"


def test_deep_mapping() -> None:
    value: Any = 1
    for _ in range(50_000):
        value = [value]
    assert "nested deeper than 32 levels" in message(http(extras={"a": value}))


def test_documented_configuration() -> None:
    config = parse_server_config(json.dumps(DOCUMENTED), server_id="docker-1")
    assert config == ServerConfig(
        name="docker-server",
        server_type="infrastructure",
        url="http://localhost:8001",
        auth=AuthConfig(type="api_key", key="secret"),
        priority=10,
        tags=("docker", "production"),
    )
    assert config.auth.request_header() == ("X-API-Key", "secret")
    assert config.transport == "http"
    assert config.instances == 1


@pytest.mark.parametrize("auth", [None, {}, {"type": "none"}, {"type": "none", "key": None, "token": ""}])
def test_no_authentication(auth: Any) -> None:
    assert parse_server_config(http(auth=auth), server_id="x").auth.request_header() is None
    assert parse_server_config(stdio(auth=auth), server_id="x").auth.request_header() is None


def test_bearer() -> None:
    config = parse_server_config(http(auth={"type": "bearer", "token": "abc"}), server_id="x")
    assert config.auth.request_header() == ("Authorization", "Bearer abc")


@pytest.mark.parametrize("spelling", ["http", "streamable-http", "streamable_http", "streamableHttp"])
@pytest.mark.parametrize("field", ["type", "transport"])
def test_spellings_of_http(field: str, spelling: str) -> None:
    assert parse_server_config(http(**{field: spelling}), server_id="x").transport == "http"


@pytest.mark.parametrize("field", ["type", "transport"])
def test_sse_is_chosen_by_name_and_survives_a_second_check(field: str) -> None:
    config = parse_server_config(http(**{field: "sse"}), server_id="x")
    assert config.transport == "sse"
    assert check_server_config(config, server_id="x").transport == "sse"


@pytest.mark.parametrize(
    "fields", [{}, {"type": "stdio"}, {"transport": "stdio"}, {"type": "stdio", "transport": "stdio"}]
)
def test_stdio(fields: dict[str, str]) -> None:
    config = parse_server_config(stdio(args=["-v"], env={"A": ""}, cwd="/tmp", **fields), server_id="x")
    assert (config.transport, config.command, config.args, config.env, config.cwd) == (
        "stdio",
        "server",
        ("-v",),
        {"A": ""},
        "/tmp",
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "HTTPS://Example.COM:65535/a/b?c=d&e",
        "http://127.0.0.1:1/",
        "http://[::1]:8080/mcp",
        "http://my_service.internal./mcp",
        "http://bücher.example/mcp",
        "http://h/%20@x?y=a@b:c",
    ],
)
def test_good_url(url: str) -> None:
    config = parse_server_config({"url": url}, server_id="x")
    assert config.url == url
    assert config.instance_url(5) == url


def test_bytes_with_byte_order_mark() -> None:
    assert parse_server_config(b'\xef\xbb\xbf{"url": "http://h"}', server_id="x").url == "http://h"


def test_subclasses_of_plain_types_become_plain() -> None:
    class Word(enum.StrEnum):
        URL = "http://h"

    class Level(enum.IntEnum):
        HIGH = 9

    config = parse_server_config({"url": Word.URL, "priority": Level.HIGH}, server_id="x")
    assert type(config.url) is str
    assert type(config.priority) is int


def test_lenient_keeps_foreign_fields(caplog: pytest.LogCaptureFixture) -> None:
    foreign = {
        "timeout": 30_000,
        "disabled": False,
        "envFile": ".env",
        "oauth": {},
        "description": "",
        "alwaysAllow": ["a"],
        "odd": object(),
    }
    config = parse_server_config(http(**foreign), server_id="x", lenient=True)
    assert config.extras == foreign
    assert config.request_timeout_s == 60.0
    assert caplog.records == []


def test_lenient_warns_of_misspelt_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mcp_manager"):
        config = parse_server_config(http(prioritty=3), server_id="x", lenient=True)
    assert config.extras == {"prioritty": 3}
    assert [record.getMessage() for record in caplog.records] == [
        "prioritty: unknown field, ignored; did you mean 'priority'?"
    ]


def test_lenient_sets_aside_what_does_not_apply(caplog: pytest.LogCaptureFixture) -> None:
    config = parse_server_config(http(env={"A": SECRET}, args=[]), server_id="x", lenient=True)
    assert config.env == {}
    assert config.extras == {"env": {"A": SECRET}}
    assert [record.getMessage() for record in caplog.records] == ["env: does not apply to an HTTP server, ignored"]


def test_lenient_is_strict_about_known_fields() -> None:
    assert message(http(priority=300), lenient=True).startswith("priority: ")
    assert message(http(auth={"type": "bearer", "tokn": SECRET}), lenient=True).startswith("auth: unknown field 'tokn'")


def test_check_of_a_configuration_built_by_hand() -> None:
    extras = {"any": object()}
    config = ServerConfig(command="server", args=("a",), extras=extras)
    checked = check_server_config(config, server_id="x")
    assert checked == msgspec.structs.replace(config, name="x")
    for bad, field in [
        (ServerConfig(), "url"),
        (ServerConfig(url="http://h", priority=300), "priority"),
        (ServerConfig(url="http://h", priority="1"), "priority"),  # type: ignore[arg-type]
        (ServerConfig(url="http://h", headers={"A": f"{SECRET}\n"}), "headers.A"),
        (ServerConfig(url="http://h", auth=AuthConfig(type="bearer")), "auth.token"),
        (ServerConfig(url=object()), "url"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(ConfigError, match=f"^Invalid server config: {field}: ") as caught:
            check_server_config(bad, server_id="x")
        assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="expected a ServerConfig, got an object"):
        check_server_config({"url": "http://h"}, server_id="x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"auth": {"type": "api_key", "key": 77123456}},
        {"auth": {"type": "bearer", "token": 77123456}},
        {"headers": {"X-Token": 77123456}},
        {"headers": {"X-Token": 77123456.5}},
    ],
)
def test_a_secret_that_is_a_number_is_not_quoted_either(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_server_config({"url": "http://localhost/mcp", **fields}, server_id="a")
    assert "77123456" not in f"{caught.value!s} {caught.value!r} {caught.value.args}"
    assert "a number" in str(caught.value)
