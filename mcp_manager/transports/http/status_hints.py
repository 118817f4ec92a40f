"""What helps against an HTTP status that is not a reply."""

from __future__ import annotations

from typing import Final

from yarl import URL

from mcp_manager.transports.http.bare_origin import USUAL_PATH, is_bare

__all__ = ["about_forbidden", "about_gateway", "about_other", "about_unavailable", "later", "no_endpoint_at"]

_ENDPOINT: Final = "check that url is the MCP endpoint"
_MOST_OFTEN: Final = f", most often {USUAL_PATH}"
_ITS_LOG: Final = "it did not say why: look into its own log"
_HOST: Final = "the server may not accept the host in url: use the name that it expects, or allow this one there"
# Statuses that a request to something else than an MCP endpoint may get, also if it had a usual path.
_NO_ENDPOINT: Final = frozenset({404, 405, 406, 410, 415, 422, 501})
_TOO_LARGE: Final = "send shorter arguments, or raise the limit of the server or of the proxy before it"


def later(retry_after_s: float | None) -> str:
    """Return when to try again, "" if that is not known."""
    return "" if retry_after_s is None else f"retry in {retry_after_s:.1f} s"


def about_forbidden(said: str, *, has_credentials: bool, is_obtained: bool) -> str:
    """Return what helps against 403, which is often not about credentials.

    Parameters
    ----------
    said
        What the server said, "" if nothing.
    has_credentials, is_obtained
        Whether the request had credentials, and whether they were obtained for it.
    """
    words = said.lower()
    if "origin" in words:
        return "the server does not accept the Origin of the request: correct it in headers, or allow it there"
    if "host" in words:
        return _HOST
    if is_obtained:
        return "if it is about credentials, the token may lack a scope: check auth.scopes"
    if has_credentials:
        return "if it is about credentials, check auth and headers in the server's configuration"
    if said:
        return ""
    return "if it wants credentials, set auth, or headers; else ask its operator to let this client in"


def about_unavailable(retry_after_s: float | None) -> str:
    """Return what helps against 503."""
    return later(retry_after_s) or "it may be starting or overloaded: retry later, or check that it runs"


def about_gateway(status: int) -> str:
    """Return what helps against a status of a gateway."""
    if status in (504, 524):
        return "check that the server behind it runs; if calls take long, raise the gateway's own timeout"
    return "check that the server behind it runs"


def about_other(status: int, url: URL, said: str, body: bytes, *, is_new: bool) -> str:
    """Return what helps against any other status from 400.

    Parameters
    ----------
    status
        The status.
    url
        The URL of the request.
    said
        What the server said, "" if nothing.
    body
        The body of the response.
    is_new
        Whether the URL was never right before.
    """
    if status == 421:
        return _HOST
    if status == 413:
        return _TOO_LARGE
    if status == 431:
        return "the headers are too long for it: shorten headers, or the token, in the server's configuration"
    # Servers that expect TLS mention "HTTPS" in the body: nginx, Apache, Go, and the proxies of Node and Python.
    if url.scheme == "http" and (status == 426 or (status == 400 and b"https" in body[:4096].lower())):
        return "the server may speak TLS there: write https:// in url"
    if is_new and status in _NO_ENDPOINT:
        return f"{_ENDPOINT}{_MOST_OFTEN if url.raw_path != USUAL_PATH else ''}"
    if said or status in (408, 425):
        return ""
    return _ITS_LOG


def no_endpoint_at(url: URL) -> str:
    """Return what helps if a URL without a path, and the usual path after it, are no endpoints; "" for other URLs."""
    if not is_bare(str(url)):
        return ""
    return f"url has no path, and {USUAL_PATH} is no MCP endpoint either: set url to the endpoint, with its path"
