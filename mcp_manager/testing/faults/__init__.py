"""Faults: what a server does instead of answering correctly.

All but ``Dripping``, ``Hold``, ``Moods`` and ``StaleReplies`` are data, and can be sent to a server as JSON.
"""

from __future__ import annotations

from mcp_manager.testing.faults.connections import (
    Answer,
    Bytes,
    Close,
    Hold,
    LastAnswer,
    NeverEndingHead,
    SilentLastAnswer,
)
from mcp_manager.testing.faults.constructors import Faults
from mcp_manager.testing.faults.dialogues import ExpireSession, InputRequired, ListChangedStorm
from mcp_manager.testing.faults.endings import AcceptedWithoutAnswer, Point, Reset, Stall, TruncateStream
from mcp_manager.testing.faults.load import Moods, StaleReplies
from mcp_manager.testing.faults.messages import (
    DuplicateReply,
    ProtocolVersion,
    Reply,
    Result,
    RpcErrorReply,
    StringId,
    TruncatedJson,
    WrongId,
)
from mcp_manager.testing.faults.record import FaultRecord
from mcp_manager.testing.faults.responses import (
    BadChunk,
    Compressed,
    Dripping,
    GzipBomb,
    HalfResponse,
    InformationalFlood,
    LengthMismatch,
    Oversize,
    Redirect,
    Status,
)
from mcp_manager.testing.faults.servers import Exit, Flap, IgnoreSigterm, RugPull, ServerFault, Slow, StderrFlood
from mcp_manager.testing.faults.streams import (
    CutShort,
    SseByteByByte,
    SseComments,
    SseEvents,
    SseNeverEnds,
    SseTruncated,
)
from mcp_manager.testing.faults.wire import AnyFault

__all__ = [
    "AcceptedWithoutAnswer",
    "Answer",
    "AnyFault",
    "BadChunk",
    "Bytes",
    "Close",
    "Compressed",
    "CutShort",
    "Dripping",
    "DuplicateReply",
    "Exit",
    "ExpireSession",
    "FaultRecord",
    "Faults",
    "Flap",
    "GzipBomb",
    "HalfResponse",
    "Hold",
    "IgnoreSigterm",
    "InformationalFlood",
    "InputRequired",
    "LastAnswer",
    "LengthMismatch",
    "ListChangedStorm",
    "Moods",
    "NeverEndingHead",
    "Oversize",
    "Point",
    "ProtocolVersion",
    "Redirect",
    "Reply",
    "Reset",
    "Result",
    "RpcErrorReply",
    "RugPull",
    "ServerFault",
    "SilentLastAnswer",
    "Slow",
    "SseByteByByte",
    "SseComments",
    "SseEvents",
    "SseNeverEnds",
    "SseTruncated",
    "StaleReplies",
    "Stall",
    "Status",
    "StderrFlood",
    "StringId",
    "TruncateStream",
    "TruncatedJson",
    "WrongId",
]
