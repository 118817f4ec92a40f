"""The log as JSON: one object a line, for machines."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from mcp_manager.events.log_lines import FIELDS

__all__ = ["JsonFormatter"]

# Attributes that every record has; what else it has comes from ``extra``.
_STANDARD: Final = frozenset(
    {*vars(logging.LogRecord("", 0, "", 0, "", None, None)), "message", "asctime", "taskName", "exc_text"}
)
_LONGEST_INTEGER: Final = 2**63


class JsonFormatter(logging.Formatter):
    """Format each log record as one JSON object on one line.

    Its members are ``time`` (RFC 3339 in UTC, with milliseconds), ``level``, ``logger``, ``message``, everything that
    the record has by ``extra`` (the fields of this package first), ``trace_id`` and ``span_id`` included, and
    ``exception`` and ``stack`` if there are any. A value that JSON cannot hold becomes text. Formatting never fails.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line without a line end."""
        line: dict[str, Any] = {
            "time": _time_of(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": _message_of(record),
        }
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD and name not in line}
        line |= {name: extra.pop(name) for name in FIELDS if name in extra}
        line |= extra
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return _encoded(line)


def _time_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        # Arguments that do not fit the message: the record is written nevertheless.
        return f"{record.msg} ({type(error).__name__} in its arguments)"


def _encoded(line: dict[str, Any]) -> str:
    try:
        data = orjson.dumps(line, default=_as_text, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # A lone surrogate, an integer beyond 64 bits, or something nested too deeply.
        data = orjson.dumps({_as_text(name): _plain(value) for name, value in line.items()})
    line_text = data.decode()
    if line_text.isprintable():
        return line_text
    # JSON allows line breaks and control characters beyond ASCII in strings, but some programs split text at them, and
    # some terminals obey them.
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in line_text)


def _as_text(value: object) -> str:
    try:
        text = str(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose text failed: {type(error).__name__}>"
    return text.encode("utf-8", "replace").decode()


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -_LONGEST_INTEGER <= value < _LONGEST_INTEGER:
        return value
    return _as_text(value)
