"""The problem with one field, raised before the source is known and later turned into a :class:`ConfigError`."""

from __future__ import annotations

import re
from typing import Final

from mcp_manager.errors import ConfigError

__all__ = ["FieldProblem", "at", "entry", "join", "shown"]

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_$@/-]{1,256}")
_LONGEST_SHOWN: Final = 64


class FieldProblem(Exception):
    """A field's value cannot be used.

    Parameters
    ----------
    path
        The field, such as ``auth.key``; empty for the whole configuration.
    text
        What is wrong; never quotes a value that may be a secret.
    hint
        How to fix it, or "".
    member
        The member of the object at ``path`` that is meant, if it is not known and so has no path of its own.
    """

    def __init__(self, path: str, text: str, hint: str = "", member: str | None = None) -> None:
        super().__init__(path, text, hint)
        self.member = member
        self.path = path
        self.text = text
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.path}: {self.text}" if self.path else self.text
        return f"{text} ({self.hint})" if self.hint else text

    def error(self, prefix: str, server_id: str | None = None) -> ConfigError:
        """Return the error to raise; ``prefix`` names what is invalid, such as the file."""
        message = f"{prefix}: {self.path}: {self.text}" if self.path else f"{prefix}: {self.text}"
        error = ConfigError(message, server_id=server_id, hint=self.hint)
        error.field = self.path if self.member is None else join(self.path, self.member)
        return error


def join(path: str, name: str) -> str:
    """Return the path of member ``name`` of the object at ``path``."""
    if not _PLAIN_NAME.fullmatch(name):
        return f"{path}[{shown(name)}]"
    return f"{path}.{name}" if path else name


def entry(path: str, name: str) -> str:
    """Return the path of an entry whose name the user chooses, as in ``headers`` and ``env``.

    A name with unusual characters is left out, because it may hold a secret: ``TOKEN=secret`` and
    ``Authorization: Bearer secret`` are common mistakes.
    """
    return join(path, name) if _PLAIN_NAME.fullmatch(name) else f"{path}[…]"


def at(path: str, rest: str) -> str:
    """Return ``path`` extended by ``rest``, itself a path such as ``args[0]``."""
    return f"{path}.{rest}" if path and rest else path or rest


def shown(text: str) -> str:
    """Return ``text`` quoted, on one line, in ASCII, and cut after 64 characters."""
    return ascii(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")
