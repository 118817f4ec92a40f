"""What is wrong with which field, before it is known in which source: the seed of every :class:`ConfigError`."""

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
        The field as a reader would write it, ``auth.key``; empty for the whole.
    text
        The problem; never a value that may be a secret.
    hint
        The way out.
    """

    def __init__(self, path: str, text: str, hint: str = "") -> None:
        super().__init__(path, text, hint)
        self.path = path
        self.text = text
        self.hint = hint

    def error(self, prefix: str, server_id: str | None = None) -> ConfigError:
        """Return this problem as the error for users; ``prefix`` says what is invalid."""
        message = f"{prefix}: {self.path}: {self.text}" if self.path else f"{prefix}: {self.text}"
        return ConfigError(message, server_id=server_id, hint=self.hint)


def join(path: str, name: str) -> str:
    """Return the path of member ``name`` of the object at ``path``."""
    if not _PLAIN_NAME.fullmatch(name):
        return f"{path}[{shown(name)}]"
    return f"{path}.{name}" if path else name


def entry(path: str, name: str) -> str:
    """Return the path of an entry whose name the user invents, as in ``headers`` and ``env``.

    An odd name is left out: ``TOKEN=secret`` and ``Authorization: Bearer secret`` are the usual ways to get one wrong.
    """
    return join(path, name) if _PLAIN_NAME.fullmatch(name) else f"{path}[…]"


def at(path: str, rest: str) -> str:
    """Return the path of ``rest``, itself a path such as ``args[0]``, below ``path``."""
    return f"{path}.{rest}" if path and rest else path or rest


def shown(text: str) -> str:
    """Return ``text`` quoted, on one line, in ASCII and cut to a bearable length."""
    return ascii(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")
