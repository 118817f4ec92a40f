"""The rules for header fields and tokens, wherever they come from: a configuration, a caller, a file or a program."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from mcp_manager.config._problem import FieldProblem, entry

__all__ = ["OWNED_HEADERS", "TOKEN", "check_field_value", "check_headers", "check_token", "without"]

OWNED_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Header fields that the transport itself sets, in lower case."""

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header field (RFC 9110, section 5.6.2)."""

_TRACE: Final = "traceparent"
_LINE_BREAK_OR_NUL: Final = re.compile(r"[\r\n\x00]")
_FIELD_VALUE: Final = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
_VISIBLE: Final = re.compile(r"[!-~]+")


def check_headers(headers: Mapping[str, str], path: str) -> None:
    """Raise :class:`FieldProblem` below ``path`` for the first header field that cannot be sent."""
    seen: set[str] = set()
    for position, (name, value) in enumerate(headers.items(), start=1):
        if not TOKEN.fullmatch(name):
            text = f"name {position} is not a header name (RFC 9110, section 5.6.2)"
            raise FieldProblem(path, text, 'write {"Name": "value"}, the name without colon and spaces')
        where = entry(path, name)
        if name.lower() in OWNED_HEADERS:
            raise FieldProblem(where, "is set by the manager", "remove it")
        if name.lower() == _TRACE:
            text = "names one call, and would be sent with all of them, in addition to that of a traced call"
            raise FieldProblem(where, text, "remove it; McpManager(trace_context=...) returns it for each call")
        if name.lower() in seen:
            raise FieldProblem(where, "is given twice, in different case")
        seen.add(name.lower())
        check_field_value(value, where)


def check_field_value(value: str, path: str) -> None:
    """Allow what RFC 9110, section 5.5, lets a sender generate: visible ASCII, with spaces and tabs inside."""
    if _FIELD_VALUE.fullmatch(value):
        return
    if _LINE_BREAK_OR_NUL.search(value):
        raise FieldProblem(
            path, "contains a line break or NUL character", "remove it; files with secrets often end in one"
        )
    if value != value.strip():
        raise FieldProblem(path, "begins or ends with white space", "remove it")
    raise FieldProblem(path, "contains a control or non-ASCII character")


def check_token(token: str, path: str) -> None:
    """Raise :class:`FieldProblem` for a bearer token that cannot be sent."""
    check_field_value(token, path)
    if not _VISIBLE.fullmatch(token):
        raise FieldProblem(path, "contains a space", "give the token alone, without 'Bearer'")


def without(headers: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """Return the header fields whose names are not among ``names``, regardless of case."""
    dropped = {name.lower() for name in names}
    return {name: value for name, value in headers.items() if name.lower() not in dropped}
