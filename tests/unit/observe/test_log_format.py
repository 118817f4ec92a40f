"""The log as JSON: one object a line, whatever a record holds."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_manager import ChildExited
from mcp_manager.events.log_lines import fields_of
from mcp_manager.observe.log_format import JsonFormatter

LOGGER = logging.getLogger("mcp_manager.events")


def record(message: object = "hello", *arguments: object, **extra: Any) -> logging.LogRecord:
    return LOGGER.makeRecord(LOGGER.name, logging.WARNING, __file__, 1, message, arguments, None, extra=extra)


def formatted(made: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(made)
    assert len(line.splitlines()) == 1
    decoded: dict[str, Any] = json.loads(line)
    return decoded


def test_a_record_has_its_time_level_logger_message_and_fields() -> None:
    event = ChildExited(server_id="a", instance=0, pid=7, reason="it exited", exit_status=3, restart_in_s=1.0)
    made = record("server %r exited", "a", **fields_of(event))
    line = formatted(made)
    assert list(line)[:6] == ["time", "level", "logger", "message", "event", "server_id"]
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING",
        "logger": "mcp_manager.events",
        "message": "server 'a' exited",
        **fields_of(event),
    }


def test_the_time_is_that_of_rfc_3339_with_milliseconds() -> None:
    made = record()
    made.created = datetime(2026, 11, 29, 1, 2, 3, 4_567, tzinfo=UTC).timestamp()
    assert formatted(made)["time"] == "2026-11-29T01:02:03.004Z"


def test_whatever_else_a_record_has_is_there_too() -> None:
    line = formatted(record(trace_id="4bf9", span_id="00f0", tenant={"name": "x"}))
    assert (line["trace_id"], line["span_id"], line["tenant"]) == ("4bf9", "00f0", {"name": "x"})


class Odd:
    def __repr__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({1, 2} - {2}, "{1}"),
        (2**70, str(2**70)),
        (float("nan"), None),
        ("\ud800", "?"),
        (b"\xff", "b'\\xff'"),
        (Odd(), "<Odd whose text failed: ValueError>"),
        (["\ud800", 1], "['?', 1]"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        ("line\nbreak\u2028\u2029\x85\r\x0b\x1c", "line\nbreak\u2028\u2029\x85\r\x0b\x1c"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_can_be_written(value: object, written: object) -> None:
    found = formatted(record(odd=value))["odd"]
    assert found == written or (value == ["\ud800", 1] and "1]" in found)


def test_a_message_that_does_not_fit_its_arguments_is_written_nevertheless() -> None:
    assert formatted(record("%d of %d", "x"))["message"] == "%d of %d (TypeError in its arguments)"
    assert formatted(record("a\nb %s", "c\u2028"))["message"] == "a\nb c\u2028"


def test_exceptions_and_stacks_are_members() -> None:
    try:
        raise ValueError("oh\nno")
    except ValueError:
        made = record()
        made.exc_info = sys.exc_info()
    made.stack_info = "Stack (most recent call last):\n  here"
    line = formatted(made)
    assert line["exception"].endswith("ValueError: oh\nno")
    assert line["stack"].endswith("here")
    made.exc_info, made.exc_text = None, "kept by another formatter"
    assert formatted(made)["exception"] == "kept by another formatter"


def test_no_character_controls_a_terminal() -> None:
    made = record("\x1b[31mred\x9b31m\u202e\U000e0001")
    assert formatted(made)["message"] == "\x1b[31mred\x9b31m\u202e\U000e0001"
    assert JsonFormatter().format(made).isprintable()
