"""Extracts the explanation from the body of a refusal: JSON of any kind, a web page, or plain text."""

from __future__ import annotations

import html
import re
from typing import Any, Final

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = ["refusal_text"]

# Longer bodies and texts are not searched for an explanation.
_MAX_BYTES: Final = 64 * 1024
_MAX_PAGE: Final = 8 * 1024
_MAX_LINE: Final = 4096
_MAX_DEPTH: Final = 6
# Members that explain an error, most specific first: RFC 9457, OAuth (RFC 6749, section 5.2), FastAPI, gateways.
_EXPLANATIONS: Final = (
    "detail",
    "error_description",
    "message",
    "error_message",
    "errormessage",
    "msg",
    "description",
    "reason",
    "title",
    "error",
    "errors",
    "fault",
    "details",
)
# Members with a short headline, which is put in front of the explanation.
_HEADLINES: Final = ("title", "error", "code")
_TITLE: Final = re.compile(r"<(title|h1|message)\b[^>]*>(.{0,1000}?)</\1\s*>", re.I | re.S)
_HIDDEN: Final = re.compile(r"<(script|style|head)\b.{0,2000}?</\1\s*>|<!--.{0,2000}?-->", re.I | re.S)
_TAG: Final = re.compile(r"<[^<>]{0,1000}>")

_decoder: JsonDecoder[Any] = JsonDecoder(Any)


def refusal_text(body: bytes) -> str:
    """Return the line of a body that explains the refusal, "" if none; up to 4,096 characters, not masked."""
    text = _text_of(body[:_MAX_BYTES])
    if text[:1] in ("{", "[", '"'):
        if len(body) > _MAX_BYTES:
            return ""
        try:
            return _first_line(_explanation(_decoder.decode(body.removeprefix(b"\xef\xbb\xbf")), _MAX_DEPTH) or text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _first_line(text)
    if text[:1] == "<":
        text = text[:_MAX_PAGE]
        title = _TITLE.search(text)
        return _first_line(html.unescape(title[2] if title is not None else _TAG.sub("\n", _HIDDEN.sub("", text))))
    return _first_line(text)


def _text_of(body: bytes) -> str:
    """Decode a body, ``""`` if it is not text."""
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").lstrip()
    return "" if "\0" in text or text.count("\ufffd") * 4 > len(text) else text


def _first_line(text: str) -> str:
    return next((line.strip() for line in text[: 8 * _MAX_LINE].splitlines() if line.strip()), "")[:_MAX_LINE]


def _explanation(value: object, depth: int) -> str:
    """Return the explanation in a decoded document, ``""`` if there is none."""
    if isinstance(value, str):
        return value
    if depth == 0:
        return ""
    if isinstance(value, list):
        return next((found for each in value[:8] if (found := _explanation(each, depth - 1))), "")
    if not isinstance(value, dict):
        return ""
    members = {name.lower(): member for name, member in value.items()}
    for name in _EXPLANATIONS:
        found = _explanation(members.get(name), depth - 1)
        if found:
            headline = next((head for key in _HEADLINES if isinstance(head := members.get(key), str) and head), "")
            return found if name in _HEADLINES or not headline or headline in found else f"{headline}: {found}"
    return ""
