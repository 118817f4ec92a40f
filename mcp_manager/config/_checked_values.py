"""The cache of checked values: a configuration made only of them needs no full check."""

from __future__ import annotations

import re
from itertools import compress
from operator import is_not
from typing import Any, Final

import msgspec

from mcp_manager.config.model import ServerConfig

__all__ = ["is_known", "is_plain_id", "is_plain_url", "learn"]

# The most values remembered per field; the servers of a fleet use few different ones.
_MOST: Final = 64

_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL: Final = "[a-z](?:-?[a-z0-9]){0,20}"
_PLAIN_URL: Final = re.compile(
    rf"https?://(?:{_LABEL}(?:\.{_LABEL}){{0,4}}|{_OCTET}(?:\.{_OCTET}){{3}})(?::[1-9][0-9]{{0,3}})?(?:/[A-Za-z0-9._~/-]*)?"
)
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}")

_DEFAULTS: Final[dict[str, Any]] = dict(
    zip(ServerConfig.__struct_fields__, ServerConfig.__struct_defaults__, strict=True)
)
_NAMES: Final = tuple(_DEFAULTS)
_VALUES: Final = tuple(_DEFAULTS.values())
_INDEXES: Final = range(len(_NAMES))
# These are always checked in full: whether they are valid depends on other fields or on files.
_SPECIAL: Final = frozenset(
    {
        "server",
        "command",
        "args",
        "cwd",
        "inherit_env",
        "transport",
        "auth",
        "headers_command",
        "tls",
        "proxy",
        "unix_socket",
    }
)
_EMPTY: Final = frozenset({"headers", "env", "extras"})
_SECTIONS: Final = frozenset(name for name, value in _DEFAULTS.items() if isinstance(value, msgspec.Struct)) - _SPECIAL
_ALONE: Final = frozenset(_DEFAULTS) - _SPECIAL - _EMPTY - _SECTIONS - {"name", "url", "instances"}

_scalars: Final[dict[str, set[tuple[type, Any]]]] = {name: set() for name in _ALONE}
_sections: Final[dict[str, list[Any]]] = {name: [] for name in _SECTIONS}


def is_plain_id(server_id: object) -> bool:
    """Tell whether a server id matches a simple pattern; ids that do not may still be valid."""
    return type(server_id) is str and _PLAIN_ID.fullmatch(server_id) is not None


def is_plain_url(url: object) -> bool:
    """Tell whether a URL matches a simple pattern and is no template; URLs that do not may still be valid."""
    return type(url) is str and _PLAIN_URL.fullmatch(url) is not None


def is_known(config: ServerConfig) -> bool:
    """Tell whether a configuration is known to be valid: each value was checked before, or is simple."""
    if type(config) is not ServerConfig or not is_plain_url(config.url):
        return False
    values = msgspec.structs.astuple(config)
    # Most values are the default objects themselves; compress() skips them without a loop in Python.
    for index in compress(_INDEXES, map(is_not, values, _VALUES)):
        if not _is_valid(_NAMES[index], values[index]):
            return False
    return True


def _is_valid(name: str, value: Any) -> bool:
    if name == "url":
        return True
    if name in _EMPTY:
        return type(value) is dict and not value
    if name == "instances":
        return type(value) is int and value == 1
    if name == "name":
        return is_plain_id(value)
    if name in _SECTIONS:
        return any(value is each for each in _sections[name])
    try:
        return name in _ALONE and (type(value), value) in _scalars[name]
    except TypeError:
        return False


def learn(config: ServerConfig) -> dict[str, Any]:
    """Remember the values of a checked configuration, and return its sections that equal remembered ones.

    Sharing them saves memory, and lets :func:`is_known` recognise them by identity.
    """
    shared: dict[str, Any] = {}
    for name, default in _DEFAULTS.items():
        value = getattr(config, name)
        if value is default:
            continue
        if name in _ALONE and len(_scalars[name]) < _MOST:
            _scalars[name].add((type(value), value))
        elif name in _SECTIONS:
            known = next((each for each in (default, *_sections[name]) if each == value), None)
            if known is not None:
                shared[name] = known
            elif len(_sections[name]) < _MOST:
                _sections[name].append(value)
    return shared
