"""Checks of the rules of access and of pins, beyond the types of their fields."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from mcp_manager.config._checks import check_text
from mcp_manager.config._problem import FieldProblem, at, join
from mcp_manager.config.access import AllowConfig
from mcp_manager.config.audit import PinsConfig
from mcp_manager.config.parse import nearest
from mcp_manager.config.tools import is_pattern

__all__ = ["check_given_rule", "check_rule", "pin_problems", "rule_problems", "warn_of_unknown_names"]

logger: logging.Logger = logging.getLogger(__name__)

_ANONYMOUS: Final = "anonymous"
_SEPARATOR: Final = "__"
_LISTS: Final = ("principals", "scopes", "views", "servers", "tools", "prompts", "resources", "methods")


def check_given_rule(rule: Mapping[str, object], path: str) -> None:
    """Raise a :class:`FieldProblem` for an empty list, which does not mean what it seems to mean."""
    for name, value in rule.items():
        if isinstance(value, list | tuple | dict) and not value:
            text = "is empty, and would mean the same as without it: no restriction"
            raise FieldProblem(join(path, name), text, "leave it out, or remove the rule, which only allows")


def check_rule(rule: AllowConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` for the first value of a rule that cannot work."""
    for name in _LISTS:
        for index, text in enumerate(getattr(rule, name)):
            check_text(text, at(path, f"{name}[{index}]"))
    for claim, values in rule.claims.items():
        if not values:
            raise FieldProblem(join(at(path, "claims"), claim), "has no value", "name at least one value")
    for name in ("tools", "prompts"):
        for index, pattern in enumerate(getattr(rule, name)):
            if _SEPARATOR not in pattern and pattern != "*":
                text = "names no server, so it matches nothing"
                raise FieldProblem(at(path, f"{name}[{index}]"), text, f"write {{server}}__{pattern}, or *__{pattern}")
    for index, method in enumerate(rule.methods):
        if method.startswith("notifications/"):
            text = "is a notification; rules are for requests"
            raise FieldProblem(at(path, f"methods[{index}]"), text, "drop it")


def rule_problems(rules: Sequence[AllowConfig], auth_type: str, path: str) -> Iterator[FieldProblem]:
    """Yield which rules can match nobody, because clients do not authenticate.

    Parameters
    ----------
    rules
        The rules.
    auth_type
        ``type`` of ``serve.auth``.
    path
        That of the rules.
    """
    if auth_type != "none":
        return
    way_out = "set serve.auth.type, or drop it"
    for index, rule in enumerate(rules):
        where = f"{path}[{index}]"
        for name in ("claims", "scopes"):
            if getattr(rule, name):
                yield FieldProblem(
                    at(where, name), f"matches nobody: without serve.auth, clients have no {name}", way_out
                )
        if rule.principals and not any(fnmatchcase(_ANONYMOUS, each) for each in rule.principals):
            text = f"matches nobody: without serve.auth, every client is {_ANONYMOUS!r}"
            yield FieldProblem(at(where, "principals"), text, way_out)


def pin_problems(pins: PinsConfig, path: str) -> Iterator[FieldProblem]:
    """Yield what is wrong with the fields of pins together."""
    if pins.mode != "off" and pins.path is None:
        yield FieldProblem(
            at(path, "path"),
            f"missing: mode {pins.mode!r} needs it",
            "name a file, and make it with: mcp-manager pin CONFIG",
        )


def warn_of_unknown_names(rules: Sequence[AllowConfig], servers: Collection[str], views: Collection[str]) -> None:
    """Log a warning for every server and view that a rule names and the file does not have."""
    for index, rule in enumerate(rules):
        for what, given, known in (("server", rule.servers, servers), ("view", rule.views, views)):
            for name in given:
                if not is_pattern(name) and name not in known:
                    near = nearest(name, known, cutoff=0.6)
                    way_out = f"; did you mean {near!r}?" if near is not None else ""
                    logger.warning("serve.allow[%d].%ss: there is no %s %r%s", index, what, what, name, way_out)
