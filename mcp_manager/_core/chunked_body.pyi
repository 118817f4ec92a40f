"""Chunked bodies of HTTP/1.1 requests, which llhttp takes apart."""

from typing import Never, final

__pyx_capi__: dict[str, object]

@final
class ChunkedBody:
    """Collects a chunked body; see :class:`httptools.HttpRequestParser`."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    def on_body(self, chunk: bytes) -> None:
        """See :class:`httptools.HttpRequestParser`."""

    def on_message_begin(self) -> None:
        """See :class:`httptools.HttpRequestParser`."""

    def on_message_complete(self) -> None:
        """See :class:`httptools.HttpRequestParser`."""
