"""Server objects: which ones are known, and how their messages are made and written, by the SDK that is installed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any, NamedTuple, Protocol

import orjson

from mcp_manager.transports.memory.lifespans import shared_lifespan

__all__ = ["Codec", "Running", "codec", "prepared"]


class Running(Protocol):
    """A server of the SDK that speaks over a pair of streams."""

    def create_initialization_options(self) -> Any:
        """Return what it says of itself."""

    async def run(self, read_stream: Any, write_stream: Any, initialization_options: Any, /) -> None:
        """Serve one session until the stream that it reads from ends."""


class Codec(NamedTuple):
    """Turn JSON into messages of the SDK, and back.

    Parameters
    ----------
    decode
        Makes a message from JSON; raises ``ValueError`` if it is none.
    encode
        Writes a message as JSON.
    knows_discover
        Whether the SDK knows ``server/discover``. One that does not logs a long warning for it.
    """

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    knows_discover: bool


def prepared(server: Any) -> tuple[Running, AbstractAsyncContextManager[object]]:
    """Return the low-level server of a server object, and what must be entered while its sessions run.

    Raises
    ------
    TypeError
        It is no server object of a known kind.
    """
    # fastmcp and the SDK's FastMCP (1.x) have the first, the SDK's MCPServer (2.x) the second.
    for name in ("_mcp_server", "_lowlevel_server"):
        inner = getattr(server, name, None)
        if inner is not None:
            break
    else:
        inner = server
    if not callable(getattr(inner, "create_initialization_options", None)) or not callable(getattr(inner, "run", None)):
        raise TypeError(f"{type(server).__name__} is not a server of the packages mcp or fastmcp")
    # fastmcp shares one lifespan among all sessions of a server, but ends it with the session that began it.
    lifespan = getattr(server, "_lifespan_manager", None)
    return inner, _shared(server, lifespan) if callable(lifespan) else contextlib.nullcontext()


@contextlib.asynccontextmanager
async def _shared(server: Any, lifespan: Callable[[], AbstractAsyncContextManager[object]]) -> AsyncIterator[None]:
    # The session enters it, too: it sets context variables.
    async with shared_lifespan(server, lifespan), lifespan():
        yield


@cache
def codec() -> Codec:
    """Return the codec for the SDK that is installed; raises ``ImportError`` if there is none."""
    # The server object comes from it, so it is installed and loaded.
    from mcp.shared.message import SessionMessage  # noqa: PLC0415

    try:
        from mcp_types import jsonrpc_message_adapter  # noqa: PLC0415
    except ImportError:
        # The SDK of 1.x.
        from mcp.types import JSONRPCMessage  # noqa: PLC0415

        model: Any = JSONRPCMessage
        return Codec(
            lambda frame: SessionMessage(model.model_validate_json(frame)),
            lambda sent: _written(sent.message.root, exclude_none=True),
            knows_discover=False,
        )
    return Codec(
        lambda frame: SessionMessage(jsonrpc_message_adapter.validate_json(frame, by_name=False)),
        lambda sent: _written(sent.message, exclude_unset=True),
        knows_discover=True,
    )


def _written(message: Any, **left_out: bool) -> bytes:
    result = getattr(message, "result", None)
    if type(result) is dict:
        # Nearly every message, and plain data already: this is faster than pydantic.
        with contextlib.suppress(TypeError):
            return orjson.dumps({"jsonrpc": "2.0", "id": message.id, "result": result})
    text: str = message.model_dump_json(by_alias=True, **left_out)
    return text.encode()
