"""Streams that clients resume: what was missed is sent, once and in order, and memory is bounded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.gateway.client import Client
from mcp_manager.gateway.sessions import event_log
from mcp_manager.gateway.sessions.event_log import EventLog, EventLogs
from mcp_manager.protocol.revisions import Era


class Stream:
    """A connection of a client that reads events."""

    def __init__(self) -> None:
        self.text = b""
        self.is_open = True
        self.on_gone: Callable[[], None] | None = None

    def send(self, events: bytes) -> None:
        self.text += events

    def end(self) -> None:
        self.is_open = False

    def break_off(self) -> None:
        self.is_open = False
        if self.on_gone is not None:
            self.on_gone()

    @property
    def messages(self) -> list[bytes]:
        return re.findall(rb"data: (.+)", self.text)

    @property
    def ids(self) -> list[str]:
        return [each.decode() for each in re.findall(rb"id: (.+)", self.text)]


def client(session: str = "s", revision: str = "2025-11-25") -> Client:
    return Client(Era.HANDSHAKE, revision, session=session)


def resumed(logs: EventLogs, last: str, session: str = "s") -> Stream | None:
    found = logs.find(client(session), last)
    if found is None:
        return None
    log, after = found
    stream = Stream()
    log.attach(stream, after)
    return stream


async def test_the_first_event_primes_where_the_revision_has_it() -> None:
    for revision, primed in (("2025-11-25", 1), ("2025-06-18", 0), ("2024-11-05", 0)):
        logs, stream = EventLogs(), Stream()
        log = logs.begin(client(revision=revision), stream)
        log.send(b"{}")
        assert len(stream.ids) == primed + (revision != "2024-11-05")
        assert stream.text.startswith(b"id: ") == bool(primed)
        assert (b"data: \n\n" in stream.text) == (b"retry: " in stream.text) == bool(primed)
        logs.close()


async def test_exactly_what_was_missed_is_sent_and_then_it_goes_on() -> None:
    logs, first = EventLogs(), Stream()
    log = logs.begin(client(), first)
    log.send(b"1")
    last = first.ids[-1]
    first.break_off()
    log.send(b"2")
    log.send(b"3")
    second = resumed(logs, last)
    assert second is not None and second.messages == [b"2", b"3"]
    log.send(b"4")
    log.end()
    assert second.messages == [b"2", b"3", b"4"] and not second.is_open
    assert first.messages == [b"1"]
    again = resumed(logs, second.ids[-2])
    assert again is not None and again.messages == [b"4"] and not again.is_open
    logs.close()


async def test_a_second_connection_takes_the_stream_over() -> None:
    logs, first = EventLogs(), Stream()
    log = logs.begin(client(), first)
    second = resumed(logs, first.ids[-1])
    assert second is not None and not first.is_open and first.on_gone is None
    log.send(b"1")
    assert second.messages == [b"1"] and first.messages == []
    logs.close()


async def test_other_sessions_and_other_ids_find_nothing() -> None:
    logs, stream = EventLogs(worker=2), Stream()
    logs.begin(client(), stream)
    last = stream.ids[-1]
    key = last.rpartition(".")[0]
    assert last.startswith("2.")
    assert logs.find(client("other"), last) is None
    for wrong in (
        "",
        ".",
        key,
        f"{key}.",
        f"{key}.-1",
        f"{key}.7",
        f"{key}.²",
        f"{key}.{'9' * 5_000}",
        "0.é.1",
        "\udcff.1",
    ):
        assert logs.find(client(), wrong) is None
    assert logs.find(client(), last) is not None
    logs.close()


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    logs, stream = EventLogs(max_events=3), Stream()
    log = logs.begin(client(), stream)
    for number in range(5):
        log.send(b"%d" % number)
    assert logs.find(client(), stream.ids[1]) is None
    kept = resumed(logs, stream.ids[2])
    assert kept is not None and kept.messages == [b"2", b"3", b"4"]
    monkeypatch.setattr(event_log, "_MOST_BYTES_OF_ONE", 1_000)
    log.send(b"x" * 2_000)
    assert logs.bytes == 0
    monkeypatch.setattr(event_log, "_MOST_BYTES", 3_000)
    monkeypatch.setattr(event_log, "_MOST_BYTES_OF_ONE", 2_000)
    other = logs.begin(client(), Stream())
    log.send(b"x" * 1_500)
    other.send(b"y" * 1_600)
    assert logs.bytes < 2_000
    logs.close()
    assert logs.bytes == 0 and len(logs) == 0


@pytest.mark.parametrize("max_events, revision", [(0, "2025-11-25"), (9, "2024-11-05")])
async def test_without_resumption_a_stream_is_lost_with_its_connection(max_events: int, revision: str) -> None:
    logs, stream, lost = EventLogs(max_events), Stream(), []
    log = logs.begin(client(revision=revision), stream)
    log.on_lost = lambda: lost.append(1)
    log.send(b"1")
    assert stream.ids == []
    stream.break_off()
    assert lost == [1] and not log.send(b"2") and len(logs) == 0


async def test_a_stream_is_lost_when_its_client_does_not_come_back() -> None:
    logs, stream, lost = EventLogs(keep_s=0.0), Stream(), []
    log = logs.begin(client(), stream)

    def note() -> None:
        lost.append(1)
        done.set()

    done = asyncio.Event()
    log.on_lost = note
    stream.break_off()
    assert log.send(b"kept for now") and not lost
    await done.wait()
    assert not log.send(b"2") and logs.bytes == 0 and len(logs) == 0


async def test_an_interrupted_stream_can_be_resumed() -> None:
    logs, stream = EventLogs(), Stream()
    log = logs.begin(client(), stream)
    log.interrupt()
    assert not stream.is_open and stream.text.endswith(b"retry: 1000\n\n") and log.send(b"1")
    second = resumed(logs, stream.ids[-1])
    assert second is not None and second.messages == [b"1"]
    logs.close_session("other")
    assert second.is_open
    logs.close_session("s")
    assert not logs._of_sessions
    assert not second.is_open and len(logs) == 0


@given(st.lists(st.sampled_from(["send", "break", "resume", "end"]), max_size=40))
def test_a_client_that_resumes_gets_every_event_once(acts: list[str]) -> None:

    async def played() -> None:
        logs = EventLogs(max_events=100)
        stream = Stream()
        log: EventLog = logs.begin(client(), stream)
        seen: list[bytes] = []
        sent: list[bytes] = []
        last = stream.ids[-1]
        for act in (*acts, "break", "resume"):
            if act == "send" and log.send(b"%d" % len(sent)):
                sent.append(b"%d" % len(sent))
            elif act == "break":
                stream.break_off()
            elif act == "end":
                log.end()
            elif act == "resume":
                seen += stream.messages
                last = (stream.ids or [last])[-1]
                resumed_stream = resumed(logs, last)
                assert resumed_stream is not None
                stream = resumed_stream
        seen += stream.messages
        assert seen == sent
        logs.close()

    asyncio.run(played())
