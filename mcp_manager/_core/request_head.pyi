"""The head of an HTTP/1.1 request: llhttp checks it, this module notes where the fields are that matter."""

from typing import final

from typing_extensions import disjoint_base

__pyx_capi__: dict[str, object]

@final
class MessageCheck:
    """Let llhttp check that bytes are exactly one message; the parser is used again after each that is."""

    def __new__(cls) -> MessageCheck: ...
    def on_message_begin(self) -> None:
        """See :class:`httptools.HttpRequestParser`."""
    def on_message_complete(self) -> None:
        """See :class:`httptools.HttpRequestParser`."""

@disjoint_base
class RequestHead:
    """What the head of a request says."""

    @property
    def keeps_alive(self) -> bool:
        """Whether the client lets the connection carry another request (RFC 9112, section 9.3)."""

    @property
    def method(self) -> str:
        """The method of HTTP: ``POST``, ``GET`` or ``DELETE``."""

    @property
    def target(self) -> bytes:
        """The request target, with its query."""

    def header(self, name: bytes) -> bytes | None:
        """Return a header field by its lower-case name, ``None`` without it; several are joined by ``, ``."""

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return all header fields, with their names as they came."""
