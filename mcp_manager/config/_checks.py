"""The checks of a server configuration's values, after their types are known to be right."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from mcp_manager.config._credentials import check_credentials
from mcp_manager.config._network import check_network
from mcp_manager.config._problem import FieldProblem, at, entry, join
from mcp_manager.config._url import check_url, is_address_url, split_nameserver
from mcp_manager.config.header_fields import check_headers
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.resilience import FallbackConfig
from mcp_manager.config.tools import ToolsConfig, is_pattern

__all__ = ["TRANSPORT_SPELLINGS", "check_settings", "check_text"]

TRANSPORT_SPELLINGS: Final = {
    "http": "http",
    "streamable-http": "http",
    "streamable_http": "http",
    "streamablehttp": "http",
    "stdio": "stdio",
    "sse": "sse",
    "memory": "memory",
    "ws": "the WebSocket transport",
    "websocket": "the WebSocket transport",
}
"""Our name of a transport by its spelling elsewhere, in lower case; WebSocket is known but not supported."""

_LONGEST_TEXT: Final = 256
# Compiling longer ones would take more than a tenth of a second.
_LONGEST_PATTERNS: Final = 16_384
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_RESERVED_CODES: Final = range(-32768, -31999)
"""The codes that JSON-RPC reserves (JSON-RPC 2.0, section 5.1)."""
_ASCENDING: Final = (
    ("breaker", "open_s", "open_max_s"),
    ("health", "unhealthy_interval_s", "unhealthy_interval_max_s"),
    ("health", "interval_s", "idle_interval_s"),
    ("restart", "initial_s", "max_s"),
    ("retry", "backoff_s", "backoff_max_s"),
    ("limits", "min", "max"),
    ("discovery", "min_refresh_s", "refresh_s"),
)


def check_settings(config: ServerConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` below ``path`` for the first value that cannot work."""
    check_text(config.name, at(path, "name"))
    check_text(config.server_type, at(path, "server_type"))
    _check_tags(config.tags, at(path, "tags"))
    if config.instances > config.max_instances:
        text = f"{config.instances} exceeds max_instances, which is {config.max_instances}"
        raise FieldProblem(at(path, "instances"), text, "raise max_instances")
    if config.url is not None:
        _check_endpoints(config, path)
        _check_discovery(config, path)
        _check_sse(config, path)
        check_headers(config.headers, at(path, "headers"))
        check_credentials(config, path)
        check_network(config, path)
    elif config.server is not None:
        if config.discovery.kind != "none":
            raise FieldProblem(at(path, "discovery.kind"), "needs a url", "drop it: a server in memory has no address")
    else:
        if config.discovery.kind != "none":
            raise FieldProblem(
                at(path, "discovery.kind"), "cannot be combined with a command", "give a url, or drop it"
            )
        _check_process(config, path)
    _check_fallback(config.fallback, at(path, "fallback"))
    _check_tools(config.tools, at(path, "tools"))
    _check_rpc_errors(config.breaker.rpc_errors, at(path, "breaker.rpc_errors"))
    for section, lower, upper in _ASCENDING:
        settings = getattr(config, section)
        least, most = getattr(settings, lower), getattr(settings, upper)
        if most is not None and least > most:
            raise FieldProblem(at(path, f"{section}.{lower}"), f"exceeds {section}.{upper}")


def check_text(text: str, path: str) -> None:
    """Raise :class:`FieldProblem` for text that does not fit on one line of a log, table or label."""
    if len(text) > _LONGEST_TEXT:
        raise FieldProblem(path, f"is {len(text)} characters long", f"at most {_LONGEST_TEXT} are allowed")
    if _CONTROL.search(text):
        raise FieldProblem(path, "contains a control character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise FieldProblem(path, "contains a lone surrogate, which is not Unicode text")


def _check_tags(tags: tuple[str, ...], path: str) -> None:
    seen: set[str] = set()
    for index, tag in enumerate(tags):
        where = f"{path}[{index}]"
        check_text(tag, where)
        if not tag:
            raise FieldProblem(where, "must not be empty")
        if tag in seen:
            raise FieldProblem(where, f"repeats the tag {tag!r}")
        seen.add(tag)


def _check_rpc_errors(codes: tuple[int, ...], path: str) -> None:
    for index, code in enumerate(codes):
        where = f"{path}[{index}]"
        if -code in _RESERVED_CODES:
            raise FieldProblem(where, f"{code} is not a JSON-RPC error code", f"did you mean {-code}?")
        if code in codes[:index]:
            raise FieldProblem(where, f"repeats the code {code}")


def _check_fallback(fallback: FallbackConfig, path: str) -> None:
    if fallback.tag is not None:
        check_text(fallback.tag, at(path, "tag"))
        if not fallback.tag:
            raise FieldProblem(at(path, "tag"), "must not be empty", "give a tag, or leave it out")
    for name, result in fallback.static.items():
        where = join(at(path, "static"), name)
        method, colon, tool = name.partition(":")
        check_text(name, where)
        if not method or method.startswith("notifications/"):
            raise FieldProblem(where, "is not the method of a request")
        if colon and (method != "tools/call" or not tool):
            raise FieldProblem(where, "is neither a method nor a tool", "write a tool as tools/call:<name>")
        if not isinstance(result, dict):
            raise FieldProblem(where, "is not an object, as every result is")
        try:
            msgspec.json.encode(result)
        except (TypeError, ValueError, RecursionError) as error:
            raise FieldProblem(where, "cannot be written as JSON") from error


def _check_tools(tools: ToolsConfig, path: str) -> None:
    for name, patterns in (("allow", tools.allow or ()), ("deny", tools.deny)):
        for index, pattern in enumerate(patterns):
            where = f"{at(path, name)}[{index}]"
            check_text(pattern, where)
            if pattern != pattern.strip():
                raise FieldProblem(where, "begins or ends with white space", "remove it: no tool with it can be called")
            if "${" in pattern:
                raise FieldProblem(where, "contains ${, but no variable is filled in here", "write the name itself")
        length = sum(len(each) for each in patterns if is_pattern(each))
        if length > _LONGEST_PATTERNS:
            text = f"the patterns are {length} characters long together"
            raise FieldProblem(at(path, name), text, f"at most {_LONGEST_PATTERNS} are allowed")


def _check_endpoints(config: ServerConfig, path: str) -> None:
    where = at(path, "url")
    if isinstance(config.url, str):
        check_url(config.url, where, template=True, last_index=max(config.instances - 1, 0))
        return
    urls = config.url or ()
    if not urls:
        raise FieldProblem(where, "the list is empty", "give at least one URL")
    for index, url in enumerate(urls):
        check_url(url, f"{where}[{index}]")
    if config.instances > len(urls):
        text = f"{config.instances} exceeds the number of URLs, which is {len(urls)}"
        raise FieldProblem(at(path, "instances"), text, "give one URL per instance or a template")


def _check_discovery(config: ServerConfig, path: str) -> None:
    discovery = config.discovery
    for index, text in enumerate(discovery.nameservers):
        try:
            split_nameserver(text)
        except ValueError:
            where = at(path, f"discovery.nameservers[{index}]")
            raise FieldProblem(
                where, "is not the address of a name server", "write 192.0.2.1 or 192.0.2.1:5353"
            ) from None
    if discovery.kind == "none":
        return
    where = at(path, "discovery.kind")
    if not isinstance(config.url, str) or config.has_url_template:
        raise FieldProblem(where, "needs a single URL without a placeholder", "give one URL, or drop it")
    if is_address_url(config.url):
        raise FieldProblem(where, "needs a host name in url, not an IP address", "give the name, or drop it")
    for name in ("weights", "tiers"):
        if getattr(config.balancing, name):
            raise FieldProblem(at(path, f"balancing.{name}"), "does not apply to discovered instances", "drop it")


def _check_sse(config: ServerConfig, path: str) -> None:
    if config.transport == "sse" and config.protocol_version in ("stateless", "2026-07-28"):
        text = f"{config.protocol_version} is not available over HTTP+SSE"
        raise FieldProblem(at(path, "protocol_version"), text, "leave it at auto, or use the http transport")


def _check_process(config: ServerConfig, path: str) -> None:
    texts = [("command", config.command or ""), ("cwd", config.cwd)]
    texts += [(f"args[{index}]", argument) for index, argument in enumerate(config.args)]
    for name, text in texts:
        if text is None:
            continue
        if name in ("command", "cwd") and not text.strip():
            raise FieldProblem(at(path, name), "must not be empty")
        if "\x00" in text:
            raise FieldProblem(at(path, name), "contains a NUL character")
    for index, name in enumerate(config.inherit_env):
        _check_variable_name(name, f"{at(path, 'inherit_env')}[{index}]")
    for position, (name, value) in enumerate(config.env.items(), start=1):
        _check_variable_name(name, at(path, "env"), f"name {position} ")
        if "\x00" in value:
            raise FieldProblem(entry(at(path, "env"), name), "contains a NUL character")


def _check_variable_name(name: str, path: str, subject: str = "") -> None:
    if not name:
        raise FieldProblem(path, f"{subject}must not be empty")
    if "=" in name or "\x00" in name:
        raise FieldProblem(path, f"{subject}contains '=' or a NUL character", "give name and value separately")
