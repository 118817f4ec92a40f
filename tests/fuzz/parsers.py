"""What reads text: random messages, what mutations make of them, and a second opinion wherever there is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from mcp_manager._core.http_message import Request
from mcp_manager._core.jsonrpc import (
    FrameError,
    Message,
    notification_frame,
    request_frame,
    scan,
    scan_batch,
    scan_replies,
    scan_reply,
)
from mcp_manager._core.mending import (
    mended_error,
    mended_response,
    says_default,
    without_constants,
    without_lone_surrogates,
)
from mcp_manager._core.sse import SseLimitError, SseParser
from mcp_manager._core.stateless_frame import StatelessFrame, says_complete

from ..support.json_delimiting import Refused, delimited, read_result
from ..support.models_sse import parse_stream
from .texts import mutated, pieces, some_json, some_message

__all__ = ["fuzz_events", "fuzz_mending", "fuzz_messages", "fuzz_replies", "fuzz_stateless_frame"]

Log = Callable[[str], None]


def _read_parts(dice: Random, message: Message, read: Callable[[bytes], Message]) -> None:
    """Ask a message for all it has, then take it apart."""
    parts = (message.frame, message.id_raw, message.method_raw, message.params, message.result, message.error)
    assert all(part is None or type(part) is bytes for part in parts)
    repr(message)
    assert message.result_buffer is None or bytes(message.result_buffer) == message.result
    new_id = dice.choice([b"1", b'"x"', b"12345678901234567890"])
    spliced = message.with_id(new_id)
    assert read(spliced).id_raw == new_id
    if message.method_raw is not None:
        assert scan(message.exchange(-5, 0).frame).id == -5
    way = dice.randrange(4)
    if way == 0:
        assert message.take_frame(new_id) == spliced
    elif way == 1:
        assert message.take_text(new_id).encode() == spliced
    elif way == 2:
        assert message.take_frame() == parts[0]
    message.recycle()
    assert message.params is None and message.result_buffer is None


def fuzz_messages(dice: Random, log: Log) -> None:
    """Requests, notifications and responses, alone and in batches, held against :mod:`json`."""
    for _ in range(20):
        text = some_message(dice)
        if dice.random() < 0.2:
            text = b"[" + b",".join(some_message(dice) for _ in range(dice.randrange(4))) + b"]"
        text = mutated(dice, text)
        depth, most = dice.choice([512, 512, 3, 0, 4096]), dice.choice([0, 0, 50])
        log(f"scan_batch({text!r}, max_depth={depth}, max_bytes={most})")
        try:
            messages = scan_batch(text, max_depth=depth, max_bytes=most, require_version=dice.random() < 0.5)
        except FrameError as error:
            assert 0 <= error.offset <= len(text)
            continue
        decoded = json.loads(text)
        every = decoded if isinstance(decoded, list) else [decoded]
        assert len(every) == len(messages)
        for message, said in zip(messages, every, strict=True):
            assert json.loads(message.frame) == said
            assert message.method == said.get("method") and message.id == said.get("id")
            for name in ("params", "result", "error"):
                raw = getattr(message, name)
                assert (raw is None) == (name not in said) and (raw is None or json.loads(raw) == said[name])
            _read_parts(dice, message, scan)
        frame = request_frame(b'"m"', None, b"1") + notification_frame(b'"m"', b"[]")
        assert frame.endswith(b'{"jsonrpc":"2.0","method":"m","params":[]}')


def fuzz_replies(dice: Random, log: Log) -> None:
    """Replies, whose results are only delimited: the same by every path, and as a regular expression has them."""
    for _ in range(20):
        value = json.dumps(some_json(dice, 4), ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
        value = mutated(dice, dice.choice([value, b"[" * 70 + b"]" * 70, b'["' + b"a" * 300 + value + b'"]']))
        depth = dice.choice([512, 512, 64, 3])
        text = b'{"id":1,"result":' + value + b"}"
        log(f"scan_reply({text!r}, max_depth={depth})")
        outcome = read_result(text, depth)
        if value[:1] in (b"[", b"{") and delimited(value, depth - 1) == len(value):
            assert outcome == value
        elif value[:1] in (b"[", b"{") and outcome == value:
            raise AssertionError("a result was accepted that does not end well")
        assert outcome is None or isinstance(outcome, bytes | Refused)
        text = mutated(dice, some_message(dice, replies=True))
        log(f"scan_replies({text!r})")
        try:
            message = scan_reply(text)
        except FrameError:
            continue
        assert [each.frame for each in scan_replies(text)] == [message.frame]
        says_complete(message)
        _read_parts(dice, message, scan_reply)


def fuzz_mending(dice: Random, log: Log) -> None:
    """What mends JSON: valid stays valid, wrong is made no worse, nothing is read beyond its end."""
    for _ in range(30):
        value: Any = some_json(dice, 3)
        text = json.dumps(value, ensure_ascii=dice.random() < 0.8).encode("utf-8", "surrogatepass")
        whole = dice.random() < 0.5
        text = text if whole else mutated(dice, text)
        log(f"mend {text!r}")
        mended = without_lone_surrogates(text)
        assert without_lone_surrogates(mended) == mended and len(mended) == len(text)
        plain = without_constants(text)
        assert without_constants(plain) == plain
        says_default(text, dice.choice([frozenset({b"id"}), {b"": 1}, ()]))
        if whole and text.isascii():
            json.dumps(json.loads(mended), ensure_ascii=False).encode()
            assert plain == text
        for mend in (lambda text=text: mended_error(text), lambda text=text: mended_response(b"1", None, text, None)):
            try:
                found = mend()
            except (ValueError, RecursionError):
                continue
            assert found is None or type(found) is bytes


def fuzz_stateless_frame(dice: Random, log: Log) -> None:
    """Requests of the stateless revisions: an exchange whose frame is JSON, or none."""
    frame = StatelessFrame(
        b'{"_meta":{}', {b'"tools/call"': (b"Mcp-Method: tools/call\r\n", b"name")}, {"mirrored": ()}
    )
    for _ in range(30):
        params = {"name": dice.choice(["t", "mirrored", "é", " x", "=?x?=", "", 5]), "arguments": some_json(dice, 2)}
        whole = dice.random() < 0.5
        text = json.dumps(params, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
        text = text if whole else mutated(dice, text)
        log(f"dress {text!r}")
        exchange = frame.exchange(Request(b'"tools/call"', text), dice.choice([1, -1, 2**63 - 1]), 0)
        if exchange is None:
            continue
        assert exchange.fields is not None and exchange.fields.isascii() and exchange.fields.count(b"\r\n") == 2
        if whole:
            assert json.loads(exchange.frame)["params"]["_meta"] == {}


def fuzz_events(dice: Random, log: Log) -> None:
    """Event streams in any pieces, held against the standard's algorithm on the whole."""
    lines = [
        b"data: x",
        b"data:",
        b"data",
        b"id: 1",
        b"id: \0",
        b"event: e",
        b": c",
        b"retry: 10",
        b"",
        b"",
        b"other: x",
    ]
    for _ in range(20):
        end = dice.choice([b"\n", b"\r\n", b"\r"])
        text = end.join(dice.choice(lines) for _ in range(dice.randrange(25))) + end
        text = mutated(dice, text)
        cut = pieces(dice, text)
        limit = dice.choice([1 << 20, 1 << 20, 5])
        log(f"events {cut!r} limit {limit}")
        parser = SseParser(max_line=limit, max_event=limit)
        events = []
        try:
            for piece in cut:
                events += parser.feed(dice.choice([bytes, bytearray, memoryview])(piece))
            parser.feed(b"")
        except SseLimitError as error:
            assert limit == 5 and error.size > limit
            continue
        expected = parse_stream(text)
        assert [(each.event, each.data, each.id) for each in events] == expected.events
        assert (parser.last_event_id, parser.retry_ms) == (expected.last_event_id, expected.retry_ms)
        assert parser.comments == expected.comments
        parser.close()
