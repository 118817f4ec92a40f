"""The faults as JSON: each is an object whose member ``fault`` says which one it is."""

from __future__ import annotations

from typing import Any, Final, TypeAlias, get_args

import msgspec

from mcp_manager.config.parse import nearest
from mcp_manager.testing.faults import connections, dialogues, endings, messages, responses, servers, streams
from mcp_manager.testing.faults.record import FaultRecord

__all__ = ["AnyFault", "FaultOrder", "check_fault", "decode_order", "encode_fault"]

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
        Play the first fault for every such request from now on.
    """

    faults: list[AnyFault]
    on: str = "tools/call"
    times: int = 1
    always: bool = False


_MOST_TIMES: Final = 100_000
_SHOWN: Final = 64
"""How many characters of an unknown name an error shows."""


def decode_order(data: bytes) -> FaultOrder:
    """Decode an order; one fault, or an array of faults, stands for an order of these.

    Raises
    ------
    ValueError
        If it is no order. The message names the member.
    """
    given = msgspec.json.decode(data)
    if isinstance(given, list):
        given = {"faults": given}
    elif isinstance(given, dict) and "fault" in given:
        given = {"faults": [given]}
    if isinstance(given, dict) and isinstance(given.get("faults"), list):
        _check_names(given["faults"])
    order = msgspec.convert(given, FaultOrder)
    if not 1 <= order.times <= _MOST_TIMES:
        raise ValueError(f"times is a number from 1 to {_MOST_TIMES:,}, not {order.times} - at `$.times`")
    return order


def check_fault(fault: object) -> None:
    """Raise ``ValueError`` for what is no fault, and for a fault with a field that cannot be; the message names it."""
    if isinstance(fault, type) or not callable(getattr(fault, "play", None)):
        name = getattr(fault, "__name__", None)
        hint = f"call it: {name}()" if name else "Faults makes them, as in Faults.reset()"
        raise ValueError(f"{fault!r:.200} is no fault; {hint}")
    if isinstance(fault, FaultRecord):
        # Literals are checked only when a fault is decoded.
        try:
            msgspec.convert(msgspec.to_builtins(fault), type(fault))
        except msgspec.ValidationError as error:
            raise ValueError(f"{fault!r:.200} is no fault: {error}") from None


def _check_names(faults: list[Any]) -> None:
    """Raise ``ValueError`` for a name that no fault has; what is malformed otherwise is left to the decoder."""
    known = sorted(str(kind.__struct_config__.tag) for kind in get_args(AnyFault))
    for index, fault in enumerate(faults):
        name = fault.get("fault") if isinstance(fault, dict) else None
        if isinstance(name, str) and name not in known:
            near = nearest(name, known, cutoff=0.6)
            way_out = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
            raise ValueError(f"unknown fault {name[:_SHOWN]!r} ({way_out}) - at `$.faults[{index}].fault`")


def encode_fault(fault: object) -> object:
    """Return a fault as it is in JSON; for one that is no data, its text."""
    return msgspec.to_builtins(fault) if isinstance(fault, FaultRecord) else repr(fault)
