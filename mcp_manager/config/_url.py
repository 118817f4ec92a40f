"""Endpoint URLs: their checks, their templates, and their redaction."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from mcp_manager.config._problem import FieldProblem
from mcp_manager.errors import ConfigError

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["check_url", "expand_template", "is_address_url", "is_template", "redact_url", "split_nameserver"]

_PLACEHOLDER: Final = re.compile(r"\{i(?::(?:0([1-9]))?d?)?\}")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://")
_NOT_IN_URL: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\\<>\"^`|]")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOST_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_WAY_OUT: Final = "give an absolute URL such as http://localhost:8001/mcp"


def is_template(url: str) -> bool:
    """Tell whether ``url`` has a placeholder for the instance index."""
    return _PLACEHOLDER.search(url) is not None


def check_url(url: str, path: str, *, template: bool = False, last_index: int = 0) -> None:
    """Raise a :class:`FieldProblem` at ``path`` if ``url`` is not a usable endpoint; the URL itself is never quoted.

    With ``template``, a placeholder is allowed, and the URLs of instances 0 and ``last_index`` are checked.
    """
    stripped = _PLACEHOLDER.sub("", url) if template else url
    if "{" in stripped or "}" in stripped:
        hint = (
            "use {i}, or zero-padded {i:02d}, for the index of the instance"
            if template
            else "a list takes no templates: give complete URLs, or one template without a list"
        )
        raise FieldProblem(path, "has a bad placeholder", f"{hint}; write a literal brace as %7B or %7D")
    for index in {0, last_index} if is_template(url) else {0}:
        _check_plain(_fill(url, index), path)


def _check_plain(url: str, path: str) -> None:
    scheme = _SCHEME.match(url)
    if not url:
        raise FieldProblem(path, "must not be empty", _WAY_OUT)
    if _NOT_IN_URL.search(url):
        raise FieldProblem(
            path, "contains a space, a control character or another one not allowed in URLs", "percent-encode it"
        )
    if scheme is None:
        raise FieldProblem(path, "does not begin with http:// or https://", _WAY_OUT)
    if scheme[1].lower() in ("ws", "wss"):
        raise FieldProblem(path, "the WebSocket transport is not supported yet", "use http or https")
    if scheme[1].lower() not in ("http", "https"):
        socket = "write http://localhost/mcp, and the path of the socket in unix_socket"
        way_out = socket if "unix" in scheme[1].lower() else "use http or https"
        raise FieldProblem(path, f"has the unsupported scheme {scheme[1].lower()!r}", way_out)
    authority, rest = _split_authority(url[scheme.end() :])
    if "@" in authority:
        raise FieldProblem(path, "contains a user name or password", "put credentials in auth")
    if "#" in rest:
        raise FieldProblem(path, "contains a fragment", "remove the part from '#' on, or write %23")
    _check_authority(authority, path, quotable="@" not in rest)
    try:
        usable = bool(_yarl_url()(url).raw_host)
    except ValueError:
        usable = False
    if not usable:
        raise FieldProblem(path, "is not a valid URL", _WAY_OUT)


def _yarl_url() -> type[URL]:
    from yarl import URL  # noqa: PLC0415 - importing the package must not load it

    return URL


def _split_authority(text: str) -> tuple[str, str]:
    end = min((position for position in map(text.find, "/?#") if position >= 0), default=len(text))
    return text[:end], text[end:]


def _check_authority(authority: str, path: str, *, quotable: bool) -> None:
    """Check host and port (RFC 3986, section 3.2), and the lengths DNS allows (RFC 1035, section 2.3.4)."""
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        valid = bool(bracket) and _is_address(host, ipaddress.IPv6Address) and (not port or port.startswith(":"))
        port = port[1:] if port else ""
        colon = authority.endswith(":")
    else:
        host, separator, port = authority.partition(":")
        colon = bool(separator) and not port
        valid = _is_host_name(host)
    if not host:
        raise FieldProblem(path, "has no host", _WAY_OUT)
    if not valid:
        raise FieldProblem(path, "has an invalid host name", _WAY_OUT)
    number = int(port) if _PORT.fullmatch(port) else 0
    if colon or (port and not 0 < number <= 65535):
        # Text after the colon may be a mistyped password; digits are quoted only if the URL cannot contain one.
        shown = f" {number}" if quotable and _PORT.fullmatch(port) else ""
        raise FieldProblem(path, f"has an invalid port{shown}", "a port is a number from 1 to 65535")


def is_address_url(url: str) -> bool:
    """Tell whether the host of a checked URL is an IP address rather than a name."""
    host = _yarl_url()(url).raw_host or ""
    return _is_address(host, ipaddress.IPv4Address) or _is_address(host, ipaddress.IPv6Address)


def split_nameserver(text: str) -> tuple[str, int]:
    """Split the address and the port (default 53) of a name server; raises :class:`ValueError`."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]:")
        host, port = host.removesuffix("]"), rest or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not _PORT.fullmatch(port) or not 0 < int(port) <= 65535:
        raise ValueError("no port")
    return str(ipaddress.ip_address(host)), int(port)


def _is_host_name(host: str) -> bool:
    try:
        ascii_host = host if host.isascii() else (_yarl_url().build(scheme="http", host=host).raw_host or "")
    except ValueError:
        return False
    labels = ascii_host.removesuffix(".").split(".")
    if labels[-1].isdigit():
        return _is_address(ascii_host, ipaddress.IPv4Address)
    return len(ascii_host) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in labels)


def _is_address(host: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(host)
    except ValueError:
        return False
    return True


def _fill(url: str, index: int) -> str:
    return _PLACEHOLDER.sub(lambda found: f"{index:0{found[1] or 1}d}", url)


def expand_template(url: str | tuple[str, ...] | None, index: int) -> str:
    """Return the URL of instance ``index``, counted from 0, from a template, a list or a plain URL.

    Raises
    ------
    ConfigError
        There is no such URL.
    """
    if url is None or index < 0 or (isinstance(url, tuple) and index >= len(url)):
        raise ConfigError(f"url: no URL for instance {index}", hint="give one URL per instance or a template")
    chosen = url if isinstance(url, str) else url[index]
    if not is_template(chosen):
        return chosen
    filled = _fill(chosen, index)
    problem = None
    try:
        _check_plain(filled, "url")
    except FieldProblem as found:
        problem = found
    if problem is not None:
        raise ConfigError(f"url: instance {index} {problem.text}", hint=problem.hint)
    return filled


def redact_url(url: str) -> str:
    """Redact a URL for display: user name, password and query values become ``***``; the fragment is removed."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return "***" if url else ""
    authority, rest = _split_authority(url[scheme.end() :])
    if "@" in authority:
        authority = f"***@{authority.rpartition('@')[2]}"
    path, question, query = rest.partition("#")[0].partition("?")
    shown = "&".join(f"{pair.partition('=')[0]}=***" if "=" in pair else "***" for pair in query.split("&"))
    return f"{scheme[0]}{authority}{path}{question}{shown if question else ''}"
