"""The ids of requests, which are written into frames: every number of 64 bits, the negative ones too."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from mcp_manager._core.call_path import RequestIds
from mcp_manager._core.http_message import Exchange, Request
from mcp_manager._core.jsonrpc import scan
from mcp_manager._core.stateless_frame import StatelessFrame

LOWEST, HIGHEST = -(2**63), 2**63 - 1
NUMBERS = [0, 1, 9, 10, -1, -9, -10, 2**62, 1 - 2**62, LOWEST, LOWEST + 1, HIGHEST]
PARAMS = b'{"name":"t"}'


def by_request(number: int) -> Exchange:
    return Request(b'"tools/call"', PARAMS).exchange(number, 0)


def by_message(number: int) -> Exchange:
    return scan(b'{"method":"tools/call","params":%b}' % PARAMS).exchange(number, 0)


def by_stateless_frame(number: int) -> Exchange:
    frame = StatelessFrame(b'{"_meta":{}', {b'"tools/call"': (b"", b"name")}, {})
    exchange = frame.exchange(Request(b'"tools/call"', PARAMS), number, 0)
    assert exchange is not None
    return exchange


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("make", [by_request, by_message, by_stateless_frame])
def test_every_number_of_64_bits_is_written_as_it_is(make: Callable[[int], Exchange], number: int) -> None:
    exchange = make(number)
    decoded = json.loads(exchange.frame)
    assert (decoded["id"], decoded["method"], exchange.request_id) == (number, "tools/call", number)
    assert scan(exchange.frame).id == number


@pytest.mark.parametrize("number", [LOWEST - 1, HIGHEST + 1])
def test_more_than_64_bits_are_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        by_request(number)
    with pytest.raises(OverflowError):
        RequestIds(number)
