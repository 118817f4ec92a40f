"""Which request a text that is no message was meant to answer."""

from __future__ import annotations

import pytest

from mcp_manager.transports._received import broken_reply_to


@pytest.mark.parametrize("size", [0, 100_000])
@pytest.mark.parametrize(
    "form", [b'{"id":7,"jsonrpc":"2.0","result":{"rows":[%b]},}', b'{"jsonrpc":"2.0","result":{"rows":[%b]},"id":7,}']
)
def test_a_broken_reply_is_known_by_the_id_at_either_end_however_long_it_is(form: bytes, size: int) -> None:
    assert broken_reply_to(form % (b"0," * size), (7).__eq__) == 7


def test_not_every_id_within_a_long_broken_reply_is_looked_at() -> None:
    asked: list[int] = []
    broken_reply_to(b'{"id":7,"result":[' + b'{"id":8},' * 100_000, lambda found: bool(asked.append(found)))
    assert 0 < len(asked) < 2000
