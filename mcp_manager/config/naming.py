"""The ids of servers that nobody has named: the host of a URL, the program of a command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

__all__ = ["id_of_command", "id_of_url", "is_url"]

_URL: Final = re.compile(r"https?://(?:[^/?#]*@)?([^/?#]*)", re.IGNORECASE)
_SOCKET_URL: Final = re.compile(r"http\+unix://", re.IGNORECASE)
# Programs that run another program, whose name says more.
_RUNNERS: Final = frozenset(
    "npx npm pnpm pnpx bunx bun yarn deno node uvx uv pipx python python3 docker podman env".split()
)
_RUNNER_WORDS: Final = frozenset("run exec dlx x tool -m --from --with".split())


def is_url(text: str) -> bool:
    """Tell whether a text is the URL of a server."""
    return _URL.match(text) is not None or _SOCKET_URL.match(text) is not None


def id_of_url(url: str) -> str:
    """Name a server after the host of its URL, with the port if there is one: ``search.example.com``."""
    found = _URL.match(url)
    return (found[1] if found else "") or "server"


def id_of_command(argv: Sequence[str]) -> str:
    """Name a program: by the package, module or script that it runs, if it is one that runs others."""
    name = PurePath(argv[0]).name
    for word in argv[1:] if re.sub(r"[\d.]+$", "", name) in _RUNNERS else ():
        if word.startswith("-") or word in _RUNNER_WORDS or "=" in word:
            continue
        # @scope/package@version, image:tag, path/to/script.py
        name = re.sub(r"(?<=.)(@|:).*$", "", PurePath(word).name)
        break
    name = re.sub(r"\.(py|js|mjs|cjs|ts|sh|exe)$", "", name)
    return name if name and name.isprintable() else "server"
