"""Checks of the rules of access and of pins, beyond the types of their fields."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from mcp_manager.config._checks import check_text
from mcp_manager.config._problem import FieldProblem, at, join
from mcp_manager.config.access import AllowConfig, ClientLimitConfig
from mcp_manager.config.audit import PinsConfig
from mcp_manager.config.parse import nearest
from mcp_manager.config.tools import is_pattern

__all__ = ["check_given_rule", "check_limit", "check_rule", "pin_problems", "rule_problems", "warn_of_unknown_names"]

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
        _check_names(getattr(rule, name), at(path, name))
    for index, method in enumerate(rule.methods):
        if method.startswith("notifications/"):
            text = "is a notification; rules are for requests"
            raise FieldProblem(at(path, f"methods[{index}]"), text, "drop it")


def check_limit(limit: ClientLimitConfig, path: str) -> None:
    """Raise a :class:`FieldProblem` for the first value of a limit of clients that cannot work."""
    for name in ("principals", "views", "tools"):
        for index, text in enumerate(getattr(limit, name)):
            check_text(text, at(path, f"{name}[{index}]"))
    for claim, values in limit.claims.items():
        if not values:
            raise FieldProblem(join(at(path, "claims"), claim), "has no value", "name at least one value")
    _check_names(limit.tools, at(path, "tools"))
    if limit.tools and limit.max_streams:
        text = "does nothing with tools: calls of tools are no streams"
        raise FieldProblem(at(path, "max_streams"), text, "use max_concurrent, or a limit without tools")
    if not (limit.rate or limit.max_concurrent or limit.max_streams):
        raise FieldProblem(path, "limits nothing", "give it rate, max_concurrent or max_streams")


def _check_names(patterns: Sequence[str], path: str) -> None:
    for index, pattern in enumerate(patterns):
        if _SEPARATOR not in pattern and pattern != "*":
            text = "names no server, so it matches nothing"
            raise FieldProblem(f"{path}[{index}]", text, f"write SERVER__{pattern}, or *__{pattern} for every server")


def rule_problems(
    rules: Sequence[AllowConfig | ClientLimitConfig], auth_type: str, path: str
) -> Iterator[FieldProblem]:
    """Yield which rules or limits can match nobody, because clients do not authenticate.

    Parameters
    ----------
    rules
        The rules or limits.
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
            if getattr(rule, name, ()):
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


def warn_of_unknown_names(
    rules: Sequence[AllowConfig],
    limits: Sequence[ClientLimitConfig],
    servers: Collection[str],
    views: Collection[str],
) -> None:
    """Log a warning for every server and view that a rule or limit names and the file does not have."""
    for index, rule in enumerate(rules):
        _warn(f"serve.allow[{index}].servers", "server", _plain(rule.servers), servers)
        _warn(f"serve.allow[{index}].views", "view", _plain(rule.views), views)
    for index, limit in enumerate(limits):
        # No patterns are possible here.
        _warn(f"serve.limits[{index}].views", "view", [each for each in limit.views if each != "*"], views)


def _warn(path: str, what: str, given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            near = nearest(name, known, cutoff=0.6)
            way_out = f"; did you mean {near!r}?" if near is not None else ""
            logger.warning("%s: there is no %s %r%s", path, what, name, way_out)


def _plain(names: Collection[str]) -> list[str]:
    return [each for each in names if not is_pattern(each)]
