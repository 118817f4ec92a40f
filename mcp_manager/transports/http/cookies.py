"""A bounded cookie jar for one origin, so that a load balancer keeps an instance on one backend (RFC 6265).

A cookie goes back only to the origin that set it; jars made for browsers share cookies among the ports of a host. The
standard library's parser is not used because it drops a cookie with an attribute that it does not know.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterable
from datetime import UTC
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["CookieJar"]

MAX_COOKIES: Final = 50
MAX_COOKIE_BYTES: Final = 4096
MAX_JAR_BYTES: Final = 16_384
_MAX_AGE_S: Final = 400 * 86_400.0
# RFC 6265, section 4.1.1, and white space and quotes within a value, which load balancers send as well.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_DIGITS: Final = re.compile(r"-?[0-9]{1,12}")


class _Cookie(NamedTuple):
    value: str
    is_secure: bool
    # Time of day in seconds, infinite without an expiry.
    expires_at: float


class CookieJar:
    """Keep the cookies of one instance of a server, and choose those of each request as RFC 6265 defines.

    A ``Domain`` that covers the host is accepted and ignored: only the origin itself gets the cookie.
    """

    __slots__ = ("_cookies", "_place")

    def __init__(self) -> None:
        # By name and path, the oldest first.
        self._cookies: dict[tuple[str, str], _Cookie] = {}
        self._place = ""

    def __repr__(self) -> str:
        return f"<CookieJar of {len(self._cookies)}>"

    def __len__(self) -> int:
        return len(self._cookies)

    def belong_to(self, place: str) -> None:
        """Keep the cookies of this place from now on; if it is another one than before, drop all cookies."""
        if place != self._place:
            self._cookies.clear()
            self._place = place

    def take(self, fields: Iterable[str], url: URL, now_s: float) -> int:
        """Store the values of ``Set-Cookie`` fields; return how many were malformed.

        Parameters
        ----------
        fields
            The values.
        url
            The URL of the request.
        now_s
            The time of day in seconds.
        """
        return sum(not self._take(field, url, now_s) for field in fields)

    def header(self, url: URL, now_s: float, own: str = "") -> str:
        """Return the value of ``Cookie`` for a request, "" for none.

        Parameters
        ----------
        url
            The URL of the request.
        now_s
            The time of day in seconds.
        own
            A configured ``Cookie``. It goes first, and cookies of the same names are left out.
        """
        named = {pair.partition("=")[0].strip() for pair in own.split(";")}
        path, is_secure = url.raw_path.partition("?")[0], url.scheme == "https"
        sent = [
            (name, where, cookie.value)
            for (name, where), cookie in self._cookies.items()
            if cookie.expires_at > now_s
            and (is_secure or not cookie.is_secure)
            and name not in named
            and _path_matches(path, where)
        ]
        # RFC 6265, section 5.4: longer paths first, then the older ones.
        sent.sort(key=lambda each: -len(each[1]))
        pairs = [f"{name}={value}" for name, _, value in sent]
        return "; ".join([own, *pairs] if own else pairs)

    def next_expiry(self, now_s: float) -> float | None:
        """Drop expired cookies, and return the time of day at which the next one expires, ``None`` if none does."""
        for key in [key for key, cookie in self._cookies.items() if cookie.expires_at <= now_s]:
            del self._cookies[key]
        soonest = min((cookie.expires_at for cookie in self._cookies.values()), default=float("inf"))
        return None if soonest == float("inf") else soonest

    def _take(self, field: str, url: URL, now_s: float) -> bool:
        """Store one field (RFC 6265, section 5.2); return ``False`` if it is malformed."""
        if len(field) > MAX_COOKIE_BYTES:
            return False
        pair, *attributes = field.split(";")
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            return False
        path, expires_at, max_age_s, is_secure = "", float("inf"), None, False
        for attribute in attributes:
            key, _, text = (part.strip() for part in attribute.partition("="))
            match key.lower():
                case "path":
                    path = text
                case "secure":
                    is_secure = True
                case "max-age" if _DIGITS.fullmatch(text):
                    max_age_s = float(text)
                case "expires":
                    expires_at = _time_of_day(text)
                case "domain" if text and not _domain_matches(url.raw_host or "", text):
                    return False
        if is_secure and url.scheme != "https":
            return False
        if max_age_s is not None:
            expires_at = now_s + min(max_age_s, _MAX_AGE_S) if max_age_s > 0 else 0.0
        where = path if path.startswith("/") and _VALUE.fullmatch(path) else _default_path(url)
        self._keep((name, where), _Cookie(value, is_secure, expires_at), now_s)
        return True

    def _keep(self, key: tuple[str, str], cookie: _Cookie, now_s: float) -> None:
        if cookie.expires_at <= now_s:
            self._cookies.pop(key, None)
            return
        self._cookies[key] = cookie
        while len(self._cookies) > MAX_COOKIES or self._size() > MAX_JAR_BYTES:
            del self._cookies[next(iter(self._cookies))]

    def _size(self) -> int:
        return sum(len(name) + len(cookie.value) + 3 for (name, _), cookie in self._cookies.items())


def _time_of_day(text: str) -> float:
    """Parse ``Expires``; a malformed one never expires."""
    try:
        when = email.utils.parsedate_to_datetime(text)
        return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, IndexError, OverflowError):
        return float("inf")


def _domain_matches(host: str, domain: str) -> bool:
    domain = domain.removeprefix(".").lower()
    return host == domain or (host.endswith(f".{domain}") and not host.rpartition(".")[2].isdigit())


def _default_path(url: URL) -> str:
    """Return the directory of a path (RFC 6265, section 5.1.4)."""
    return url.raw_path.partition("?")[0].rpartition("/")[0] or "/"


def _path_matches(path: str, where: str) -> bool:
    return path == where or (path.startswith(where) and (where.endswith("/") or path[len(where)] == "/"))
