"""The bodies of requests to the admin API."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.parse import convert
from mcp_manager.fleet.rollout import Strategy
from mcp_manager.fleet.verification import ToolCheck
from mcp_manager.gateway.admin.problems import refused
from mcp_manager.gateway.admin.requests import read_object

__all__ = ["NewServer", "Replacement", "Scale", "read"]

T = TypeVar("T", bound=msgspec.Struct)


class NewServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server to deploy.

    Parameters
    ----------
    id
        Its id.
    config
        Its configuration, as in a file.
    """

    id: Annotated[str, Meta(min_length=1, max_length=256)]
    config: dict[str, Any]


class Scale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many instances a server should have.

    Parameters
    ----------
    instances
        The number; 0 suspends it.
    """

    instances: Annotated[int, Meta(ge=0, le=10_000)]


class Replacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the instances of a server are replaced; see :meth:`McpManager.redeploy`.

    Parameters
    ----------
    strategy, batch, percentage, canary_s, min_calls, verify_tools
        As there.
    """

    strategy: Strategy = "rolling"
    batch: Annotated[int, Meta(ge=1, le=10_000)] = 1
    percentage: Annotated[float, Meta(gt=0, lt=100)] = 10.0
    canary_s: Annotated[float, Meta(gt=0, lt=2_592_000)] = 30.0
    min_calls: Annotated[int, Meta(ge=0, le=1_000_000)] = 20
    verify_tools: ToolCheck = "off"


async def read(request: web.Request, kind: type[T]) -> T:
    """Return the body of a request as a struct; raises :class:`Refusal` if it has another shape.

    A body that need not be there may be missing.
    """
    if kind is Replacement and not request.can_read_body:
        return kind()
    value = await read_object(request)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        field = where.strip("`.") or _unknown(text)
    if name := _unknown(text):
        detail = f"{name[:64]} is missing" if "missing" in text else f"Unknown field {name[:64]!a}"
        raise refused(422, detail, hint=f"the fields are {', '.join(kind.__struct_fields__)}", field=field)
    raise refused(422, f"{field or 'The body'}: {_in_words(value, kind) or text}", field=field)


def _in_words(value: dict[str, Any], kind: type[Any]) -> str:
    """Return in plain words what is wrong with a value."""
    try:
        convert(value, kind, "")
    except FieldProblem as problem:
        return problem.text
    return ""


def _unknown(text: str) -> str:
    """Return the field that a message of msgspec quotes, which is unknown or missing."""
    return text.split("`")[1] if text.count("`") == 2 else ""
