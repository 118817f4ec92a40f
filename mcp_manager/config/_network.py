"""The checks of a server's TLS, proxy and unix socket settings."""

from __future__ import annotations

import os
import re
import stat
import sys
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from mcp_manager.config._problem import FieldProblem, at, shown
from mcp_manager.config._url import check_url
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.tls import TlsConfig

__all__ = ["check_network", "take_socket_url"]

_SOCKET_URL: Final = "http+unix://"
# The size of sun_path in the kernel's sockaddr_un, minus the final zero byte.
_LONGEST_SOCKET_PATH: Final = 107 if sys.platform == "linux" else 103
_USER: Final = re.compile(r"//[^/?#]*@")
_PROXY_WAY_OUT: Final = 'give a URL such as http://proxy.example:3128, "env", or "" for none'
_SOCKET_URL_WAY_OUT: Final = "write / as %2F: http+unix://%2Frun%2Fserver.sock/mcp"
_SOCKET_WAY_OUT: Final = "give the path of the socket that the server listens on"


def take_socket_url(fields: dict[str, Any], path: str) -> None:
    """Split ``http+unix://<quoted path>/mcp``, a spelling of other clients, into ``url`` and ``unix_socket``."""
    url = fields.get("url")
    if not isinstance(url, str) or not url.lower().startswith(_SOCKET_URL):
        return
    authority, slash, rest = url[len(_SOCKET_URL) :].partition("/")
    where = at(path, "url")
    if fields.get("unix_socket"):
        raise FieldProblem(where, "names a unix socket, and so does unix_socket", "give one of them")
    if "@" in authority or not authority:
        raise FieldProblem(where, "names no unix socket", _SOCKET_URL_WAY_OUT)
    socket_path = unquote(authority)
    if not socket_path.startswith("/"):
        text = f"names the unix socket {shown(socket_path)}, which is not an absolute path"
        raise FieldProblem(where, text, _SOCKET_URL_WAY_OUT)
    fields["unix_socket"] = socket_path
    fields["url"] = f"http://localhost{slash}{rest}"


def check_network(config: ServerConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` below ``path`` for the first setting that cannot work."""
    _check_tls(config.tls, at(path, "tls"))
    if config.proxy:
        _check_proxy(config, at(path, "proxy"))
    if config.unix_socket:
        _check_socket(config, path)


def _check_tls(tls: TlsConfig, path: str) -> None:
    for name in ("ca_file", "cert_file", "key_file", "key_password"):
        value = getattr(tls, name)
        if value is None:
            continue
        if not value:
            raise FieldProblem(at(path, name), "must not be empty", "give a value, or leave it out")
        if "\x00" in value:
            raise FieldProblem(at(path, name), "contains a NUL character", "remove it")
    for name in ("key_file", "key_password"):
        if getattr(tls, name) is not None and tls.cert_file is None:
            raise FieldProblem(at(path, "cert_file"), "missing", f"give the client certificate that {name} is for")
    if tls.ca_file is not None or tls.cert_file is not None:
        # Imports OpenSSL, which importing the package must not load.
        from mcp_manager.config.tls_files import check_tls_files  # noqa: PLC0415

        check_tls_files(tls, path)


def _check_proxy(config: ServerConfig, path: str) -> None:
    if config.discovery.kind != "none":
        raise FieldProblem(
            path, "cannot be combined with discovery: a proxy resolves names itself", 'drop one, or set it to ""'
        )
    proxy = config.proxy or ""
    if proxy == "env":
        return
    scheme = proxy.partition("://")[0].lower()
    if scheme.startswith("socks"):
        raise FieldProblem(path, "is a SOCKS proxy, which is not supported", "give an http:// or https:// proxy")
    if re.search(r"[\x00-\x20\x7f]", proxy):
        raise FieldProblem(path, "contains a space or a control character", "percent-encode it")
    if "://" not in proxy or scheme not in ("http", "https"):
        raise FieldProblem(path, "is not an http:// or https:// URL", _PROXY_WAY_OUT)
    check_url(_USER.sub("//", proxy, count=1), path)
    parts = urlsplit(proxy)
    if parts.path not in ("", "/") or parts.query:
        raise FieldProblem(path, "has a path or query, which a proxy does not use", _PROXY_WAY_OUT)
    for text in (parts.username, parts.password):
        if text is not None and not re.fullmatch(r"[^\x00-\x1f\x7f]*", unquote(text)):
            raise FieldProblem(path, "has a control character in its user name or password", "remove it")
    if ":" in unquote(parts.username or ""):
        raise FieldProblem(path, "has a colon in its user name", "use another user name (RFC 7617, section 2)")


def _check_socket(config: ServerConfig, path: str) -> None:
    where = at(path, "unix_socket")
    socket_path = config.unix_socket or ""
    if config.proxy:
        raise FieldProblem(where, "cannot be combined with proxy", 'drop one of them, or set proxy to ""')
    if config.discovery.kind != "none":
        raise FieldProblem(
            where, "cannot be combined with discovery: a socket has no name to look up", "drop one of them"
        )
    urls = (config.url,) if isinstance(config.url, str) else config.url or ()
    if any(url.lower().startswith("https:") for url in urls):
        raise FieldProblem(
            where, "cannot be combined with https: TLS over a unix socket is not supported", "write http:// in url"
        )
    if "\x00" in socket_path:
        raise FieldProblem(where, "contains a NUL character", "remove it")
    length = len(os.fsencode(os.path.abspath(os.path.expanduser(socket_path))))
    if length > _LONGEST_SOCKET_PATH:
        text = f"is {length} bytes long, and the system allows {_LONGEST_SOCKET_PATH}"
        raise FieldProblem(where, text, "move the socket to a shorter path")
    try:
        mode = os.stat(os.path.expanduser(socket_path)).st_mode
    except OSError:
        # It does not exist until the server runs.
        return
    if not stat.S_ISSOCK(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a file"
        raise FieldProblem(where, f"is {kind}, not a socket", _SOCKET_WAY_OUT)
