"""One server in the file of a client, while it becomes a server of ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from mcp_manager.config._problem import FieldProblem, entry, join
from mcp_manager.config._transport import HTTP_ONLY, STDIO_ONLY
from mcp_manager.config.clients.dialects import COMMON_FIELDS, COMMON_HARMLESS, FOREIGN_FIELDS, Dialect, Field
from mcp_manager.config.clients.placeholders import Surroundings, escaped, rewritten, rewritten_in
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.parse import nearest

__all__ = ["Entry"]

_OURS: Final = frozenset(ServerConfig.__struct_fields__)
_LONGEST_NAME: Final = 64
_MOST_NAMED: Final = 20


def _fold(name: str) -> str:
    return name[:_LONGEST_NAME].replace("_", "").replace("-", "").lower()


_FOLDED: Final = {_fold(name): field for name, field in FOREIGN_FIELDS.items()}
_SECTIONS: Final = (
    "command",
    "args",
    "env",
    "url",
    "headers",
    "headers_command",
    "auth",
    "tls",
    "proxy",
    "unix_socket",
)
"""Fields of ours in which variables are replaced, but for ``cwd``, which is rewritten as it is taken."""


class Entry:
    """A server of a client's file, and what is found out about it.

    Parameters
    ----------
    dialect
        The format of its client.
    is_guessed
        Whether only its fields tell the client, and not the file's name.
    around
        What its values may refer to.
    path
        Where it is in the file.
    """

    def __init__(self, dialect: Dialect, around: Surroundings, path: str, *, is_guessed: bool) -> None:
        self.dialect = dialect
        self.around = around
        self.path = path
        self.ours: dict[str, Any] = {}
        self.extras: dict[str, Any] = {}
        self.notes: list[str] = []
        self.problems: list[FieldProblem] = []
        self.is_off = False
        self.skipped = ""
        # Where in the file a field of ours comes from, if it has another name there.
        self.origins: dict[str, str] = {}
        # Members whose values are taken as they are.
        self.literal: set[tuple[str, str]] = set()
        self._is_guessed = is_guessed
        self._ignored: list[str] = []
        self._read_as: list[str] = []

    def finish(self) -> None:
        """Rewrite the variables, and settle what contradicts itself."""
        for name in _SECTIONS:
            if name in self.ours:
                self.ours[name] = self._rewritten_field(name)
        self._choose_place()
        for name in HTTP_ONLY if "command" in self.ours else STDIO_ONLY:
            if self.ours.pop(name, None):
                self._ignored.append(name)
        headers = self.ours.get("headers", {})
        if self.ours.get("auth") and any(str(name).lower() == "authorization" for name in headers):
            self.ours.pop("auth")
            self.note("auth is ignored, because Authorization is in the headers")

    def put(self, ours: str, value: Any, where: str) -> None:
        """Set a field of ours from what stands at ``where``."""
        self.ours[ours] = value
        self.origins.setdefault(ours, where)

    def put_member(self, ours: str, name: str, value: Any, where: str) -> None:
        """Set a member of an object of ours; the first one stays."""
        holder = self.ours.setdefault(ours, {})
        if isinstance(holder, dict):
            holder.setdefault(name, value)
            self.origins.setdefault(ours, where)
            self.origins.setdefault(entry(ours, name), entry(where, name))

    def rewritten(self, text: str, where: str) -> str:
        """Return a text with its variables written in our way."""
        return rewritten(text, where, self.dialect, self.around, self.notes)

    def short(self, where: str) -> str:
        """Return a place relative to this server."""
        return where.removeprefix(self.path).lstrip(".")

    def note(self, text: str) -> None:
        """Add a sentence to the warning of this server."""
        self.notes.append(text)

    def ignore(self, name: str) -> None:
        """Name a field that means something and cannot be honoured."""
        self._ignored.append(name)

    def source_of(self, path: str) -> str:
        """Return where in the file a problem of the field ``path`` of ours is."""
        for end in range(len(path), 0, -1):
            if end == len(path) or path[end] in ".[":
                origin = self.origins.get(path[:end])
                if origin is not None:
                    rest = path[end:]
                    return origin + rest if path[:end] != "auth" or self.short(origin) == "auth" else origin
        return join(self.path, path) if path else self.path

    def warning(self) -> str:
        """Return the one warning for this server, or ""."""
        parts = []
        if self._ignored:
            names = list(dict.fromkeys(self._ignored))
            parts.append(
                f"ignored: {', '.join(names[:_MOST_NAMED])}{' and others' if len(names) > _MOST_NAMED else ''}"
            )
        parts += dict.fromkeys(self._read_as)
        parts += [self.short(note) for note in dict.fromkeys(self.notes)]
        return "; ".join(parts)

    def meaning(self, name: str, value: Any) -> tuple[Field | None, bool]:
        """Return what a field means, and whether that is to be told because the file's name does not say so."""
        field = self.dialect.fields.get(name)
        if field is not None:
            return field, self._is_guessed
        if name in self.dialect.harmless:
            return Field("", "harmless"), False
        field = COMMON_FIELDS.get(name)
        if field is not None:
            return field, False
        if name in _OURS and name not in ("extras", "tools"):
            return Field(name), False
        if name in COMMON_HARMLESS:
            return None, False
        field = FOREIGN_FIELDS.get(name) or _FOLDED.get(_fold(name))
        return field, field is not None and not (name == "tools" and isinstance(value, dict))

    def set_aside(self, name: str, value: Any) -> None:
        """Keep a field without a meaning here, and name it in the warning if it may mean something to its client."""
        if self._means_something(name, value):
            self._ignored.append(self._with_hint(name) if len(self._ignored) < _MOST_NAMED else name)
        self.extras[name] = value

    def tell_meaning(self, name: str, ours: str) -> None:
        """Say in the warning what a field was taken for."""
        self._read_as.append(f"{_shown(name)} is read as {ours}")

    def _means_something(self, name: str, value: Any) -> bool:
        if name in COMMON_HARMLESS or name.startswith(("_", "$", "//", "x-")):
            return False
        return value not in (None, [], {}, "")

    def _with_hint(self, name: str) -> str:
        near = nearest(name, _OURS - {"extras"}, cutoff=0.8)
        return _shown(name) + (f" (did you mean {near}?)" if near else "")

    def _rewritten_field(self, name: str) -> Any:
        value = self.ours[name]
        where = self.origins.get(name, join(self.path, name))
        if not isinstance(value, dict):
            return rewritten_in(value, where, self._rewrite)
        return {
            key: each
            if (name, key) in self.literal
            else rewritten_in(each, self.source_of(entry(name, key)), self._rewrite)
            for key, each in value.items()
        }

    def _rewrite(self, text: str, where: str) -> str:
        try:
            return self.rewritten(text, where)
        except FieldProblem as problem:
            self.problems.append(problem)
            # As it is, so that nothing else is wrong with it.
            return escaped(text)

    def _choose_place(self) -> None:
        """Drop the command or the URL of a server that has both, if its type says which."""
        for name, other in (("url", "command"), ("command", "url")):
            if self.ours.get(name) == "" and self.ours.get(other):
                del self.ours[name]
        transport = self.ours.get("transport")
        if transport is None or not ("url" in self.ours and "command" in self.ours):
            return
        dropped = "url" if transport == "stdio" else "command"
        del self.ours[dropped]
        self._ignored.append(f"{dropped} (type says {transport})")


def _shown(name: str) -> str:
    text: Iterable[str] = (each if each.isprintable() else " " for each in name[:_LONGEST_NAME])
    return "".join(text)
