"""Messages in what was received: bounded in every way, and which request a text that is none was meant to answer."""

from __future__ import annotations

import pytest

from mcp_manager._core.jsonrpc import FrameError
from mcp_manager.transports.received import MAX_BATCH, broken_reply_to, read_messages


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


PING = b'{"jsonrpc":"2.0","id":%d,"method":"ping"}'


def ignore(kind: str, detail: str) -> None:
    """Take no note of a fault."""


def test_a_batch_has_a_bounded_number_of_messages() -> None:
    pings = [PING % number for number in range(MAX_BATCH + 1)]
    assert len(read_messages(b"[" + b",".join(pings[1:]) + b"]", ignore)) == MAX_BATCH
    with pytest.raises(FrameError, match=f"a batch of more than {MAX_BATCH} messages"):
        read_messages(b"[" + b",".join(pings) + b"]", ignore)


@pytest.mark.parametrize("prefix", [b"", b" \n", b"\xef\xbb\xbf"], ids=["plain", "space", "mark"])
def test_there_are_no_batches_where_the_revision_has_none(prefix: bytes) -> None:
    batch = prefix + b"[" + PING % 1 + b"," + PING % 2 + b"]"
    assert [each.id for each in read_messages(batch, ignore)] == [1, 2]
    assert [each.id for each in read_messages(prefix + b"[" + PING % 3 + b"]", ignore, may_batch=False)] == [3]
    with pytest.raises(FrameError, match="a batch, which the negotiated revision does not allow"):
        read_messages(batch, ignore, may_batch=False)
    assert read_messages(prefix + PING % 1, ignore, may_batch=False)[0].id == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":0' + b',"a":1' * 2000 + b"}", "too many members"),
        (
            b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""' + rb',"\u0061":1' * 2000 + b"}}",
            "too many members",
        ),
        (b'{"jsonrpc":"2.0","result":0,"id":"' + b"1" * 100_000 + b'"}', "id is too long"),
        (b'{"jsonrpc":"2.0","method":"' + rb"\n" * 100_000 + b'"}', "method is too long"),
        (b'{"jsonrpc":"' + rb"\u0032" * 100_000 + b'","id":1,"result":0}', "jsonrpc is too long"),
        (
            '{"jsonrpc":"2.0","id":1,"result":"'.encode("utf-16") + b"a\0" * 2_200_000 + b'"\0}\0',
            "not in UTF-8, and too long",
        ),
    ],
    ids=["members", "members of an error", "id", "method", "version", "UTF-16"],
)
def test_what_a_message_never_has_is_not_read_to_its_end(text: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        read_messages(text, ignore)


def test_names_in_escapes_are_the_same_names() -> None:
    (reply,) = read_messages(rb'{"\u006asonrpc":"2.0","i\u0064":7,"\u0072\u0065\u0073ult":{}}', ignore)
    assert (reply.id, reply.result, reply.oddity) == (7, b"{}", None)
    (reply,) = read_messages(rb'{"jsonrpc":"2.0","id":7,"err\u006Fr":{"c\u006fde":-1,"m\u0065ssage":"no"}}', ignore)
    assert reply.error_code == -1
    (reply,) = read_messages(
        rb'{"jsonrpc":"2.0","id":7,"result":{},"resu\lt":0,"\n":1,"r\u0165sult":2}'.replace(rb"\l", b"l"), ignore
    )
    assert reply.result == b"0"


def test_many_constants_are_replaced_in_one_piece() -> None:
    text = b'{"jsonrpc":"2.0","id":1,"result":[' + b",".join([b"NaN", b"-Infinity", b'"NaN"'] * 1000) + b"]}"
    faults: list[str] = []
    (reply,) = read_messages(text, lambda kind, _: faults.append(kind))
    assert reply.result == b"[" + b",".join([b"null", b"-1e999", b'"NaN"'] * 1000) + b"]"
    assert faults == ["NaN or Infinity, which are not JSON"]
