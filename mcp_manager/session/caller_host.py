"""The host application as the sessions of one caller see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from mcp_manager.auth.caller import set_caller
from mcp_manager.auth.caller_credentials import CallerCredentials
from mcp_manager.protocol.capabilities import stateless_capabilities
from mcp_manager.protocol.methods import TOOLS_CHANGED
from mcp_manager.session.host import HostApplication

__all__ = ["host_for"]


def host_for(
    host: HostApplication, credentials: CallerCredentials, forget_tools: Callable[[], None]
) -> HostApplication:
    """Return the host for the sessions of one caller: its capabilities, and handlers that can ask who the caller is.

    Parameters
    ----------
    host
        The manager's own.
    credentials
        Knows the newest caller of the principal.
    forget_tools
        Called when the server says that its tools have changed.
    """
    context = host.context.copy()
    context.run(set_caller, credentials)
    changed = host.handlers.get(TOOLS_CHANGED)

    def tools_changed(server_id: str, params: Any) -> Any:
        forget_tools()
        return None if changed is None else changed(server_id, params)

    capabilities = credentials.caller.capabilities
    identity = host.identity
    if capabilities is not None:
        identity = msgspec.structs.replace(
            identity,
            capabilities=dict(capabilities),
            stateless_capabilities=stateless_capabilities((), capabilities),
        )
    return msgspec.structs.replace(
        host, identity=identity, handlers={**host.handlers, TOOLS_CHANGED: tools_changed}, context=context, began=None
    )
