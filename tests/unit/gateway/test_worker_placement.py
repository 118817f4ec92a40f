"""Which worker takes a request."""

from __future__ import annotations

import pytest

from mcp_manager._core.jsonrpc import scan
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints.base import Endpoint
from mcp_manager.gateway.endpoints.single import SingleServer
from mcp_manager.gateway.workers.placement import concerns_all, home_of_messages, home_of_stream
from mcp_manager.protocol.revisions import Era

CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}'
CANCEL = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
SET_LEVEL = b'{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"info"}}'
SUBSCRIBE = b'{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"a:b"}}'
ANSWER = b'{"jsonrpc":"2.0","id":"3.x","result":{}}'


def client(**capabilities: object) -> Client:
    return Client(Era.HANDSHAKE, "2025-11-25", capabilities, session="s", worker=3)


@pytest.fixture
def endpoint() -> Endpoint:
    made = SingleServer.__new__(SingleServer)
    made._server_id = "files"
    return made


@pytest.mark.parametrize("message", [CALL, CANCEL, SET_LEVEL, SUBSCRIBE, ANSWER])
def test_all_of_a_client_that_can_be_asked_is_at_its_home(message: bytes, endpoint: Endpoint) -> None:
    assert home_of_messages([scan(message)], client(elicitation={}), endpoint) == 3


@pytest.mark.parametrize(
    ("message", "home", "is_for_all"),
    [(CALL, None, False), (CANCEL, None, True), (SET_LEVEL, None, True), (SUBSCRIBE, 3, False), (ANSWER, 3, False)],
)
def test_of_other_clients_only_what_is_kept_is_at_home(
    message: bytes, home: int | None, is_for_all: bool, endpoint: Endpoint
) -> None:
    assert home_of_messages([scan(message)], client(), endpoint) == home
    assert concerns_all([scan(message)]) is is_for_all


def test_calls_to_servers_that_remember_something_are_at_home(endpoint: Endpoint) -> None:
    assert home_of_messages([scan(CALL)], client(), endpoint, frozenset({"files"})) == 3
    assert home_of_messages([scan(CALL)], client(), endpoint, frozenset({"others"})) is None


@pytest.mark.parametrize(
    ("event", "worker"),
    [(None, 3), ("", 3), ("1.abc.7", 1), ("x.abc.7", 3), ("٣.a.1", 3), ("9999999.a.1", 3), ("-1.a.1", 3)],
)
def test_a_stream_is_where_its_events_were_made(event: str | None, worker: int) -> None:
    assert home_of_stream(event, client()) == worker
