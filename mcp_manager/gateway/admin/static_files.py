"""The page of the admin API: static files of this package, which need no credentials."""

from __future__ import annotations

import mimetypes
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

__all__ = ["PageFiles"]

_FOLDER: Final = Path(__file__).with_name("page")
_INDEX: Final = "index.html"
# Not what the system says of files: some call scripts text/plain, which browsers refuse to run.
_CONTENT_TYPES: Final = mimetypes.MimeTypes()
_FIELDS: Final = {
    # It holds nothing from elsewhere, and nobody may frame it: a click on it may start programs.
    # Nor may it ever make markup of a text.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _File(msgspec.Struct, frozen=True):
    body: bytes
    content_type: str
    etag: str


class PageFiles:
    """The files of the page, read once.

    Parameters
    ----------
    folder
        Where they are.
    """

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._files: dict[str, _File] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            # What an editor or a packager leaves is none of them.
            content_type, _ = _CONTENT_TYPES.guess_type(path.name)
            if path.is_file() and content_type is not None and not path.name.startswith("."):
                body = path.read_bytes()
                shown = f"{content_type}; charset=utf-8" if content_type.startswith("text/") else content_type
                self._files[path.name] = _File(body, shown, blake2b(body, digest_size=12).hexdigest())

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, below ``/ui``."""
        return [web.get("", self._answer), web.get("/{name:.*}", self._answer)]

    async def _answer(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", _INDEX)
        if not name:
            # Relative addresses in the page are those below /ui.
            return web.Response(status=308, headers={"Location": "/ui", **_FIELDS})
        found = self._files.get(name)
        if found is None:
            raise web.HTTPNotFound
        etag = f'"{found.etag}"'
        known = {each.value for each in request.if_none_match or ()}
        if found.etag in known or "*" in known:
            return web.Response(status=304, headers={**_FIELDS, "ETag": etag})
        return web.Response(body=found.body, headers={**_FIELDS, "Content-Type": found.content_type, "ETag": etag})
