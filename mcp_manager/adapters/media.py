"""Pictures and sounds in results, as far as models accept them."""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal

import msgspec

from mcp_manager.results import AudioContent, ContentBlock, EmbeddedResource, ImageContent

__all__ = ["PDF", "Media", "PdfFile", "media_of", "pdf_of"]

PDF: Final = "application/pdf"

# What the interfaces of all large models accept. They refuse a whole request for any other type.
_IMAGES: Final = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_SOUNDS: Final = {"audio/wav": "wav", "audio/mpeg": "mp3"}
_OTHER_NAMES: Final = {
    "image/jpg": "image/jpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
}


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """A picture or a sound in a result.

    Attributes
    ----------
    kind
        ``image`` or ``audio``.
    mime_type
        Its media type, without parameters.
    format
        Its usual short name, such as ``png`` or ``mp3``.
    base64
        The data in base64.
    """

    kind: Literal["image", "audio"]
    mime_type: str
    format: str
    base64: str

    @property
    def data(self) -> bytes:
        """The data itself."""
        return base64.b64decode(self.base64)

    @property
    def url(self) -> str:
        """The data as a ``data:`` URL."""
        return f"data:{self.mime_type};base64,{self.base64}"


def media_of(block: ContentBlock) -> Media | None:
    """Return the picture or sound of a block; ``None`` if it has none of a type that models accept, or it is damaged."""
    if isinstance(block, ImageContent | AudioContent):
        said, data = block.mime_type, block.data
    elif isinstance(block, EmbeddedResource) and block.resource.blob is not None:
        said, data = block.resource.mime_type or "", block.resource.blob
    else:
        return None
    mime_type = said.partition(";")[0].strip().lower()
    mime_type = _OTHER_NAMES.get(mime_type, mime_type)
    kind: Literal["image", "audio"] = "image" if mime_type in _IMAGES else "audio"
    known = _IMAGES.get(mime_type) or _SOUNDS.get(mime_type)
    if known is None or not data:
        return None
    if not _is_base64(data):
        return None
    return Media(kind=kind, mime_type=mime_type, format=known, base64=data)


class PdfFile(msgspec.Struct, frozen=True, kw_only=True):
    """A PDF file in a result, with its name and its data in base64."""

    name: str
    base64: str


def pdf_of(block: ContentBlock) -> PdfFile | None:
    """Return the PDF file of a block; ``None`` if it is none, or damaged."""
    if not isinstance(block, EmbeddedResource) or not block.resource.blob:
        return None
    mime_type = (block.resource.mime_type or "").partition(";")[0].strip().lower()
    if mime_type != PDF or not _is_base64(block.resource.blob):
        return None
    return PdfFile(name=block.resource.uri.rpartition("/")[2] or "file.pdf", base64=block.resource.blob)


def _is_base64(data: str) -> bool:
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
