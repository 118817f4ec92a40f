"""Multi-round requests: the server asks for input, and the client repeats with it (2026-07-28, basic/patterns/mrtr)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder

__all__ = [
    "COMPLETE",
    "INPUT_KEY",
    "INPUT_REQUIRED",
    "MAX_QUESTIONS",
    "MAX_ROUNDS",
    "TASK",
    "InputRequest",
    "InputRequired",
    "MalformedResult",
    "read_input_required",
    "result_type",
    "retry_params",
]

COMPLETE: Final = "complete"
INPUT_REQUIRED: Final = "input_required"
TASK: Final = "task"

INPUT_KEY: Final = "mcp-manager/inputKey"
"""Where a server of the handshake era may name a question in ``_meta``: clients of the stateless era get it as its key."""

MAX_ROUNDS: Final = 32
"""How often one request may be answered with questions before it fails."""
MAX_QUESTIONS: Final = 64
"""How many questions one answer may contain."""

_TYPE_MEMBER: Final = b'"resultType"'
_COMPLETE_FIRST: Final = b'{"resultType":"complete"'
_COMPLETE_LAST: Final = b'"resultType":"complete"}'


class MalformedResult(Exception):
    """A result that the revision does not allow; the message says why."""


class InputRequest(msgspec.Struct, frozen=True):
    """One question of the server, in the form of a request without an id."""

    method: str
    params: dict[str, Any] = msgspec.field(default_factory=dict)


class InputRequired(msgspec.Struct, frozen=True, rename="camel"):
    """The input that the server needs; ``request_state`` is raw JSON to be sent back, empty if there is none."""

    input_requests: dict[str, InputRequest] = msgspec.field(default_factory=dict)
    request_state: msgspec.Raw = msgspec.Raw(b"")


class _Typed(msgspec.Struct):
    resultType: str = COMPLETE


_type_decoder = JsonDecoder(_Typed)
_input_decoder = JsonDecoder(InputRequired)
_params_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def result_type(result: bytes | memoryview) -> str:
    """Return the type of a result, ``complete`` if it names none (2026-07-28, basic, responses).

    Raises
    ------
    MalformedResult
        The result is not an object, or its ``resultType`` not a string.
    """
    # Nearly every server writes it first or last, where it is found without decoding the rest.
    if result[: len(_COMPLETE_FIRST)] == _COMPLETE_FIRST or result[-len(_COMPLETE_LAST) :] == _COMPLETE_LAST:
        return COMPLETE
    text = bytes(result) if isinstance(result, memoryview) and len(result) < 4096 else result
    if isinstance(text, bytes):
        if _TYPE_MEMBER not in text and b"\\u" not in text and text[:1] == b"{":
            return COMPLETE
    try:
        return _type_decoder.decode(text, limits=None).resultType
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedResult(f"the result is malformed: {error}") from None


def read_input_required(result: bytes | memoryview) -> InputRequired:
    """Decode a result that asks for input.

    Raises
    ------
    MalformedResult
        It does not have the specified shape, has neither questions nor state, or has more than 64 questions.
    """
    try:
        decoded = _input_decoder.decode(result)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedResult(f"the server asked for input in a malformed way: {error}") from None
    state = bytes(decoded.request_state)
    if state == b"null":
        state, decoded = b"", InputRequired(decoded.input_requests)
    elif state and not state.startswith(b'"'):
        raise MalformedResult("the server asked for input with a requestState that is not a string")
    if not decoded.input_requests and not state:
        raise MalformedResult("the server asked for input without any question")
    if len(decoded.input_requests) > MAX_QUESTIONS:
        raise MalformedResult(
            f"the server asked {len(decoded.input_requests)} questions at once; at most {MAX_QUESTIONS} are allowed"
        )
    return decoded


def retry_params(params: bytes | None, asked: InputRequired, responses: Mapping[str, Any]) -> bytes:
    """Encode the params of the next round: the original ones, the answers, and the unchanged state.

    Answers and state of earlier rounds are left out (2026-07-28, mrtr, client requirements).
    """
    members: dict[str, Any] = dict(_params_decoder.decode(params or b"{}"))
    members.pop("inputResponses", None)
    members.pop("requestState", None)
    if asked.input_requests:
        members["inputResponses"] = dict(responses)
    if bytes(asked.request_state):
        members["requestState"] = asked.request_state
    return msgspec.json.encode(members)
