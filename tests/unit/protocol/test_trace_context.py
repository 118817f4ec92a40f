"""The trace context of a request: which of its values go where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from mcp_manager._core.http_message import Request
from mcp_manager.protocol.trace_context import in_trace, read_trace

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def fields_of(trace: Mapping[str, Any]) -> dict[str, str]:
    fields = in_trace(Request(b'"m"', None), trace, replaces=True).fields
    assert fields is not None
    return dict(line.split(": ", 1) for line in fields.decode().splitlines())


def meta_of(request: Request) -> Any:
    body = msgspec.json.decode(request.exchange(1, 10**10).frame)
    return body["params"]["_meta"]


def test_values_that_are_long_stay_out_of_the_header_fields() -> None:
    trace = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=" + "v" * 10_000}
    assert fields_of(trace) == {"traceparent": PARENT, "tracestate": "a=1"}
    assert meta_of(in_trace(Request(b'"m"', None), trace, replaces=True)) == trace
    written = in_trace(Request(b'"m"', b'{"_meta":{"baggage":"%b"}}' % (b"v" * 9_000)), {}, replaces=False)
    assert not written.fields
    # Long together, too.
    half = {"traceparent": PARENT, "tracestate": "a=" + "b" * 5_000, "baggage": "k=" + "v" * 5_000}
    assert fields_of(half).keys() == {"traceparent", "tracestate"}
    assert len(fields_of({**half, "tracestate": "a=1"})) == 3


@pytest.mark.parametrize("value", ["", "a\r\nb: 1", "a\tb", "\u00e9", 7, None, "a\0"])
def test_a_value_that_is_no_field_value_stays_out_of_the_header_fields(value: Any) -> None:
    assert fields_of({"traceparent": PARENT, "baggage": value}) == {"traceparent": PARENT}


def test_what_cannot_be_encoded_is_left_out() -> None:
    given = {"traceparent": PARENT, "tracestate": "a=\u00e9", "baggage": "k=\udc80", "\udc80": "x"}
    assert read_trace(lambda: given) == {"traceparent": PARENT, "tracestate": "a=\u00e9"}
