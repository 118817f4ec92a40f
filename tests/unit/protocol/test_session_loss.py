"""Which refusals may mean that a session is lost, what confirms it, and what they prove."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.errors import AuthError, CallError, OverloadedError, ProtocolError
from mcp_manager.protocol.session_loss import (
    UNANSWERED,
    Refusal,
    confirms_loss,
    may_mean_loss,
    needs_second_opinion,
    proves_unexecuted,
)
from mcp_manager.session.loss_detection import refusal_of

REFUSALS = st.builds(
    Refusal,
    st.sampled_from([0, 200, 202, 204]) | st.integers(300, 599),
    st.none() | st.integers(-33000, 33000),
    st.sampled_from(["", "Session not found", "Connection closed", "Server not initialized"]),
)


@pytest.mark.parametrize(
    ("refusal", "suspicious"),
    [
        (Refusal(404), True),
        (Refusal(404, -32001), True),
        (Refusal(400), True),
        (Refusal(400, 17), True),
        (Refusal(401), True),
        (Refusal(406), True),
        (Refusal(409), True),
        (Refusal(410), True),
        (Refusal(422), True),
        (Refusal(499), True),
        (Refusal(403), False),
        (Refusal(408), False),
        (Refusal(413), False),
        (Refusal(425), False),
        (Refusal(429), False),
        (Refusal(301), False),
        (Refusal(500), False),
        (Refusal(500, -32001), False),
        (Refusal(503), False),
        # Whoever knows the method, or knows that there is none, has read the request.
        (Refusal(200, -32601), False),
        (Refusal(404, -32601), False),
        (Refusal(200, -32042), False),
        # In a 200 or on a stream: the range that JSON-RPC reserves, and nothing beyond.
        (Refusal(200, -32000), True),
        (Refusal(0, -32001), True),
        (Refusal(200, -32099), True),
        (Refusal(200, -32600), True),
        (Refusal(200, -32602), True),
        (Refusal(200, -32603), True),
        (Refusal(200, -32768), True),
        (Refusal(200, -32769), False),
        (Refusal(200, -31999), False),
        (Refusal(200, 0), False),
        (Refusal(200, 32600), False),
        # A success whose body is no reply.
        (Refusal(200), True),
        (Refusal(202), True),
        (UNANSWERED, False),
    ],
)
def test_what_may_mean_that_the_session_is_lost(refusal: Refusal, suspicious: bool) -> None:
    assert may_mean_loss(refusal) is suspicious


def test_a_challenge_makes_a_401_one_of_the_credentials() -> None:
    assert may_mean_loss(Refusal(401))
    assert not may_mean_loss(Refusal(401), challenged=True)
    assert may_mean_loss(Refusal(400), challenged=True)


@pytest.mark.parametrize(
    ("refusal", "ping", "confirmed"),
    [
        (Refusal(400), Refusal(404), True),
        (Refusal(400, -32602), Refusal(400, -32000), True),
        (Refusal(200, -32001), Refusal(200, -32001), True),
        (Refusal(0, -32001), Refusal(200, -32001), True),
        (Refusal(200), Refusal(202), True),
        (Refusal(200, -32602), Refusal(200, -32603), False),
        (Refusal(200, -32602), Refusal(400, -32602), False),
        (Refusal(400), Refusal(200, -32000), False),
        (Refusal(200, -32000), Refusal(200), False),
        (Refusal(404), UNANSWERED, True),
        (Refusal(400), UNANSWERED, False),
        (Refusal(200, -32001), UNANSWERED, False),
    ],
)
def test_what_confirms_it(refusal: Refusal, ping: Refusal, confirmed: bool) -> None:
    assert confirms_loss(ping, refusal) is confirmed


def test_what_no_error_can_answer_is_confirmed_by_any_refusal() -> None:
    assert confirms_loss(Refusal(200, -32001), Refusal(400), is_of_request=False)
    assert not confirms_loss(UNANSWERED, Refusal(400), is_of_request=False)
    assert confirms_loss(UNANSWERED, Refusal(404), is_of_request=False)


@pytest.mark.parametrize(
    ("refusal", "ping", "needed"),
    [
        (Refusal(400, -32000, "who?"), Refusal(400, -32000, "who?"), False),
        (Refusal(400, -32000, "no such tool"), Refusal(400, -32000, "no such method"), True),
        # Of a body that is no JSON-RPC error, nobody knows what it says.
        (Refusal(400), Refusal(400), True),
        (Refusal(404, None, "session 1, request 1"), Refusal(404, None, "session 1, request 2"), False),
        (Refusal(400), Refusal(404), True),
        # A ping is always refused in the words in which pings are.
        (Refusal(400, None, "no pings", is_of_ping=True), Refusal(400, None, "no pings"), True),
        (Refusal(404, is_of_ping=True), Refusal(404), True),
    ],
)
def test_where_a_refused_ping_may_be_about_pings(refusal: Refusal, ping: Refusal, needed: bool) -> None:
    assert needs_second_opinion(ping, refusal) is needed


@pytest.mark.parametrize(
    ("refusal", "proven"),
    [
        (Refusal(404), True),
        (Refusal(400, -32603, "Internal error"), True),
        (Refusal(200, -32600, "anything"), True),
        (Refusal(200, -32602, "anything"), True),
        (Refusal(200, -32700, "anything"), True),
        (Refusal(200, -32001, "Session not found"), True),
        (Refusal(200, -32000, "SERVER NOT INITIALIZED"), True),
        (Refusal(0, -32002, "not initialised yet"), True),
        (Refusal(200, -32000, "Connection closed"), False),
        (Refusal(200, -32001, "Request timed out"), False),
        (Refusal(200, -32603, "no such session"), False),
        (Refusal(200, None, "your session has expired"), False),
    ],
)
def test_what_proves_that_nothing_was_executed(refusal: Refusal, proven: bool) -> None:
    assert proves_unexecuted(refusal) is proven


@given(REFUSALS)
def test_a_refusal_that_is_repeated_for_a_ping_confirms_itself(refusal: Refusal) -> None:
    assert not may_mean_loss(refusal) or confirms_loss(refusal, refusal)


@given(REFUSALS, REFUSALS)
def test_a_failure_of_the_server_says_nothing_of_its_sessions(refusal: Refusal, ping: Refusal) -> None:
    if refusal.status >= 500:
        assert not may_mean_loss(refusal)
    if may_mean_loss(refusal) and may_mean_loss(ping) and confirms_loss(ping, refusal):
        # Nothing but a refusal in the same way confirms.
        assert ping.is_status == refusal.is_status
        assert ping.is_status or ping.code == refusal.code


@given(REFUSALS)
def test_nothing_is_proven_by_what_a_gateway_says_of_requests_under_way(refusal: Refusal) -> None:
    if not refusal.is_status and refusal.text == "Connection closed" and proves_unexecuted(refusal):
        assert refusal.code in (-32700, -32600, -32602)


def error(kind: type[CallError], status: int | None, code: int | None = None, *, challenged: bool = False) -> CallError:
    made = kind("what was said")
    made.http_status, made.rpc_code = status, code
    if isinstance(made, AuthError):
        made.is_challenged = challenged
    return made


def test_an_error_stands_for_what_was_refused() -> None:
    assert refusal_of(error(ProtocolError, 400, -32000)) == Refusal(400, -32000, "what was said")
    assert refusal_of(error(AuthError, 401)) == Refusal(401, None, "what was said")
    assert refusal_of(error(AuthError, 401, challenged=True)) is None
    assert refusal_of(error(AuthError, 403)) is None
    assert refusal_of(error(OverloadedError, 429)) is None
    assert refusal_of(error(ProtocolError, 500)) is None
    # Nothing was answered, or what was makes no sense as HTTP.
    assert refusal_of(error(ProtocolError, None)) is None
    assert refusal_of(error(ProtocolError, None, -32001)) == Refusal(0, -32001, "what was said")
