"""What a server asks for in the middle of a request, and how the next try answers it."""

from __future__ import annotations

import msgspec
import pytest

from mcp_manager.protocol.multi_round import MalformedResult, read_input_required, retry_params

QUESTION = b'"inputRequests":{"who":{"method":"elicitation/create","params":{"message":"?"}}}'


@pytest.mark.parametrize("state", [b'"opaque"', b'"\\u0041 \\/ {}"', b'""'])
def test_state_goes_back_as_it_was_written(state: bytes) -> None:
    asked = read_input_required(b'{"resultType":"input_required",' + QUESTION + b',"requestState":' + state + b"}")
    again = retry_params(b'{"name":"t"}', asked, {"who": {"action": "decline"}})
    assert again.endswith(b'"requestState":' + state + b"}")


@pytest.mark.parametrize("state", [b"", b',"requestState":null'])
def test_without_state_none_goes_back(state: bytes) -> None:
    asked = read_input_required(b"{" + QUESTION + state + b"}")
    again = msgspec.json.decode(retry_params(b'{"name":"t"}', asked, {"who": {"action": "decline"}}))
    assert again == {"name": "t", "inputResponses": {"who": {"action": "decline"}}}


def test_state_alone_is_enough_and_goes_back_without_answers() -> None:
    asked = read_input_required(b'{"requestState":"s"}')
    assert msgspec.json.decode(retry_params(None, asked, {})) == {"requestState": "s"}


def test_answers_and_state_of_another_round_are_left_out() -> None:
    asked = read_input_required(b"{" + QUESTION + b"}")
    again = msgspec.json.decode(retry_params(b'{"requestState":"old","inputResponses":{"x":{}}}', asked, {"who": {}}))
    assert again == {"inputResponses": {"who": {}}}


@pytest.mark.parametrize(
    "result", [b"{}", b'{"requestState":null}', b'{"requestState":1}', b'{"requestState":{}}', b"[]"]
)
def test_what_asks_nothing_or_keeps_no_string_is_refused(result: bytes) -> None:
    with pytest.raises(MalformedResult):
        read_input_required(result)
