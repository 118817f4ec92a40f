"""Parses endpoint URLs without re-quoting them: a signature or an escaped resource name must stay byte for byte."""

from __future__ import annotations

import re
import string
from typing import Final
from urllib.parse import quote

from yarl import URL

__all__ = ["exact_url", "resolve"]

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_END_OF_AUTHORITY: Final = re.compile(r"[/?#]")


def exact_url(text: str | bytes) -> URL:
    """Parse a URL whose path and query are sent byte for byte as they are written.

    The host is normalized (lower case, IDNA), a default port is left out, dot segments are resolved (RFC 3986, section
    6.2.2.3), and non-ASCII characters are percent-encoded as UTF-8. The fragment is dropped.

    Parameters
    ----------
    text
        An absolute URL, or its bytes as they arrived over the network.

    Raises
    ------
    ValueError
        It is not an absolute http or https URL.
    """
    scheme, mark, rest = (text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")).partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        raise ValueError("no http or https URL")
    end = _END_OF_AUTHORITY.search(rest)
    authority, rest = (rest, "") if end is None else (rest[: end.start()], rest[end.start() :])
    origin = URL(f"{scheme}://{authority}")
    if not origin.raw_host:
        raise ValueError("no host")
    path, question, query = _ascii(rest.partition("#")[0]).partition("?")
    path = _without_dots(path)
    if question and not query:
        # yarl has no empty query; as part of the path, the question mark is sent.
        path += "?"
    return URL.build(scheme=origin.scheme, authority=origin.raw_authority, path=path, query_string=query, encoded=True)


def resolve(base: URL, reference: str | bytes) -> URL:
    """Resolve a reference against a base URL (RFC 3986, section 5.2); quotes and raises as :func:`exact_url` does."""
    text = (reference if isinstance(reference, str) else reference.decode("utf-8", "surrogateescape")).strip()
    if _SCHEME.match(text):
        return exact_url(text)
    if text.startswith("//"):
        return exact_url(f"{base.scheme}:{text}")
    origin, path = str(base.origin()), base.raw_path.partition("?")[0]
    if text.startswith("/"):
        return exact_url(origin + text)
    if text.startswith("?"):
        return exact_url(origin + path + text)
    if not text or text.startswith("#"):
        return base
    return exact_url(origin + path[: path.rindex("/") + 1] + text)


def _ascii(text: str) -> str:
    return quote(text.encode("utf-8", "surrogateescape"), safe=string.punctuation)


def _without_dots(path: str) -> str:
    segments: list[str] = []
    last = ""
    for last in path.split("/")[1:]:
        if last == "..":
            del segments[-1:]
        elif last != ".":
            segments.append(last)
    if last in (".", ".."):
        segments.append("")
    return "/" + "/".join(segments)
