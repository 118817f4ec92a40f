"""The encodings in which a secret may appear in text: plain, URL, JSON, HTML, hex and base64."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus

__all__ = ["forms_of", "is_credential", "plain_forms"]

# Shorter base64 text could be part of an ordinary word.
_SHORTEST_BASE64: Final = 8
_PERCENT: Final = re.compile("%[0-9A-F]{2}")
_URL_SAFE: Final = str.maketrans("+/", "-_")
_CREDENTIAL: Final = re.compile(
    r"auth|cookie|token|secret|passw|pwd|credential|signature|\bsig\b|(^|[-_.])(api|access|private|x)?[-_.]?key$", re.I
)


def is_credential(name: str) -> bool:
    """Tell whether the name of a header, parameter or option suggests that it carries a credential."""
    return _CREDENTIAL.search(name) is not None


def plain_forms(secret: str) -> Iterator[str]:
    """Yield the forms that our own texts use: as it is, in lower case (as in a URL's host), and percent-encoded."""
    yield secret
    yield secret.lower()
    yield quote(secret, safe="", errors="surrogatepass")
    yield quote(secret, errors="surrogatepass")


def forms_of(secret: str) -> Iterator[str]:
    """Yield all forms of a secret; some may repeat.

    There are three base64 forms, because the encoding depends on where in the encoded text the secret begins (its
    offset modulo 3), as in ``Basic`` credentials.
    """
    yield from plain_forms(secret)
    yield quote_plus(secret, errors="surrogatepass")
    # .NET and nginx write the digits of a percent escape in lower case.
    yield _small_escapes(quote(secret, safe="", errors="surrogatepass"))
    yield _small_escapes(quote(secret, errors="surrogatepass"))
    yield _small_escapes(quote_plus(secret, errors="surrogatepass"))
    for ensure_ascii in (True, False):
        written = json.dumps(secret, ensure_ascii=ensure_ascii)[1:-1]
        yield written
        # PHP escapes slashes; Go escapes <, > and &; .NET also escapes quotes and the plus sign.
        yield written.replace("/", "\\/")
        yield _escaped_marks(written, "<>&", "04x")
        yield _escaped_marks(written.replace('\\"', '"'), "<>&'\"+`", "04X")
    yield html.escape(secret)
    yield html.escape(secret).replace("&#x27;", "&#39;")
    yield html.escape(secret).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    yield repr(secret)[1:-1]
    data = secret.encode("utf-8", "surrogatepass")
    yield data.hex()
    yield data.hex().upper()
    whole = base64.b64encode(data).decode()
    for encoded in (whole, *(_within(data, before) for before in range(3))):
        if len(encoded.rstrip("=")) >= _SHORTEST_BASE64:
            yield encoded
            yield encoded.translate(_URL_SAFE)


def _small_escapes(quoted: str) -> str:
    return _PERCENT.sub(lambda found: found[0].lower(), quoted)


def _escaped_marks(written: str, marks: str, digits: str) -> str:
    r"""Write these characters as ``\uXXXX``."""
    return "".join(f"\\u{ord(char):{digits}}" if char in marks else char for char in written)


def _within(data: bytes, before: int) -> str:
    """Return the base64 characters that depend on ``data`` alone if ``before`` bytes of its first group precede it."""
    encoded = base64.b64encode(bytes(before) + data).decode()
    return encoded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
