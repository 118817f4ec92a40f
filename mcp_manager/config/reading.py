"""Reading of a configuration file: its bytes, its text and what it says, each within bounds."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from mcp_manager.config._plain import describe
from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.json_text import repeated_key, without_comments
from mcp_manager.config.parse import decode_json

__all__ = ["KINDS", "Document", "Kind", "read_document", "read_text"]

Kind = Literal["json", "toml", "yaml"]

KINDS: Final[dict[str, Kind]] = {".json": "json", ".jsonc": "json", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
"""What a file holds, by the ending of its name."""

# A fleet of 100,000 servers takes about 8 MB. YAML takes far more memory and time for each byte.
_LARGEST: Final[dict[Kind, int]] = {"json": 16 * 2**20, "toml": 16 * 2**20, "yaml": 2 * 2**20}
_MARKS: Final = (
    # The mark of UTF-32 begins like that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Document(NamedTuple):
    """What a configuration file says. ``is_jsonc`` tells whether it has comments or trailing commas."""

    path: Path
    kind: Kind
    text: str
    data: dict[str, Any]
    is_jsonc: bool = False


def read_document(path: Path) -> Document:
    """Read and decode a file; raises :class:`FieldProblem` if that is not possible."""
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise FieldProblem("", "the name must end in .json, .jsonc, .toml, .yaml or .yml")
    text = _decode(_read(path, _LARGEST[kind]), kind)
    is_jsonc = False
    data: object
    if kind == "toml":
        data = _decode_toml(text)
    elif kind == "yaml":
        # An extra, and heavy.
        from mcp_manager.config.yaml_reading import decode_yaml  # noqa: PLC0415

        data = decode_yaml(text)
    else:
        plain_json = without_comments(text)
        is_jsonc = plain_json != text
        data = _decode_json(plain_json)
    if not isinstance(data, dict):
        raise FieldProblem("", f"expected an object, got {describe(data)}")
    return Document(path, kind, text, data, is_jsonc)


def read_text(path: Path, largest: int) -> str:
    """Return the text of a small file in UTF-8; raises :class:`FieldProblem` if it cannot be read."""
    return _decode(_read(path, largest), "toml")


def _read(path: Path, largest: int) -> bytes:
    try:
        # A FIFO would be waited for, and a device may never end.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(largest + 1) if stat.S_ISREG(mode) else None
    except OSError as failed:
        reason = failed.strerror or type(failed).__name__
    except ValueError:
        reason = "the name contains a NUL character"
    else:
        if data is None:
            reason = "Is a directory" if stat.S_ISDIR(mode) else "it is not a regular file"
        elif len(data) > largest:
            raise FieldProblem("", f"is larger than {largest // 2**20 or 1} MiB", "split it")
        else:
            return data
    raise FieldProblem("", f"cannot be read: {reason}")


def _decode(data: bytes, kind: Kind) -> str:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8-sig")
    if encoding != "utf-8-sig" and (kind == "toml" or encoding == "utf-32"):
        raise FieldProblem("", f"is encoded in {encoding.upper()}", "save it as UTF-8")
    if encoding == "utf-8-sig" and b"\0" in data[:64]:
        raise FieldProblem("", "contains NUL characters: it is a binary file, or UTF-16 without a byte order mark")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as invalid:
        position = invalid.start
    name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
    raise FieldProblem("", f"byte {position} is not {name}", "" if name == "UTF-8" else "save it as UTF-8")


def _decode_json(text: str) -> Any:
    try:
        return decode_json(text)
    except FieldProblem as problem:
        place = repeated_key(text) if "given twice" in problem.text else None
        if place is None:
            raise
        path = problem.path
        told = problem.text.replace("malformed JSON", f"malformed JSON at line {place[0]}, column {place[1]}")
    raise FieldProblem(path, told)


def _decode_toml(text: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - only TOML files need it

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as malformed:
        problem = f"malformed TOML: {malformed.args[0]}"
    except RecursionError:
        problem = "malformed TOML: nested too deeply"
    except ValueError:
        problem = "malformed TOML: a number or date is out of range"
    raise FieldProblem("", problem)
