"""The faults as JSON: each is an object whose member ``fault`` says which one it is."""

from __future__ import annotations

from typing import Any, Final, TypeAlias, get_args

import msgspec

from mcp_manager.config.parse import nearest
from mcp_manager.testing.faults import connections, dialogues, endings, messages, responses, servers, streams
from mcp_manager.testing.faults.record import FaultRecord

__all__ = ["AnyFault", "FaultOrder", "check_fault", "check_notification", "check_place", "decode_order", "encode_fault"]

AnyFault: TypeAlias = (
    endings.Reset
    | endings.Stall
    | endings.TruncateStream
    | endings.AcceptedWithoutAnswer
    | dialogues.ExpireSession
    | dialogues.InputRequired
    | dialogues.ListChangedStorm
    | servers.Slow
    | servers.Flap
    | servers.RugPull
    | servers.Exit
    | servers.IgnoreSigterm
    | servers.StderrFlood
    | connections.Answer
    | connections.LastAnswer
    | connections.SilentLastAnswer
    | connections.Close
    | connections.Bytes
    | connections.NeverEndingHead
    | responses.Status
    | responses.Redirect
    | responses.HalfResponse
    | responses.LengthMismatch
    | responses.BadChunk
    | responses.GzipBomb
    | responses.Compressed
    | responses.InformationalFlood
    | responses.Oversize
    | messages.Reply
    | messages.Result
    | messages.TruncatedJson
    | messages.WrongId
    | messages.StringId
    | messages.DuplicateReply
    | messages.RpcErrorReply
    | messages.ProtocolVersion
    | streams.SseEvents
    | streams.SseNeverEnds
    | streams.SseComments
    | streams.SseTruncated
    | streams.SseByteByByte
    | streams.CutShort
)
"""Every fault that is data, as a tagged union; the tag is the member ``fault``."""


class FaultOrder(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a client orders with ``POST /__faults``.

    Parameters
    ----------
    faults
        The faults, in their order.
    on
        The method of the requests that they are for, ``*`` for every one, or ``connect`` for new connections.
    times
        How often the whole sequence is played.
    always
        Play the fault, which is one alone, for every such request from now on.
    """

    faults: list[AnyFault]
    on: str = "tools/call"
    times: int = 1
    always: bool = False


_MOST: Final = 100_000


_METHODS: Final = {
    *("initialize", "ping", "server/discover", "completion/complete", "logging/setLevel", "subscriptions/listen"),
    *("tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list", "resources/templates/list"),
    *("resources/read", "resources/subscribe", "resources/unsubscribe"),
    *("tasks/get", "tasks/list", "tasks/result", "tasks/cancel", "tasks/update"),
    *("notifications/initialized", "notifications/cancelled", "notifications/progress"),
    "notifications/roots/list_changed",
}
_OF_SERVERS: Final = {
    *("notifications/cancelled", "notifications/message", "notifications/progress", "notifications/tasks/status"),
    *("notifications/tools/list_changed", "notifications/prompts/list_changed"),
    *("notifications/resources/list_changed", "notifications/resources/updated", "notifications/elicitation/complete"),
}
_HTTP_METHODS: Final = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
_KINDS: Final[dict[str, type[FaultRecord]]] = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyFault)}


def decode_order(data: bytes) -> FaultOrder:
    """Decode an order; one fault, or an array of faults, stands for an order of these.

    Raises
    ------
    ValueError
        If it is no order. The message names the member, and what it can be.
    """
    try:
        given = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f'faults are JSON, such as {{"fault": "reset", "after": "headers"}}: {error}') from None
    if isinstance(given, list):
        given = {"faults": given}
    elif isinstance(given, dict) and "fault" in given:
        given = {"faults": [given]}
    if isinstance(given, dict) and isinstance(given.get("faults"), list):
        for number, fault in enumerate(given["faults"]):
            _check_members(fault, f"$.faults[{number}]")
    order = msgspec.convert(given, FaultOrder)
    if order.times < 1 or order.times * len(order.faults) > _MOST:
        raise ValueError(f"times is 1 at least, and gives {_MOST:,} faults at most, not {order.times} - at `$.times`")
    if order.always and len(order.faults) != 1:
        raise ValueError(f"always takes one fault, not {len(order.faults)} - at `$.always`")
    return order


def check_place(on: str) -> None:
    """Raise ``ValueError`` for what is no method, such as the name of a tool, or is a misspelt one."""
    known = {"*", "connect", *_METHODS, *_HTTP_METHODS}
    if on in known:
        return
    near = nearest(on, known, cutoff=0.8)
    if near is not None:
        raise ValueError(f"there is no method {on!r}: did you mean {near}?")
    # A server may have methods of its own.
    if "/" not in on:
        raise ValueError(f"on is a method such as tools/call, initialize or DELETE, or *, or connect, not {on!r}")


def check_notification(method: object) -> None:
    """Raise ``ValueError`` for what is no method, or is a misspelt one of those that servers send."""
    if not isinstance(method, str):
        raise ValueError(f"a method is a string, not {method!r}")
    near = None if method in _OF_SERVERS else nearest(method, _OF_SERVERS, cutoff=0.9)
    if near is not None:
        raise ValueError(f"servers send no {method!r}: did you mean {near}?")


def check_fault(fault: object) -> None:
    """Raise ``ValueError`` for what is no fault, or one with members that it cannot have."""
    if isinstance(fault, type) or not callable(getattr(fault, "play", None)):
        raise ValueError(f"a fault is made by a function, such as Faults.reset(), and is not {fault!r}")
    if isinstance(fault, FaultRecord):
        try:
            msgspec.convert(msgspec.to_builtins(fault), type(fault))
        except msgspec.ValidationError as error:
            raise ValueError(f"{fault!r}: {error}") from None


def _check_members(fault: object, place: str) -> None:
    """Raise ``ValueError`` for a fault or a member that does not exist."""
    name = fault.get("fault") if isinstance(fault, dict) else None
    if not isinstance(fault, dict) or not isinstance(name, str):
        raise ValueError(f'a fault is an object such as {{"fault": "reset", "after": "headers"}} - at `{place}`')
    if name not in _KINDS:
        near = nearest(name, _KINDS, cutoff=0.6)
        told = f"did you mean {near}?" if near else f"the faults are {', '.join(sorted(_KINDS))}"
        raise ValueError(f"there is no fault {name!r}: {told} - at `{place}.fault`")
    members: Any = _KINDS[name].__struct_fields__
    for member in fault:
        if member not in ("fault", *members):
            told = f"the fault {name} has {', '.join(members) or 'no members'}, not {member}"
            if member in FaultOrder.__struct_fields__:
                told += f'; that is for {{"faults": [...], "{member}": ...}}'
            raise ValueError(f"{told} - at `{place}`")


def encode_fault(fault: object) -> object:
    """Return a fault as it is in JSON; for one that is no data, its text."""
    return msgspec.to_builtins(fault) if isinstance(fault, FaultRecord) else repr(fault)
