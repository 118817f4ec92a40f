"""What a request of a client of 2026-07-28 says about itself, and whether it may say it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager.errors import RpcError
from mcp_manager.gateway.channels import Incoming
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.eras.header_checks import check_headers
from mcp_manager.gateway.eras.results import members_of_result
from mcp_manager.protocol.capabilities import TASKS_EXTENSION, elicitation_modes, undeclared
from mcp_manager.protocol.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_CAPABILITY, UNSUPPORTED_VERSION
from mcp_manager.protocol.methods import (
    ELICIT,
    INITIALIZE,
    LIST_ROOTS,
    NAME_MEMBER,
    PING,
    SAMPLE,
    SET_LOG_LEVEL,
    SUBSCRIBE,
    UNSUBSCRIBE,
)
from mcp_manager.protocol.revisions import LATEST_STATELESS_REVISION, STATELESS_REVISIONS, Era

__all__ = [
    "SUPPORTED",
    "Asked",
    "check_method",
    "missing_for",
    "raise_for_lack_of",
    "read_request",
    "refused_for_lack_of",
]

SUPPORTED: Final = (LATEST_STATELESS_REVISION,)
"""The revisions that requests of this era may name."""

# What a protocol version may look like, whether there is such a version or not.
_VERSION: Final = re.compile(r"[0-9A-Za-z.-]{1,32}")
_NO_VERSION: Final = "(not a protocol version)"
_KEY: Final = "io.modelcontextprotocol/"
_OWN: Final = {"source": "gateway"}
_REMOVED: Final = frozenset({INITIALIZE, PING, SET_LOG_LEVEL, SUBSCRIBE, UNSUBSCRIBE, "tasks/result", "tasks/list"})
_TASK_METHODS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
_FOR_TASKS: Final[dict[str, Any]] = {"extensions": {TASKS_EXTENSION: {}}}
_CAPABILITY_OF: Final = {ELICIT: "elicitation", SAMPLE: "sampling", LIST_ROOTS: "roots"}
_MOST_KEPT: Final = 256
_ABSENT: Final = msgspec.Raw()


class _Meta(msgspec.Struct):
    version: str | None = msgspec.field(default=None, name=_KEY + "protocolVersion")
    capabilities: msgspec.Raw = msgspec.field(default=_ABSENT, name=_KEY + "clientCapabilities")
    log_level: str | None = msgspec.field(default=None, name=_KEY + "logLevel")


class _Params(msgspec.Struct, rename="camel"):
    meta: _Meta | None = msgspec.field(default=None, name="_meta")
    name: msgspec.Raw = _ABSENT
    uri: msgspec.Raw = _ABSENT
    task_id: msgspec.Raw = _ABSENT
    request_state: str | None = None
    input_responses: msgspec.Raw = _ABSENT


class Asked(msgspec.Struct, frozen=True):
    """A request of a client, as far as the gateway reads it.

    Parameters
    ----------
    client
        The client, with the capabilities that the request declares.
    name
        What the request names: the tool, prompt, resource or task; ``None`` if the method names nothing.
    log_level
        The least severe log messages that the client wants; ``None`` for none at all.
    request_state
        The state of an earlier round; ``None`` in the first round.
    input_responses
        The client's input, as JSON; ``None`` without any.
    """

    client: Client
    name: str | None = None
    log_level: str | None = None
    request_state: str | None = None
    input_responses: bytes | None = None

    @property
    def follows_tasks(self) -> bool:
        """Whether the client declares the tasks extension (SEP-2663)."""
        extensions = self.client.capabilities.get("extensions")
        return isinstance(extensions, Mapping) and TASKS_EXTENSION in extensions


_params_decoder = msgspec.json.Decoder(_Params)
_capabilities_decoder = msgspec.json.Decoder(dict[str, Any])
_text_decoder = msgspec.json.Decoder(str)
# Clients repeat their capabilities with every request.
_kept_capabilities: dict[bytes, dict[str, Any]] = {}


def read_request(message: Message, incoming: Incoming | None, principal: str) -> Asked:
    """Read and check a request (2026-07-28, basic, ``_meta``; streamable HTTP, request metadata).

    Parameters
    ----------
    message
        The request.
    incoming
        The HTTP request with the header fields that repeat what the body says; ``None`` over stdio.
    principal
        Whom the client acts for.

    Raises
    ------
    RpcError
        -32602: ``_meta`` lacks what it must have. -32020: a header field does not say what the body says. -32022: the
        revision is not supported.
    """
    try:
        params = _params_decoder.decode(message.params or b"{}")
    except (msgspec.DecodeError, RecursionError):
        raise _invalid("params must be an object, with an object as _meta and a string as requestState") from None
    meta = params.meta
    if meta is None or meta.version is None:
        named = None if incoming is None else incoming.header(b"mcp-protocol-version")
        version = (named or b"").strip(b" \t").decode("ascii", "replace")
        if version and version not in STATELESS_REVISIONS:
            raise _unsupported(version)
        raise _invalid(f"_meta must have {_KEY}protocolVersion, a string")
    name = _name(message.method or "", params)
    if incoming is not None:
        check_headers(incoming, meta.version, message.method or "", name)
    if meta.version not in STATELESS_REVISIONS:
        raise _unsupported(meta.version)
    if not meta.capabilities:
        raise _invalid(f"_meta must have {_KEY}clientCapabilities, an object")
    client = Client(Era.STATELESS, meta.version, _capabilities(bytes(meta.capabilities)), principal)
    responses = bytes(params.input_responses) if params.input_responses else None
    return Asked(client, name, meta.log_level, params.request_state, responses)


def _unsupported(version: str) -> RpcError:
    """Return the error for a protocol version that the gateway does not know, with that version (2026-07-28, lifecycle)."""
    # What is longer may be a secret that was sent in the wrong field.
    requested = version if _VERSION.fullmatch(version) else _NO_VERSION
    data = {"supported": list(SUPPORTED), "requested": requested}
    return RpcError(UNSUPPORTED_VERSION, f"Unsupported protocol version: {requested}", data)


def check_method(method: str, asked: Asked) -> None:
    """Refuse methods that this revision does not have, or that need a capability that the client does not declare.

    Raises
    ------
    RpcError
        -32601 or -32021.
    """
    if method in _REMOVED:
        raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method} is not part of {LATEST_STATELESS_REVISION}", _OWN)
    if method in _TASK_METHODS and not asked.follows_tasks:
        raise refused_for_lack_of(_FOR_TASKS)


def missing_for(method: str, params: Mapping[str, Any], capabilities: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the client capabilities that a server's question needs and that are not declared, ``None`` if all are.

    Parameters
    ----------
    method, params
        The question.
    capabilities
        What the client declares.
    """
    capability = _CAPABILITY_OF.get(method)
    if capability is None:
        return {}
    if capability not in capabilities:
        mode = params.get("mode")
        return {capability: {mode: {}} if method == ELICIT and isinstance(mode, str) and mode != "form" else {}}
    if not undeclared(method, params, capabilities):
        return None
    if method == ELICIT and not elicitation_modes(capabilities):
        return {capability: {}}
    return {capability: {str(params.get("mode", "form"))[:40]: {}} if method == ELICIT else {"tools": {}}}


def refused_for_lack_of(required: Mapping[str, Any]) -> RpcError:
    """Return the error for a request that needs capabilities which the client does not declare."""
    return RpcError(
        MISSING_CAPABILITY,
        "The client does not declare the capabilities that this request needs",
        {"requiredCapabilities": dict(required)},
    )


def raise_for_lack_of(required: Mapping[str, Any], response: bytes) -> None:
    """Raise the error of :func:`refused_for_lack_of` for a call that has failed; others did without what they lacked.

    Parameters
    ----------
    required
        What the server asked for, and the client does not declare.
    response
        What the server answered after it had been refused.
    """
    members = members_of_result(response)
    if members is None or bytes(members.get("isError", b"false")) != b"false":
        raise refused_for_lack_of(required)


def _name(method: str, params: _Params) -> str | None:
    member = NAME_MEMBER.get(method)
    if member is None:
        return None
    raw = params.name if member == "name" else params.uri if member == "uri" else params.task_id
    if not raw:
        return None
    try:
        return _text_decoder.decode(raw)
    except msgspec.DecodeError:
        raise _invalid(f"{member} must be a string") from None


def _capabilities(raw: bytes) -> dict[str, Any]:
    known = _kept_capabilities.get(raw)
    if known is not None:
        return known
    try:
        decoded = _capabilities_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise _invalid(f"{_KEY}clientCapabilities must be an object") from None
    if len(raw) <= 4096:
        if len(_kept_capabilities) >= _MOST_KEPT:
            _kept_capabilities.clear()
        _kept_capabilities[raw] = decoded
    return decoded


def _invalid(what: str) -> RpcError:
    return RpcError(INVALID_PARAMS, f"Invalid params: {what}", _OWN)
