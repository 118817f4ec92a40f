"""Reading of YAML within bounds, with the scalars of YAML 1.2; needs the extra ``yaml``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from mcp_manager.config._problem import FieldProblem

if TYPE_CHECKING:
    from yaml.nodes import Node

__all__ = ["compose", "decode_yaml"]

# Aliases let a short text stand for a large value: this bounds it.
_MOST_VALUES: Final = 200_000
_DEEPEST: Final = 64
_SCALARS: Final = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)
"""The core schema of YAML 1.2, which the clients read: ``no`` and ``22:22`` are text. So is ``007`` here, a password."""
# The name of an anchor: a value that begins with * may be a secret.
_QUOTED: Final = re.compile(r"""(?:^|\s+)(['"])(?:(?!\1).){4,}\1""")
_KNOWN_TAGS: Final = frozenset({"bool", "int", "float", "null", "str", "seq", "map"})


def decode_yaml(text: str) -> Any:
    """Return what YAML text says.

    Raises
    ------
    FieldProblem
        It is malformed, too large or recursive, or the extra ``yaml`` is not installed.
    """
    node = compose(text)
    return None if node is None else _value(node, {})


def compose(text: str) -> Node | None:
    """Return the tree of nodes of YAML text, ``None`` for an empty one; raises as :func:`decode_yaml`."""
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError:
        problem, hint = "YAML needs PyYAML, which is not installed", "pip install 'pymcp-manager[yaml]'"
    else:
        try:
            root = yaml.compose(text, Loader=_loader())
            _check_size(root)
            return root
        except yaml.MarkedYAMLError as malformed:
            mark = malformed.problem_mark or malformed.context_mark
            place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = f"malformed YAML{place}: {_QUOTED.sub('', malformed.problem or 'unreadable')}"
        except yaml.YAMLError:
            problem = "malformed YAML: a character is not allowed"
        except RecursionError:
            problem = "malformed YAML: nested too deeply"
        hint = ""
    raise FieldProblem("", problem, hint)


def _loader() -> Any:
    """Return a loader class whose scalars are those of YAML 1.2."""
    import yaml  # noqa: PLC0415 - an extra

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    for tag, pattern, first in _SCALARS:
        Loader.add_implicit_resolver(
            tag, re.compile(rf"(?:{pattern})\Z"), ["" if each == "\0" else each for each in first]
        )
    return Loader


def _check_size(root: Node | None) -> None:
    """Raise :class:`FieldProblem` for a value that contains itself, is too deep, or too large with its aliases."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size_of(node: Any, depth: int) -> int:
        if isinstance(node.value, str):
            return 1
        known = sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in open_nodes:
            raise FieldProblem("", f"malformed YAML at line {node.start_mark.line + 1}: an alias contains itself")
        if depth > _DEEPEST:
            raise FieldProblem("", f"malformed YAML: nested deeper than {_DEEPEST} levels")
        open_nodes.add(id(node))
        size = 1
        for each in node.value:
            for part in each if isinstance(each, tuple) else (each,):
                size += size_of(part, depth + 1)
                if size > _MOST_VALUES:
                    raise FieldProblem("", f"has more than {_MOST_VALUES:,} values, counting what aliases repeat")
        open_nodes.discard(id(node))
        sizes[id(node)] = size
        return size

    if root is not None:
        size_of(root, 0)


def _value(node: Any, made: dict[int, Any]) -> Any:
    """Return the value of a node. Aliases share one value, as the nodes do."""
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _KNOWN_TAGS:
        raise FieldProblem("", f"malformed YAML at line {node.start_mark.line + 1}: the tag is not supported")
    if isinstance(node.value, str):
        return _scalar(node)
    if id(node) in made:
        return made[id(node)]
    if node.tag.endswith(":seq"):
        made[id(node)] = items = [_value(each, made) for each in node.value]
        return items
    members: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key, each in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            for source in each.value if each.tag.endswith(":seq") else (each,):
                found = _value(source, made)
                if not isinstance(found, dict):
                    raise FieldProblem("", f"malformed YAML at line {key.start_mark.line + 1}: << needs an object")
                merged = {**found, **merged}
            continue
        if not isinstance(key.value, str):
            raise FieldProblem("", f"malformed YAML at line {key.start_mark.line + 1}: a key is not text")
        if key.value in members:
            text = f"malformed YAML at line {key.start_mark.line + 1}: the key is given twice in one object"
            raise FieldProblem("", text)
        members[key.value] = _value(each, made)
    made[id(node)] = result = {**merged, **members}
    return result


def _scalar(node: Any) -> Any:
    text: str = node.value
    kind = node.tag.rpartition(":")[2]
    try:
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        # It has more digits than Python converts.
        return text
    return None if kind == "null" else text
