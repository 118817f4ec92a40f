"""What a session is made from, for tests of its parts alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, NoReturn

from mcp_manager.config import parse_server_config
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.session.connect_slots import ConnectSlots
from mcp_manager.session.host import HostApplication
from mcp_manager.session.template import SessionTemplate

__all__ = ["session_template"]


def session_template(
    server_id: str = "s",
    *,
    clock: Callable[[], int] = time.monotonic_ns,
    listened: Collection[str] = (),
    began: Callable[[str, str], None] | None = None,
    **settings: Any,
) -> SessionTemplate:
    """Make a template whose transports nobody asks for; ``settings`` go into the server's configuration."""
    host = HostApplication(
        identity=ClientIdentity(name="n", version="v", capabilities={}, stateless_capabilities={}),
        handlers={},
        clock=clock,
        handler_timeout_s=10.0,
        listened=listened,
        began=began,
    )
    endpoint = {} if "command" in settings else {"url": "http://127.0.0.1:9/mcp"}
    config = parse_server_config({**endpoint, **settings}, server_id=server_id)
    return SessionTemplate(server_id, config, host, _no_transport, ConnectSlots(1, most_waiting=1))


def _no_transport(*_: object) -> NoReturn:
    raise NotImplementedError
