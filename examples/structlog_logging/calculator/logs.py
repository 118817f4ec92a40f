"""The log: one form for the lines of this program, of ``mcp_manager`` and of every other library."""

from __future__ import annotations

import logging
import sys

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from mcp_manager import CallError, McpManagerError

__all__ = ["configure"]

_add_extra = structlog.stdlib.ExtraAdder()


def configure(*, as_json: bool, level: str = "INFO", child_output: bool = False) -> None:
    """Configure structlog and the standard library's logging; the log goes to stdout.

    Parameters
    ----------
    as_json
        Whether a line is one JSON object; otherwise it is for people, with colours in a terminal.
    level
        The lowest level that is written.
    child_output
        Whether to write what programs write to stderr, too: as lines of the level ``debug``, whatever ``level`` says.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _explain_error,
        _add_trace,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_fields, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(as_json)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("mcp_manager.child").setLevel(logging.DEBUG if child_output else logging.NOTSET)


def _renderers(as_json: bool) -> list[Processor]:
    # Tracebacks as Python writes them: with the values of local variables, which the other formatters of structlog
    # show, they would hold credentials.
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    colours = sys.stdout.isatty()
    return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _add_fields(logger: WrappedLogger, name: str, event_dict: EventDict) -> EventDict:
    """Add the fields that a record of the standard library has by ``extra``.

    Those of mcp_manager have a field ``event``, such as ``child_exited``. It becomes ``kind``, since structlog keeps
    the message under that name.
    """
    message = event_dict["event"]
    event_dict = _add_extra(logger, name, event_dict)
    if event_dict["event"] != message:
        event_dict["kind"] = event_dict["event"]
        event_dict["event"] = message
    return event_dict


def _explain_error(logger: WrappedLogger, name: str, event_dict: EventDict) -> EventDict:
    """Replace an error of mcp_manager in the field ``error`` by what it says.

    Its message and its attributes hold no credential.
    """
    error = event_dict.get("error")
    if not isinstance(error, McpManagerError):
        return event_dict
    event_dict["error"] = type(error).__name__
    event_dict["reason"] = error.message
    event_dict["delivery"] = error.delivery
    event_dict["retryable"] = error.retryable
    if error.hint:
        event_dict["hint"] = error.hint
    if error.server_id is not None:
        event_dict.setdefault("server_id", error.server_id)
    if isinstance(error, CallError):
        event_dict["attempts"] = error.attempts
    return event_dict


def _add_trace(logger: WrappedLogger, name: str, event_dict: EventDict) -> EventDict:
    """Add the current span, if there is one; lines of mcp_manager about a call have the span of that call."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid and "trace_id" not in event_dict:
        event_dict["trace_id"] = trace.format_trace_id(span.trace_id)
        event_dict["span_id"] = trace.format_span_id(span.span_id)
    return event_dict
