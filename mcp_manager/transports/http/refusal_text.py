"""What a server says of a refusal in words, whatever they are wrapped in: JSON of any kind, a web page, or plain text."""

from __future__ import annotations

import html
import re
from typing import Any, Final

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = ["telling_line"]

# What is longer is no reason, and is not searched for one.
_MAX_BYTES: Final = 64 * 1024
_MAX_PAGE: Final = 8 * 1024
_MAX_LINE: Final = 4096
_MAX_DEPTH: Final = 6
# In the order in which they tell: RFC 9457, OAuth (RFC 6749, section 5.2), FastAPI, API gateways.
_TELLING: Final = (
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
# A short word that stands before what explains it.
_HEADLINES: Final = ("title", "error", "code")
_TITLE: Final = re.compile(r"<(title|h1|message)\b[^>]*>(.{0,1000}?)</\1\s*>", re.I | re.S)
_HIDDEN: Final = re.compile(r"<(script|style|head)\b.{0,2000}?</\1\s*>|<!--.{0,2000}?-->", re.I | re.S)
_TAG: Final = re.compile(r"<[^<>]{0,1000}>")

_decoder: JsonDecoder[Any] = JsonDecoder(Any)


def telling_line(body: bytes) -> str:
    """Return the first line of a body that tells a reader something, ``""`` if none does; neither bounded nor masked."""
    text = _text_of(body[:_MAX_BYTES])
    if text[:1] in ("{", "[", '"'):
        if len(body) > _MAX_BYTES:
            return ""
        try:
            return _first_line(_told(_decoder.decode(body.removeprefix(b"\xef\xbb\xbf")), _MAX_DEPTH) or text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _first_line(text)
    if text[:1] == "<":
        text = text[:_MAX_PAGE]
        title = _TITLE.search(text)
        return _first_line(html.unescape(title[2] if title is not None else _TAG.sub("\n", _HIDDEN.sub("", text))))
    return _first_line(text)


def _text_of(body: bytes) -> str:
    """Decode a text, ``""`` for anything else, such as a picture."""
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").lstrip()
    return "" if "\0" in text or text.count("\ufffd") * 4 > len(text) else text


def _first_line(text: str) -> str:
    return next((line.strip() for line in text[: 8 * _MAX_LINE].splitlines() if line.strip()), "")[:_MAX_LINE]


def _told(value: object, depth: int) -> str:
    """Return what a decoded document says in words."""
    if isinstance(value, str):
        return value
    if depth == 0:
        return ""
    if isinstance(value, list):
        return next((told for each in value[:8] if (told := _told(each, depth - 1))), "")
    if not isinstance(value, dict):
        return ""
    members = {name.lower(): member for name, member in value.items()}
    for name in _TELLING:
        told = _told(members.get(name), depth - 1)
        if told:
            headline = next((head for key in _HEADLINES if isinstance(head := members.get(key), str) and head), "")
            return told if name in _HEADLINES or not headline or headline in told else f"{headline}: {told}"
    return ""
