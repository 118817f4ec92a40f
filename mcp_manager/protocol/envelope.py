"""The ``_meta`` and header fields of stateless requests (2026-07-28, basic; streamable HTTP, request metadata)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_manager.errors import InvalidRequestError
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.protocol.header_values import header_line
from mcp_manager.protocol.methods import NAME_MEMBER

__all__ = ["Envelope", "has_envelope"]

_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
_CLIENT_KEY: Final = "io.modelcontextprotocol/clientInfo"
_CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
_LOG_LEVEL_KEY: Final = "io.modelcontextprotocol/logLevel"
_META_MEMBER: Final = b'"_meta"'
_MAX_KEPT_LINES: Final = 1024
_METHOD_FIELD: Final = b"Mcp-Method: "

_params_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_meta_decoder = msgspec.json.Decoder(dict[str, Any])


class _Named(msgspec.Struct):
    value: str = msgspec.field(name="name")


class _Located(msgspec.Struct):
    value: str = msgspec.field(name="uri")


class _OfTask(msgspec.Struct):
    value: str = msgspec.field(name="taskId")


_NameDecoder = msgspec.json.Decoder[_Named] | msgspec.json.Decoder[_Located] | msgspec.json.Decoder[_OfTask]
_name_decoders: Final[Mapping[str, _NameDecoder]] = {
    "name": msgspec.json.Decoder(_Named),
    "uri": msgspec.json.Decoder(_Located),
    "taskId": msgspec.json.Decoder(_OfTask),
}


class Envelope:
    """Add to requests what one stateless revision requires.

    ``opening`` is the JSON with which params begin whose ``_meta`` has no other members.

    Parameters
    ----------
    client
        The client's identity and capabilities.
    revision
        The revision that every request names.
    """

    def __init__(self, client: ClientIdentity, revision: str) -> None:
        self.revision = revision
        self._client = client
        self._meta: dict[str, Any] = {
            _VERSION_KEY: revision,
            _CLIENT_KEY: {"name": client.name, "version": client.version},
            _CAPABILITIES_KEY: client.stateless_capabilities,
        }
        self._lines: dict[tuple[str, str | None], bytes] = {}
        self._render()

    def in_revision(self, revision: str) -> Envelope:
        """Return an envelope for another revision, otherwise equal."""
        other = Envelope(self._client, revision)
        other.set_log_level(self._meta.get(_LOG_LEVEL_KEY))
        return other

    def set_log_level(self, level: str | None) -> None:
        """Request log messages of at least this level with every request; ``None`` requests none."""
        self._meta.pop(_LOG_LEVEL_KEY, None)
        if level is not None:
            self._meta[_LOG_LEVEL_KEY] = level
        self._render()

    def params(self, params: bytes | None, more: bytes | None = None) -> bytes:
        """Return params with the required members added to ``_meta``; the caller's own members are kept.

        Parameters
        ----------
        params
            The params.
        more
            Further members of ``_meta``, as JSON without brackets.

        Raises
        ------
        InvalidRequestError
            The params or their ``_meta`` are not an object, as this revision requires.
        """
        if params is None:
            params = b"{}"
        if more is not None or _META_MEMBER in params or b"\\u" in params:
            return self._merged(params, b"{%b}" % (more or b""))
        if params.startswith(b'{"'):
            return self._opening_more + params[1:]
        at = params.find(b"{")
        if at < 0 or params[:at].strip():
            raise _no_object("params")
        rest = params[at + 1 :].lstrip()
        return self.opening + rest if rest[:1] == b"}" else self._opening_more + rest

    def fields(self, method: str, params: bytes | None) -> bytes:
        """Render the header fields of a request: ``Mcp-Method``, and ``Mcp-Name`` if the method has one.

        Raises
        ------
        InvalidRequestError
            The params lack the name that the method needs.
        """
        member = NAME_MEMBER.get(method)
        name = None if member is None else self._name(method, member, params)
        lines = self._lines.get((method, name))
        return self._new_lines(method, name) if lines is None else lines

    def _new_lines(self, method: str, name: str | None) -> bytes:
        lines = header_line("Mcp-Method", method)
        if name is not None:
            lines += header_line("Mcp-Name", name)
        if len(self._lines) >= _MAX_KEPT_LINES:
            self._lines.clear()
        self._lines[method, name] = lines
        return lines

    def _name(self, method: str, member: str, params: bytes | None) -> str:
        try:
            return _name_decoders[member].decode(params or b"{}").value
        except (msgspec.DecodeError, RecursionError):
            raise InvalidRequestError(f"Invalid request: {method} needs params.{member}, a string") from None

    def _render(self) -> None:
        self.opening: bytes = b'{"_meta":' + msgspec.json.encode(self._meta)
        self._opening_more = self.opening + b","

    def _merged(self, params: bytes, more: bytes) -> bytes:
        try:
            members = _params_decoder.decode(params)
        except (msgspec.DecodeError, RecursionError):
            raise _no_object("params") from None
        try:
            given = _meta_decoder.decode(members.pop("_meta", b"{}"))
        except (msgspec.DecodeError, RecursionError):
            raise _no_object("params._meta") from None
        # The caller's members take precedence, except for the revision, which must equal the header.
        meta = {**self._meta, **_meta_decoder.decode(more), **given, _VERSION_KEY: self.revision}
        return msgspec.json.encode({"_meta": meta, **members})


def has_envelope(fields: bytes | None) -> bool:
    """Tell whether the header fields of a request are those of a stateless revision; see :meth:`Envelope.fields`."""
    return fields is not None and fields.startswith(_METHOD_FIELD)


def _no_object(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"Invalid request: {what} must be an object")
