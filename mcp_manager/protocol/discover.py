"""What the answer to ``server/discover`` says of a server: pure decisions (2026-07-28, basic/versioning)."""

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
    """The server speaks this stateless revision; ``identity`` is what it told of itself, if it did."""

    revision: str
    identity: ServerIdentity | None = None


class Handshake(msgspec.Struct, frozen=True):
    """The server wants a handshake.

    ``revision`` is what to offer, ``None`` for the newest; ``malformed`` says what is wrong with the result, if it was
    one that made the verdict.
    """

    revision: str | None = None
    malformed: str = ""


class TryRevision(msgspec.Struct, frozen=True):
    """The server is stateless and asks for this revision: ask again in it."""

    revision: str


class NoSharedRevision(msgspec.Struct, frozen=True):
    """The server is stateless and speaks none of the revisions known here."""

    supported: tuple[str, ...]


Verdict = Stateless | Handshake | TryRevision | NoSharedRevision


class _DiscoverResult(msgspec.Struct, rename="camel"):
    supported_versions: list[str]
    capabilities: dict[str, Any]
    # For display alone: a server that has them wrong is no other one for that.
    instructions: Any = None
    meta: Any = msgspec.field(default=None, name="_meta")
    # Where the specification does not have it, but where some servers put it.
    server_info: Any = None


class _Refusal(msgspec.Struct):
    supported: list[str]


_result_decoder = JsonDecoder(_DiscoverResult)


def read_discover_result(result: bytes) -> Verdict:
    """Judge a server by the result of ``server/discover``.

    A result that has not the specified shape comes from a server that does not know the method but answers anything:
    it wants a handshake.
    """
    try:
        decoded = _result_decoder.decode(result)
    except (msgspec.DecodeError, RecursionError) as error:
        return Handshake(malformed=str(error)[:80] or "it is nested too deep")
    revision = newest_shared(decoded.supported_versions, Era.STATELESS)
    if revision is not None:
        meta = decoded.meta if isinstance(decoded.meta, dict) else {}
        info = _implementation(meta.get(SERVER_INFO_KEY), decoded.server_info)
        identity = ServerIdentity(
            protocol_version=revision,
            name=info.name,
            version=info.version,
            capabilities=decoded.capabilities,
            instructions=decoded.instructions if isinstance(decoded.instructions, str) else None,
        )
        return Stateless(revision, identity)
    return _without_shared(decoded.supported_versions)


def read_discover_error(error: bytes, revision: str) -> Verdict:
    """Judge a server by the error that answered ``server/discover`` in ``revision``.

    Errors that only a stateless server has do not mean a handshake (2026-07-28, stdio and streamable HTTP, backward
    compatibility); every other one does, whatever its code.
    """
    decoded = read_error(error)
    if decoded.code not in STATELESS_ERRORS:
        return Handshake()
    if decoded.code != UNSUPPORTED_VERSION:
        # The request is as it must be; what the server misses, it will say of the calls that miss it.
        return Stateless(revision)
    try:
        supported = msgspec.convert(decoded.data, _Refusal).supported
    except msgspec.ValidationError:
        # The code alone may be one of a server's own: it is not reserved in the revisions before.
        return Handshake()
    shared = newest_shared(supported, Era.STATELESS)
    return TryRevision(shared) if shared is not None else _without_shared(supported)


def _without_shared(supported: list[str]) -> Verdict:
    shared = newest_shared(supported, Era.HANDSHAKE)
    return Handshake(shared) if shared is not None else NoSharedRevision(tuple(each[:40] for each in supported[:10]))


def _implementation(*candidates: object) -> Implementation:
    for candidate in candidates:
        try:
            return msgspec.convert(candidate, Implementation)
        except msgspec.ValidationError:
            continue
    return Implementation()
