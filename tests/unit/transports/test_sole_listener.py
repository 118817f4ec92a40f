"""Which request under way a server's message belongs to, where all of them share a channel."""

from __future__ import annotations

from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager.transports.base import CallListener, Exchange, sole_listener


class Listener(CallListener):
    def __init__(self, party: str) -> None:
        self.party = party


def sent(listener: Listener, frame: bytes) -> Exchange:
    exchange = Exchange(frame, 0, 0)
    exchange.listener = listener
    return exchange


def asked(task_id: str = "") -> Message:
    meta = b'{"io.modelcontextprotocol/related-task":{"taskId":"%b"}}' % task_id.encode() if task_id else b"{}"
    return scan(b'{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"_meta":%b}}' % meta)


def test_a_message_of_a_task_belongs_to_whoever_waits_for_its_result() -> None:
    ann, bob = Listener("ann"), Listener("bob")
    call = b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"tasks/result"}}'
    result = b'{"jsonrpc":"2.0","id":3,"method":"tasks/result","params":{"taskId":"t1"}}'
    under_way = [sent(bob, call), sent(ann, result), sent(bob, call)]
    assert sole_listener(asked("t1"), under_way) is ann
    assert sole_listener(asked("t2"), under_way) is None
    assert sole_listener(asked(), under_way) is None
    # What bob waits for as well may be meant for either of them.
    assert sole_listener(asked("t1"), [*under_way, sent(bob, result)]) is None
    assert sole_listener(asked("t1"), [sent(ann, result), sent(ann, result)]) is ann
    assert sole_listener(asked("t1"), [sent(bob, call)]) is None
