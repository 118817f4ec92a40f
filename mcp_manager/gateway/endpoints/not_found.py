"""What clients are told of names and URIs that nothing has."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final
from urllib.parse import quote

from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.security.accounting import note_refusal
from mcp_manager.gateway.security.pins import DefinitionBlockedError
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.protocol.revisions import Era

__all__ = ["blocked", "hint_for", "nearest", "no_resource", "quoted"]

_RESOURCE_NOT_FOUND: Final = -32002
_MOST_COMPARED: Final = 200
_LONGEST_SHOWN: Final = 200


def no_resource(uri: str, client: Client) -> RpcError:
    """Return the error for a resource that no server has, as the era of the client has it."""
    # 2025-11-25, server/resources, error handling; 2026-07-28 has INVALID_PARAMS for it.
    code = _RESOURCE_NOT_FOUND if client.era is Era.HANDSHAKE else INVALID_PARAMS
    return RpcError(code, f"Resource not found: {quoted(uri)}", {"source": "gateway", "uri": quoted(uri)})


def blocked(what: str, name: str) -> RpcError:
    """Return the error for what pins hide, of the kind ``what``; the request that asked for it is refused."""
    note_refusal("pin")
    return DefinitionBlockedError(what, quoted(name))


def quoted(text: str) -> str:
    """Return what a client sent as a message may quote it: valid, and not too long."""
    shown = text.encode("utf-8", "replace").decode()
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"


def nearest(name: str, names: Mapping[str, str]) -> list[str]:
    """Return what stands for the two names, of the first 200, that a wrong name resembles most."""
    import difflib  # noqa: PLC0415 - not needed unless a name is wrong

    near = difflib.get_close_matches(name[:_LONGEST_SHOWN], list(islice(names, _MOST_COMPARED)), n=2)
    return [names[each] for each in near]


def hint_for(
    name: str, server_id: str, shown: Mapping[str, str] | None, *, is_personal: bool = False
) -> dict[str, str]:
    """Return the member of an error's data that helps with a name that nothing has; there may be none.

    Parameters
    ----------
    name
        The name.
    server_id
        The only server that may have it.
    shown
        What clients know its things by, by its own names for them; ``None`` if its list is not known.
    is_personal
        Whether the server gets something of each client.
    """
    if shown is None:
        path = f"/servers/{quote(server_id, safe='')}/mcp"
        alone = f"lists what it has for each client alone, so that pins can hold at {path} only: use that endpoint"
        return {"hint": f"server {server_id!r} {alone if is_personal else 'cannot be listed at present'}"}
    # What all names of a server begin with says nothing of how near they are.
    near = nearest(name.removeprefix(f"{server_id}__"), shown)
    return {"hint": f"did you mean {' or '.join(near)}?"} if near else {}
