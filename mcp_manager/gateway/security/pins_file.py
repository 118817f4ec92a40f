"""The file with the pinned definitions: JSON that a person can read, review and compare."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Final

import msgspec

from mcp_manager.errors import ConfigError
from mcp_manager.gateway.endpoints.kinds import Kind
from mcp_manager.gateway.security.definitions import PINNED, Definition, changed_members, hash_of
from mcp_manager.gateway.security.replaced_file import replace_file

__all__ = ["Difference", "Pin", "PinsOfServer", "differences", "read_pins", "write_pins"]

_LARGEST: Final = 256 * 1024 * 1024
_VERSION: Final = 1
_MAKE: Final = "make it with: mcp-manager pin CONFIG"


class Pin(msgspec.Struct, frozen=True):
    """A definition that somebody has approved of.

    Parameters
    ----------
    pinned
        The day.
    hash
        The hash of the definition.
    definition
        The definition.
    """

    pinned: date
    hash: str
    definition: dict[str, Any]


PinsOfServer = dict[str, dict[str, Pin]]
"""The pins of a server, by the kind of list (``tools``, ``prompts``) and the name."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    servers: dict[str, PinsOfServer]


class Difference(msgspec.Struct, frozen=True):
    """A definition that is not as pinned.

    Parameters
    ----------
    server_id, kind, name
        What it is about; ``kind`` is ``tools`` or ``prompts``.
    what
        ``added``, ``removed`` or ``changed``.
    members
        The members that have changed.
    """

    server_id: str
    kind: str
    name: str
    what: str
    members: tuple[str, ...] = ()


def read_pins(path: str) -> dict[str, PinsOfServer]:
    """Read a file of pins, by server.

    Raises
    ------
    ConfigError
        The file cannot be read, or was changed by hand, so that a hash is not that of its definition.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        # A relative path would not say in which directory it is missing.
        raise ConfigError(f"the file of pins {os.path.abspath(path)!r} cannot be read: {reason}", hint=_MAKE) from None
    if len(text) > _LARGEST:
        raise ConfigError(f"the file of pins {path!r} has more than {_LARGEST} bytes", hint=_MAKE)
    try:
        # As definitions are read, so that they have the same hashes.
        file_ = msgspec.convert(json.loads(text.decode("utf-8", "surrogatepass")), _File)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise ConfigError(f"the file of pins {path!r} cannot be used: {error}", hint=_MAKE) from None
    if file_.version != _VERSION:
        raise ConfigError(f"the file of pins {path!r} has version {file_.version}, not {_VERSION}", hint=_MAKE)
    for server_id, kinds in file_.servers.items():
        for kind, pins in kinds.items():
            for name, pin in pins.items():
                if hash_of(pin.definition) != pin.hash or pin.definition.get("name") != name:
                    where = f"{server_id}.{kind}.{name}"
                    raise ConfigError(
                        f"the file of pins {path!r}: {where:.200}: the hash is not that of the definition",
                        hint="do not edit it: mcp-manager pin CONFIG writes it",
                    )
    return file_.servers


def write_pins(path: str, servers: Mapping[str, PinsOfServer]) -> None:
    """Write a file of pins, at once.

    Raises
    ------
    ConfigError
        It cannot be written.
    """
    plain = msgspec.to_builtins(_File(_VERSION, dict(servers)))
    # Sorted, so that a comparison with an older file shows what has changed, and nothing else.
    text = json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    try:
        # It has no secrets, and the gateway may run as another user than whoever pins.
        replace_file(path, text.encode("utf-8", "surrogatepass"), mode=0o644)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"the file of pins {path!r} cannot be written: {reason}") from None


def differences(
    server_id: str, pins: PinsOfServer, kind: Kind, found: Mapping[str, Definition]
) -> Iterator[Difference]:
    """Yield how the definitions of one kind that a server lists differ from its pins, sorted by name.

    Parameters
    ----------
    server_id
        The server.
    pins
        Its pins.
    kind
        The kind; one of :data:`PINNED`.
    found
        The definitions by name.
    """
    assert kind in PINNED
    pinned = pins.get(kind.member, {})
    for name in sorted({*pinned, *found}):
        if name not in pinned:
            yield Difference(server_id, kind.member, name, "added")
        elif name not in found:
            yield Difference(server_id, kind.member, name, "removed")
        elif pinned[name].hash != found[name].hash:
            members = tuple(changed_members(pinned[name].definition, found[name].members))
            yield Difference(server_id, kind.member, name, "changed", members)
