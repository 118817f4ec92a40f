"""Cookies that keep an instance with one backend of a balancer: kept for exactly one origin, bounded, never shown.

The standard library's parser drops a cookie for one attribute that it does not know, and jars made for browsers share
cookies among the ports of a host: here a cookie goes back to the origin it came from, and nowhere else.
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
# RFC 6265, section 4.1.1, but for what balancers send as well: white space and quotes within a value.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_DIGITS: Final = re.compile(r"-?[0-9]{1,12}")


class _Cookie(NamedTuple):
    value: str
    is_secure: bool
    # Time of day in seconds, infinite for as long as the instance lives.
    expires_at: float


class CookieJar:
    """Keep the cookies of one instance of a server, and send them back as RFC 6265 says.

    A ``Domain`` is accepted if the host lies in it, and widens nothing: only the origin itself ever gets the cookie.
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
        """Keep cookies of this place from now on, and forget those of any other."""
        if place != self._place:
            self._cookies.clear()
            self._place = place

    def take(self, fields: Iterable[str], url: URL, now_s: float) -> int:
        """Take the values of ``Set-Cookie`` fields; return how many made no sense.

        Parameters
        ----------
        url
            What was asked for.
        now_s
            The time of day.
        """
        return sum(not self._take(field, url, now_s) for field in fields)

    def header(self, url: URL, now_s: float, own: str = "") -> str:
        """Return the value of ``Cookie`` for a request, "" for none.

        ``own`` is what the configuration wants sent: it goes first, and cookies of the same names are left out.
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
        """Return when the next cookie ends, by the time of day; ``None`` if none does. Those that have ended go."""
        for key in [key for key, cookie in self._cookies.items() if cookie.expires_at <= now_s]:
            del self._cookies[key]
        soonest = min((cookie.expires_at for cookie in self._cookies.values()), default=float("inf"))
        return None if soonest == float("inf") else soonest

    def _take(self, field: str, url: URL, now_s: float) -> bool:
        """Take one field (RFC 6265, section 5.2); ``False`` if it makes no sense."""
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
    """Read ``Expires``; one that is malformed sets no end."""
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
