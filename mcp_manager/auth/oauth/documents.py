"""Lenient reading of what authorization servers send: bodies, members, and texts for errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote

import msgspec

__all__ = ["flag", "kind_of", "lifetime", "masked", "read_object", "reason_of", "seconds", "shown_text", "texts"]

_decoder = msgspec.json.Decoder(dict[str, Any])
_BOM: Final = b"\xef\xbb\xbf"
_MAX_FIELDS: Final = 100
# Narrower than RFC 6749, section 5.2, which allows characters that no server uses in error codes.
_ERROR_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
_UNSHOWN: Final = re.compile(r"[^ -~]+")
_LONGEST_SHOWN: Final = 200
# Where servers say what is wrong; all but the first deviate from RFC 6749.
_DESCRIPTIONS: Final = ("error_description", "message", "msg", "detail")
_CODES: Final = ("error", "error_code", "code")
# Shorter ones would match parts of ordinary words.
_SHORTEST_SECRET: Final = 4
# A part of a secret this long does not appear by chance.
_SECRET_PART: Final = 8
_LONGEST_READ: Final = 2_000
_HIDDEN: Final = re.compile("\0+")
_LONGEST_LIFE_S: Final = 10 * 366 * 86_400.0


def read_object(body: bytes, content_type: str) -> dict[str, Any]:
    """Return a body as an object, an empty one if it is something else.

    Parameters
    ----------
    body
        JSON, or a form: some servers send tokens as a form regardless of ``Accept`` (GitHub does by default).
    content_type
        Without parameters, in lower case. A body counts as a form only with the type of forms or of plain text.
    """
    body = body.removeprefix(_BOM)
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    try:
        # Unlike msgspec, json accepts all that the grammar allows: lone surrogates, and numbers of any size.
        value = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    if value is not None or content_type not in ("application/x-www-form-urlencoded", "text/plain"):
        return {}
    try:
        pairs = parse_qsl(body.decode("ascii").strip(), max_num_fields=_MAX_FIELDS)
    except ValueError:
        return {}
    fields = dict(pairs)
    # If a name repeats, it is unclear which one counts.
    return fields if len(fields) == len(pairs) else {}


def texts(value: object) -> tuple[str, ...] | None:
    """Return a list of strings, or the words of one string; ``None`` for anything else."""
    if isinstance(value, str):
        return tuple(value.split())
    if not isinstance(value, list):
        return None
    return tuple(each for each in value if isinstance(each, str) and each)


def flag(value: object) -> bool:
    """Tell whether a member is true, or the string "true"."""
    return value is True or (isinstance(value, str) and value.lower() == "true")


def seconds(value: object) -> float:
    """Return a number of seconds, also from a string; 0 for anything else, and for numbers not above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0.0
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def lifetime(value: object) -> float:
    """Return the lifetime of a token in seconds, at most ten years; 0 if not known."""
    return min(seconds(value), _LONGEST_LIFE_S)


def reason_of(body: Mapping[str, Any], secrets: Collection[str] = ()) -> tuple[str, str]:
    """Return the error code of a refusal ("" without one) and its description, with ``secrets`` masked."""
    nested = body.get("error")
    if isinstance(nested, dict):
        body = {**body, "error": None, **nested}
    code = next((each for name in _CODES if _ERROR_CODE.fullmatch(each := _text(body.get(name)))), "")
    words = next((each for name in _DESCRIPTIONS if (each := _text(body.get(name)))), "")
    return ("" if masked(code, secrets) != code else code), shown_text(masked(words, secrets))


def masked(text: str, secrets: Collection[str]) -> str:
    """Return the beginning of a text with every part of a secret masked, plain or percent-encoded."""
    text = text[:_LONGEST_READ]
    hidden = bytearray(len(text))
    for form in {form for each in secrets if len(each) >= _SHORTEST_SECRET for form in (each, quote(each, safe=""))}:
        width = min(len(form), _SECRET_PART)
        parts = {form[at : at + width] for at in range(len(form) - width + 1)}
        for at in range(len(text) - width + 1):
            if text[at : at + width] in parts:
                hidden[at : at + width] = b"\x01" * width
    shown = "".join("\0" if is_hidden else each for each, is_hidden in zip(text, hidden, strict=True))
    return _HIDDEN.sub("***", shown)


def shown_text(text: str) -> str:
    """Return a server's text as one shortened line of visible ASCII."""
    text = _UNSHOWN.sub(" ", text).strip()
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def kind_of(error: BaseException) -> str:
    """Name an exception without its message, which may hold a secret: by its type and the operating system's text."""
    name = type(error).__name__
    return shown_text(f"{name}: {error.strerror}") if isinstance(error, OSError) and error.strerror else name


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
