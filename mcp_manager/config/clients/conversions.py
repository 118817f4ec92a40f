"""The conversions that the table of dialects names: a value of a client becomes fields of ours."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from mcp_manager.config._checks import TRANSPORT_SPELLINGS
from mcp_manager.config._plain import describe
from mcp_manager.config._problem import FieldProblem, entry, join
from mcp_manager.config.clients.authorization import (
    convert_api_key,
    convert_auth,
    convert_bearer,
    convert_client,
    convert_oauth,
    convert_scopes,
)
from mcp_manager.config.clients.dotenv import read_variables
from mcp_manager.config.clients.entry import Entry
from mcp_manager.config.clients.values import (
    as_flag,
    as_list,
    as_number,
    as_object,
    as_text,
    as_variable_name,
    as_word,
    members_of,
)
from mcp_manager.config.header_fields import OWNED_HEADERS

__all__ = ["CONVERSIONS", "take"]

_LONGEST_S: Final = 31_536_000.0
_NEEDS_SHELL: Final = re.compile(r"[|&;<>()`*?\[\]!#\n\\]|\$(?!\{[A-Za-z_][A-Za-z0-9_]*(?::-[^{}]*)?\})")
_LISTS: Final = {
    "allow": "allow", "include": "allow", "allowed": "allow", "enabled": "allow",
    "deny": "deny", "exclude": "deny", "excluded": "deny", "denied": "deny", "blocked": "deny", "disabled": "deny",
}  # fmt: skip
"""What a list in an object of tools means."""
_DURATION: Final = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|s|sec|m|min|h)?\s*")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_BUILT_IN: Final = frozenset({"builtin", "platform", "frontend", "inline_python", "inmemory", "sdk", "extension"})
"""Transports of what is part of a client, and no server that others could use."""


def take(found: Entry, settings: Mapping[str, Any], path: str) -> None:
    """Take the fields of an object into an entry, each by its conversion. What is wrong goes to its ``problems``."""
    for name, value in settings.items():
        field, is_told = found.meaning(name, value)
        if field is None:
            found.set_aside(name, value)
        elif value is not None:
            try:
                CONVERSIONS[field.conversion](found, value, join(path, name), field.ours)
            except FieldProblem as problem:
                found.problems.append(problem)
            if field.conversion == "ambiguous_time":
                found.extras[name] = value
            if is_told and field.ours.partition(".")[0] in found.ours:
                found.tell_meaning(name, "tools.allow" if name == "tools" else field.ours)


def _url(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take a URL; ``unix:///run/x.sock#/mcp`` is a socket and a path."""
    if isinstance(value, str) and value.lower().startswith("unix://"):
        path, _, rest = value[len("unix://") :].partition("#")
        found.put("unix_socket", path, where)
        value = f"http://localhost{rest if rest.startswith('/') else '/' + rest}"
    found.put(ours, value, where)


def _same(found: Entry, value: Any, where: str, ours: str) -> None:
    found.put(ours, value, where)


def _harmless(_found: Entry, _value: Any, _where: str, _ours: str) -> None:
    return


def _off(found: Entry, value: Any, where: str, _ours: str) -> None:
    found.is_off = as_flag(value, where) or found.is_off


def _on(found: Entry, value: Any, where: str, _ours: str) -> None:
    found.is_off = not as_flag(value, where) or found.is_off


def _options(found: Entry, value: Any, where: str, _ours: str) -> None:
    for name, each in as_object(value, where).items():
        if name in ("enabled", "disabled"):
            (_on if name == "enabled" else _off)(found, each, join(where, name), "")
        elif each not in (None, {}, []):
            found.ignore(f"options.{name}")


def _command(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take a program: text, a list with its arguments, or an object ``{path, args, env}``."""
    if isinstance(value, dict):
        for name, field in (("path", "command"), ("command", "command"), ("args", "args"), ("env", "env")):
            if value.get(name) is not None:
                CONVERSIONS[{"command": "command", "args": "arguments", "env": "variables"}[field]](
                    found, value[name], join(where, name), field
                )
        return
    if isinstance(value, list):
        words = [as_word(each, f"{where}[{index}]") for index, each in enumerate(value)]
        if not words:
            raise FieldProblem(where, "the list is empty", "give the program and its arguments")
        found.put("command", words[0], where)
        found.put("args", [*words[1:], *found.ours.get("args", [])], where)
        return
    words = value.split() if isinstance(value, str) else []
    if len(words) > 1 and not {"/", "\\", '"', "'", "$"} & set(words[0]):
        # Some clients give it to a shell. A program's name without a folder has no spaces.
        try:
            program, *rest = shlex.split(value)
        except ValueError:
            raise FieldProblem(where, "has a quotation mark that is not closed") from None
        found.note(f"{found.short(where)} is split into the program and its arguments")
        found.put(ours, program, where)
        found.put("args", [*rest, *found.ours.get("args", [])], where)
        return
    found.put(ours, value, where)


def _arguments(found: Entry, value: Any, where: str, ours: str) -> None:
    if isinstance(value, str):
        found.note(f"{found.short(where)} is split into words")
        try:
            value = shlex.split(value)
        except ValueError:
            raise FieldProblem(where, "has a quotation mark that is not closed") from None
    words = [as_word(each, f"{where}[{index}]") for index, each in enumerate(as_list(value, where))]
    found.put(ours, [*found.ours.get(ours, []), *words], where)


def _variables(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take variables: an object, or a list of ``NAME=value``; numbers and booleans become text."""
    for name, each in members_of(value, where, "="):
        if each is not None:
            found.put_member(ours, name, as_word(each, entry(where, name)), where)


def _env_file(found: Entry, value: Any, where: str, ours: str) -> None:
    name = found.rewritten(as_text(value, where), where).replace("$${", "${")
    for variable, text in read_variables(found.around, name, where).items():
        # Those that ``env`` gives come first.
        if variable not in found.ours.get(ours, {}):
            found.put_member(ours, variable, text.replace("${", "$${"), where)
            found.literal.add((ours, variable))


def _variable_names(found: Entry, value: Any, where: str, ours: str) -> None:
    names = []
    for index, each in enumerate(as_list(value, where)):
        name = each.get("name") if isinstance(each, dict) else each
        names.append(as_text(name, f"{where}[{index}]"))
    found.put(ours, [*found.ours.get(ours, []), *names], where)


def _folder(found: Entry, value: Any, where: str, ours: str) -> None:
    text = found.rewritten(as_text(value, where), where)
    if text and not os.path.isabs(text) and not text.startswith(("~", "$", "%")):
        text = os.path.normpath(found.around.workspace / text)
    found.put(ours, text, where)


def _headers(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take header fields, without those that the manager sets itself."""
    owned = []
    for name, each in members_of(value, where, ":"):
        if name.lower() in OWNED_HEADERS:
            owned.append(name)
        elif each is not None:
            found.put_member(ours, name, as_word(each, entry(where, name)), where)
    if owned:
        found.note(f"{', '.join(sorted(owned))} in {found.short(where)} is ignored, because the manager sets it")


def _header_variables(found: Entry, value: Any, where: str, ours: str) -> None:
    for name, variable in as_object(value, where).items():
        found.put_member(ours, name, f"${{{as_variable_name(variable, entry(where, name))}}}", where)


def _transport(found: Entry, value: Any, where: str, ours: str) -> None:
    if isinstance(value, dict):
        take(found, value, where)
        return
    spelling = as_text(value, where)
    folded = spelling.lower().replace("_", "-")
    if spelling.lower() in _BUILT_IN:
        found.skipped = f"is part of {found.dialect.client} ({spelling.lower()}), and no server of its own"
        return
    transport = {"local": "stdio", "remote": "http", "http-stream": "http", "url": "http"}.get(
        folded, TRANSPORT_SPELLINGS.get(folded, spelling)
    )
    if transport not in ("http", "sse", "stdio"):
        # Known, but not supported: the check of the server says so.
        transport = folded
    known = found.ours.get(ours)
    if known not in (None, transport):
        raise FieldProblem(where, "contradicts another field for the transport", "drop one of them")
    found.put(ours, transport, where)


def _milliseconds(found: Entry, value: Any, where: str, ours: str) -> None:
    _time(found, value, where, ours, 0.001)


def _seconds(found: Entry, value: Any, where: str, ours: str) -> None:
    _time(found, value, where, ours, 1.0)


def _claude_timeout(found: Entry, value: Any, where: str, ours: str) -> None:
    if as_number(value, where) < 1000:
        short = found.short(where)
        found.note(f"{short} is ignored, as Claude Code ignores less than 1000 milliseconds; give {ours}")
    else:
        _milliseconds(found, value, where, ours)


def _opencode_timeout(found: Entry, value: Any, where: str, ours: str) -> None:
    if not isinstance(value, dict):
        _time(found, value, where, ours, 0.001)
        return
    for name, each in value.items():
        field = {"startup": "start_timeout_s", "request": "request_timeout_s"}.get(name)
        if field is None:
            found.ignore(join(found.short(where), name))
        else:
            _time(found, each, join(where, name), field, 0.001)


def _ambiguous_time(found: Entry, value: Any, where: str, _ours: str) -> None:
    if isinstance(value, str) and (duration := _DURATION.fullmatch(value)) is not None and duration[2]:
        _time(found, value, where, "request_timeout_s", 1.0)
        return
    found.note(f"{found.short(where)} is ignored, because its unit differs between clients; give request_timeout_s")


def _tool_names(found: Entry, value: Any, where: str, ours: str) -> None:
    names = [as_text(each, f"{where}[{index}]") for index, each in enumerate(as_list(value, where))]
    kind = ours.rpartition(".")[2]
    if (kind == "allow" and names == ["*"]) or (kind == "deny" and not names):
        return
    tools = found.ours.get("tools", {})
    known = tools.get(kind)
    if kind == "allow" and known is not None:
        raise FieldProblem(where, "names allowed tools a second time", "give one list")
    found.put("tools", {**tools, kind: [*(known or ()), *names]}, where)


def _tool_names_if_any(found: Entry, value: Any, where: str, ours: str) -> None:
    if as_list(value, where):
        _tool_names(found, value, where, ours)


def _tools(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take a list of tools, our own ``{allow, deny}``, or an object with what is said of each tool."""
    if isinstance(value, list):
        _tool_names(found, value, where, f"{ours}.allow")
        return
    members = as_object(value, where)
    if members.keys() <= {"allow", "deny"}:
        found.put(ours, value, where)
        return
    if members.keys() <= _LISTS.keys():
        for name, each in members.items():
            _tool_names(found, each, join(where, name), f"{ours}.{_LISTS[name]}")
        return
    off, changed = [], []
    for name, each in members.items():
        enabled = each if isinstance(each, bool) else each.get("enabled") if isinstance(each, dict) else None
        if enabled is False:
            off.append(name)
        if not isinstance(each, bool) and not (isinstance(each, dict) and each.keys() <= {"enabled"}):
            changed.append(name)
    if off:
        _tool_names(found, off, where, f"{ours}.deny")
    if changed:
        found.note(f"what {found.short(where)} says of single tools is ignored, except whether they are enabled")


def _helper(found: Entry, value: Any, where: str, ours: str) -> None:
    """Take a command that prints headers. What needs a shell is not run."""
    if isinstance(value, list):
        found.put(ours, [as_word(each, f"{where}[{index}]") for index, each in enumerate(value)], where)
        return
    text = found.rewritten(as_text(value, where), where)
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words or _NEEDS_SHELL.search(text):
        found.note(f"{found.short(where)} is ignored, because it needs a shell; give headers_command as a list")
        return
    if words[0].startswith("~/"):
        words[0] = f"{found.around.home}{words[0][1:]}"
    found.put(ours, words, where)


def _request_options(found: Entry, value: Any, where: str, _ours: str) -> None:
    """Take the options of Continue's requests."""
    fields = {"headers": "headers", "timeout": "request_timeout_s", "proxy": "proxy"}
    tls = {"verifySsl": "verify", "caBundlePath": "ca_file"}
    for name, each in as_object(value, where).items():
        inner = join(where, name)
        if each is None:
            continue
        if name in fields:
            CONVERSIONS[{"headers": "headers", "timeout": "seconds"}.get(name, "same")](
                found, each, inner, fields[name]
            )
        elif name in tls and not isinstance(each, list):
            found.put_member("tls", tls[name], each, inner)
        elif name == "clientCertificate" and isinstance(each, dict):
            for theirs, field in (("cert", "cert_file"), ("key", "key_file"), ("passphrase", "key_password")):
                if each.get(theirs) is not None:
                    found.put_member("tls", field, each[theirs], inner)
        else:
            found.ignore(f"{found.short(where)}.{name}")


def _sandbox(found: Entry, value: Any, where: str, _ours: str) -> None:
    if as_flag(value, where):
        found.note("the sandbox is ignored: the program runs without one")


def _time(found: Entry, value: Any, where: str, ours: str, unit: float) -> None:
    duration = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if duration is not None:
        value, unit = float(duration[1]), _UNITS.get(duration[2], unit)
    seconds = as_number(value, where) * unit
    if seconds < 0:
        raise FieldProblem(where, f"expected a number from 0, got {describe(value)}")
    # In the clients, 0 turns the limit off.
    found.put(ours, min(seconds, _LONGEST_S) if seconds else _LONGEST_S, where)


def _bearer_variable(found: Entry, value: Any, where: str, ours: str) -> None:
    found.put(ours, {"type": "bearer", "token": f"${{{as_variable_name(value, where)}}}"}, where)


CONVERSIONS: Final[Mapping[str, Callable[[Entry, Any, str, str], None]]] = {
    "same": _same,
    "url": _url,
    "harmless": _harmless,
    "off": _off,
    "on": _on,
    "options": _options,
    "command": _command,
    "arguments": _arguments,
    "variables": _variables,
    "env_file": _env_file,
    "variable_names": _variable_names,
    "folder": _folder,
    "headers": _headers,
    "header_variables": _header_variables,
    "transport": _transport,
    "milliseconds": _milliseconds,
    "seconds": _seconds,
    "start_milliseconds": _milliseconds,
    "start_seconds": _seconds,
    "claude_timeout": _claude_timeout,
    "opencode_timeout": _opencode_timeout,
    "ambiguous_time": _ambiguous_time,
    "tool_names": _tool_names,
    "tool_names_if_any": _tool_names_if_any,
    "tools": _tools,
    "helper": _helper,
    "request_options": _request_options,
    "sandbox": _sandbox,
    "bearer_variable": _bearer_variable,
    "auth": convert_auth,
    "oauth": convert_oauth,
    "oauth_scopes": convert_scopes,
    "oauth_client": convert_client,
    "bearer": convert_bearer,
    "api_key": convert_api_key,
}
