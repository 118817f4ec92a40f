"""The verdict on a server's revision from its answer to ``server/discover`` (2026-07-28, basic/versioning)."""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_manager.protocol.error_codes import STATELESS_ERRORS, UNSUPPORTED_VERSION
from mcp_manager.protocol.handshake import Implementation, ServerIdentity
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.revisions import Era, newest_shared
from mcp_manager.protocol.rpc_error import read_error

__all__ = [
    "SERVER_INFO_KEY",
    "Handshake",
    "NoSharedRevision",
    "Stateless",
    "TryRevision",
    "Verdict",
    "read_discover_error",
    "read_discover_result",
]

SERVER_INFO_KEY = "io.modelcontextprotocol/serverInfo"


class Stateless(msgspec.Struct, frozen=True):
    """The server speaks this stateless revision; ``identity`` is what it says about itself, if anything."""

    revision: str
    identity: ServerIdentity | None = None


class Handshake(msgspec.Struct, frozen=True):
    """The server needs a handshake.

    ``revision`` is the one to offer, ``None`` for the newest. ``malformed`` says what is wrong with its result, if a
    malformed result led to this verdict.
    """

    revision: str | None = None
    malformed: str = ""


class TryRevision(msgspec.Struct, frozen=True):
    """The server is stateless and supports this revision: ask again in it."""

    revision: str


class NoSharedRevision(msgspec.Struct, frozen=True):
    """The server is stateless and supports none of our revisions."""

    supported: tuple[str, ...]


Verdict = Stateless | Handshake | TryRevision | NoSharedRevision


class _DiscoverResult(msgspec.Struct, rename="camel"):
    supported_versions: list[str]
    capabilities: dict[str, Any]
    # Any, because they are only displayed: a wrong type must not change the verdict.
    instructions: Any = None
    meta: Any = msgspec.field(default=None, name="_meta")
    # Some servers put it here, although the specification has it in _meta.
    server_info: Any = None


class _Refusal(msgspec.Struct):
    supported: list[str]


_result_decoder = JsonDecoder(_DiscoverResult)


def read_discover_result(result: bytes) -> Verdict:
    """Return the verdict from a result of ``server/discover``.

    A result without the specified shape means a handshake: such a server does not know the method, but answers every
    request.
    """
    try:
        decoded = _result_decoder.decode(result)
    except (msgspec.DecodeError, RecursionError) as error:
        return Handshake(malformed=str(error)[:80] or "it is nested too deeply")
    revision = newest_shared(decoded.supported_versions, Era.STATELESS)
    if revision is not None:
        meta = decoded.meta if isinstance(decoded.meta, dict) else {}
        info, members = _implementation(meta.get(SERVER_INFO_KEY), decoded.server_info)
        identity = ServerIdentity(
            protocol_version=revision,
            name=info.name,
            version=info.version,
            capabilities=decoded.capabilities,
            instructions=decoded.instructions if isinstance(decoded.instructions, str) else None,
            info=members,
        )
        return Stateless(revision, identity)
    return _without_shared(decoded.supported_versions)


def read_discover_error(error: bytes, revision: str) -> Verdict:
    """Return the verdict from the error that answered ``server/discover`` in ``revision``.

    Every error means a handshake, except those that only stateless servers send (2026-07-28, stdio and streamable HTTP,
    backward compatibility).
    """
    decoded = read_error(error)
    if decoded.code not in STATELESS_ERRORS:
        return Handshake()
    if decoded.code != UNSUPPORTED_VERSION:
        # Our request is correct; the server will name what it misses when a call misses it.
        return Stateless(revision)
    try:
        supported = msgspec.convert(decoded.data, _Refusal).supported
    except msgspec.ValidationError:
        # Earlier revisions do not reserve the code, so a server may use it for something else.
        return Handshake()
    shared = newest_shared(supported, Era.STATELESS)
    return TryRevision(shared) if shared is not None else _without_shared(supported)


def _without_shared(supported: list[str]) -> Verdict:
    shared = newest_shared(supported, Era.HANDSHAKE)
    return Handshake(shared) if shared is not None else NoSharedRevision(tuple(each[:40] for each in supported[:10]))


def _implementation(*candidates: object) -> tuple[Implementation, dict[str, Any]]:
    """Return the first implementation that has the specified shape, and all that it says of itself."""
    for candidate in candidates:
        try:
            found = msgspec.convert(candidate, Implementation)
        except msgspec.ValidationError:
            continue
        if isinstance(candidate, dict):
            return found, candidate
    return Implementation(), {}
