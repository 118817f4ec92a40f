"""Limits of principals, and the file of the audit log."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import msgspec
import pytest

from mcp_manager.config import (
    AuditConfig,
    ClientAuthConfig,
    ClientLimitConfig,
    ServeConfig,
    ServerCredentialsConfig,
)
from mcp_manager.config.redaction import credentials_in
from mcp_manager.errors import ConfigError
from mcp_manager.gateway.security.audit import AuditLog
from mcp_manager.gateway.security.audit_lines import named, outcome_of, shown_arguments, shown_name
from mcp_manager.gateway.security.limits import LimitReachedError, Limits
from mcp_manager.gateway.security.principal import Principal

ANNE, BOB = Principal("anne", claims={"groups": ["support"]}), Principal("bob")


class Line:
    def __init__(self, number: int) -> None:
        self.number = number

    def line(self) -> bytes:
        return json.dumps({"number": self.number}).encode()


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_bytes().splitlines() if line]


def test_each_principal_has_its_own_rate() -> None:
    now = [0]
    limits = Limits([ClientLimitConfig(rate=2.0, burst=2)], clock=lambda: now[0])
    anne, bob = limits.of(ANNE), limits.of(BOB)
    counters = anne.scope("fleet").counters
    for _ in range(2):
        anne.begin(counters)
        anne.end(counters)
    with pytest.raises(LimitReachedError) as refused:
        anne.begin(counters)
    assert refused.value.retry_after_s == 0.5 and refused.value.fields == b"Retry-After: 1\r\n"
    assert (anne.running, counters[0].running) == (0, 0)
    bob.begin(bob.scope("fleet").counters)
    now[0] += 500_000_000
    anne.begin(counters)
    assert (anne.running, counters[0].running) == (1, 1)


def test_requests_and_streams_are_given_back() -> None:
    limits = Limits([ClientLimitConfig(claims={"groups": "support"}, views=("v",), max_concurrent=1, max_streams=1)])
    anne = limits.of(ANNE)
    assert not limits.of(BOB).counters and not anne.scope("fleet").counters
    counters = anne.scope("view/v").counters
    for _ in range(3):
        anne.begin(counters)
        with pytest.raises(LimitReachedError):
            anne.begin(counters)
        anne.end(counters)
        anne.open_stream(counters)
        with pytest.raises(LimitReachedError):
            anne.open_stream(counters)
        anne.close_stream(counters)
    assert not anne.is_used


def test_tools_have_limits_of_their_own() -> None:
    limits = Limits([ClientLimitConfig(tools=("s__slow*",), max_concurrent=1)])
    scope = limits.of(ANNE).scope("fleet")
    assert scope.has_tools and not scope.counters
    assert len(scope.of_tool("s", "slow_compute")) == 1 and not scope.of_tool("s", "quick")


def test_a_limit_that_stays_goes_on_counting() -> None:
    limit = ClientLimitConfig(max_concurrent=1)
    limits = Limits([limit])
    anne = limits.of(ANNE)
    anne.begin(anne.scope("fleet").counters)
    limits.apply([ClientLimitConfig(rate=5.0), ClientLimitConfig(max_concurrent=1)])
    again = limits.of(ANNE)
    with pytest.raises(LimitReachedError):
        again.begin(again.scope("fleet").counters)


async def test_lines_are_whole_when_the_file_is_renamed_or_torn(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(AuditConfig(path=str(path)))
    log.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for number in range(100):
        log.write(Line(number))
    await log.flush()
    assert numbers(path) == list(range(100))
    path.rename(tmp_path / "audit.log.1")
    path.write_bytes(b'{"number":7')
    log.write(Line(100))
    await log.aclose()
    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"number":7' and json.loads(whole) == {"number": 100}
    assert (log.written, log.dropped) == (101, 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
async def test_a_full_disk_loses_lines_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(AuditConfig(path="/dev/full", max_queue=2))
    for number in range(5):
        log.write(Line(number))
    assert log.dropped == 3
    log.start()
    log._wake.set()
    await log.aclose()
    assert (log.written, log.dropped) == (0, 5)
    assert [each.event for each in caplog.records] == ["audit_dropped", "audit_failed"]  # type: ignore[attr-defined]


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make its directory"):
        AuditLog(AuditConfig(path=str(tmp_path / "none" / "audit.log"))).start()


def test_arguments_are_written_without_credentials() -> None:
    shown = shown_arguments(msgspec.Raw(b'{"city":"Bern","login":{"password":"hunter22"}}'))
    assert shown is not None and json.loads(bytes(shown)) == {"city": "Bern", "login": {"password": "***"}}
    serve = ServeConfig(
        session_keys=("a key that seals, with \\ and more",),
        auth=ClientAuthConfig(type="introspection", client_secret="sentinel-1"),
        credentials={"a": ServerCredentialsConfig(type="exchange", client_secret="sentinel-2")},
    )
    secrets = sorted(credentials_in(serve), key=len, reverse=True)
    escaped = b'{"t":"\\u0073entinel-1, sentinel-2","l":[{"k":"a key that seals, with \\\\ and more"}]}'
    shown = shown_arguments(msgspec.Raw(escaped), secrets)
    assert shown is not None and json.loads(bytes(shown)) == {"t": "***, ***", "l": [{"k": "***"}]}
    assert shown_name("file:///x?token=sentinel-1", lambda: secrets) == "file:///x?token=***"


def test_replies_say_how_requests_ended() -> None:
    assert outcome_of(b'{"id":1,"result":{"content":[]}}').outcome == "ok"
    assert outcome_of(b'{"id":1,"result":{"isError":true}}').outcome == "tool_error"
    failed = outcome_of(b'{"id":1,"error":{"code":-32003,"data":{"source":"gateway","delivery":"unknown"}}}')
    assert (failed.outcome, failed.code, failed.delivery) == ("error", -32003, "unknown")


def test_another_token_of_a_principal_begins_no_limit_anew() -> None:
    now = [0]
    limits = Limits([ClientLimitConfig(claims={"groups": "support"}, rate=1.0)], clock=lambda: now[0])
    other = Principal("anne")
    anne = limits.of(ANNE)
    anne.begin(anne.scope("fleet").counters)
    assert not limits.of(other).counters
    again = limits.of(ANNE)
    assert again is anne
    with pytest.raises(LimitReachedError):
        again.begin(again.scope("fleet").counters)


async def test_a_flood_of_refused_requests_leaves_room_for_calls(tmp_path: Path) -> None:
    log = AuditLog(AuditConfig(path=str(tmp_path / "audit.log"), max_queue=8))
    for number in range(20):
        log.write_denial(Line(number))
    for number in range(100, 106):
        log.write(Line(number))
    assert log.dropped == 18
    log.start()
    await log.aclose()
    assert numbers(tmp_path / "audit.log") == [0, 1, *range(100, 106)]


def test_claims_and_tools_are_those_of_the_rules_of_access() -> None:
    config = ClientLimitConfig(claims={"realm_access.roles": "slow"}, tools=("mail__*",), max_concurrent=1)
    slow = Principal("slow", claims={"realm_access": {"roles": ["slow"]}})
    scope = Limits([config]).of(slow).scope("fleet")
    assert scope.has_tools
    assert len(scope.of_tool("mail", "send")) == 1
    # No other server brings its tools under the pattern by a name that begins like the server.
    assert scope.of_tool("other", "mail__send") == ()
    assert not Limits([config]).of(BOB).scope("fleet").has_tools
    # A text is a single value, unless it is the scope.
    words = Limits([ClientLimitConfig(claims={"team": "red"}, max_concurrent=1)])
    assert words.of(Principal("a", claims={"team": "red blue"})).counters == ()


@pytest.mark.parametrize(
    "more", ['"ref":1', '"ref":{"name":2}', '"_meta":"x"', '"_meta":[]', '"_meta":{"traceparent":1}']
)
def test_no_other_param_hides_the_tool_that_a_limit_counts(more: str) -> None:
    call = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{more},"name":"costly","arguments":{{}}}}}}'
    assert named(call.encode()).name == "costly"


def test_what_requests_name() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    reference = b'{"id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"},"_meta":%b}}'
    found = named(reference % b'{"traceparent":"00-%b-b7ad6b7169203331-01"}' % trace.encode())
    assert (found.name, found.trace_id) == ("p", trace)
