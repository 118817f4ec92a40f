"""Requests and notifications of ``subscriptions/listen`` streams (2026-07-28, basic/patterns/subscriptions)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.methods import PROMPTS_CHANGED, RESOURCE_UPDATED, RESOURCES_CHANGED, TOOLS_CHANGED

__all__ = [
    "CHANGE_KINDS",
    "Interest",
    "offered_kinds",
    "read_acknowledged",
    "read_cancelled_id",
    "read_subscription_id",
]

CHANGE_KINDS: Final = {
    TOOLS_CHANGED: "toolsListChanged",
    PROMPTS_CHANGED: "promptsListChanged",
    RESOURCES_CHANGED: "resourcesListChanged",
}
"""The notifications about whole lists that a stream can carry, with the params member that requests each."""

_CAPABILITIES: Final = {TOOLS_CHANGED: "tools", PROMPTS_CHANGED: "prompts", RESOURCES_CHANGED: "resources"}
_SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"


class Interest(msgspec.Struct, frozen=True):
    """The notifications to receive: ``kinds`` are the methods of list changes, ``uris`` the resources."""

    kinds: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.kinds or self.uris)

    def __and__(self, other: Interest) -> Interest:
        return Interest(self.kinds & other.kinds, self.uris & other.uris)

    def __sub__(self, other: Interest) -> Interest:
        return Interest(self.kinds - other.kinds, self.uris - other.uris)

    def params(self) -> bytes:
        """Encode the params of the request that subscribes to it."""
        wanted: dict[str, Any] = {CHANGE_KINDS[kind]: True for kind in sorted(self.kinds)}
        if self.uris:
            wanted["resourceSubscriptions"] = sorted(self.uris)
        return msgspec.json.encode({"notifications": wanted})

    def news(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield method and params of the notifications that report all of it as changed."""
        for kind in sorted(self.kinds):
            yield kind, None
        for uri in sorted(self.uris):
            yield RESOURCE_UPDATED, msgspec.json.encode({"uri": uri})


class _Meta(msgspec.Struct):
    subscription_id: int | str | None = msgspec.field(default=None, name=_SUBSCRIPTION_KEY)


class _Tagged(msgspec.Struct):
    meta: _Meta = msgspec.field(default_factory=_Meta, name="_meta")


class _Honoured(msgspec.Struct, rename="camel"):
    tools_list_changed: bool | None = None
    prompts_list_changed: bool | None = None
    resources_list_changed: bool | None = None
    resource_subscriptions: list[str] | None = None


class _Acknowledged(msgspec.Struct):
    notifications: _Honoured | None = None


class _Cancelled(msgspec.Struct, rename="camel"):
    request_id: int | str


_tagged_decoder = JsonDecoder(_Tagged)
_acknowledged_decoder = JsonDecoder(_Acknowledged)
_cancelled_decoder = JsonDecoder(_Cancelled)


def offered_kinds(capabilities: Mapping[str, Any]) -> frozenset[str]:
    """Return the kinds of list changes that a server with these capabilities sends notifications about."""

    def is_offered(capability: object) -> bool:
        return isinstance(capability, Mapping) and capability.get("listChanged") is True

    return frozenset(kind for kind, name in _CAPABILITIES.items() if is_offered(capabilities.get(name)))


def read_subscription_id(params: bytes | None) -> int | str | None:
    """Return the id of the subscription that a message belongs to, ``None`` if it names none."""
    try:
        return _tagged_decoder.decode(params or b"{}", limits=None).meta.subscription_id
    except (msgspec.DecodeError, RecursionError):
        return None


def read_acknowledged(params: bytes | None, asked: Interest) -> Interest:
    """Return the part of ``asked`` that a server agreed to send; all of it if it does not say."""
    try:
        honoured = _acknowledged_decoder.decode(params or b"{}").notifications
    except (msgspec.DecodeError, RecursionError):
        honoured = None
    if honoured is None:
        return asked
    flags = {
        TOOLS_CHANGED: honoured.tools_list_changed,
        PROMPTS_CHANGED: honoured.prompts_list_changed,
        RESOURCES_CHANGED: honoured.resources_list_changed,
    }
    kinds = frozenset(kind for kind, is_honoured in flags.items() if is_honoured)
    return asked & Interest(kinds, frozenset(honoured.resource_subscriptions or ()))


def read_cancelled_id(params: bytes | None) -> int | str | None:
    """Return the id of the request that a server cancels, ``None`` if it names none."""
    try:
        return _cancelled_decoder.decode(params or b"{}", limits=None).request_id
    except (msgspec.DecodeError, RecursionError):
        return None
