"""Serve an ASGI application on an inherited socket, print ``ready``, and exit with the parent."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from typing import Any

import uvicorn

__all__ = ["argument_parser", "serve"]


class _AnnouncingServer(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        print("ready", flush=True)


def argument_parser() -> argparse.ArgumentParser:
    """Return a parser with the options of all HTTP server programs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True, help="a listening socket")
    parser.add_argument("--ledger", default="", help="a file to note every executed call in")
    parser.add_argument("--json", action="store_true", help="answer with JSON in place of event streams")
    parser.add_argument("--sse", action="store_true", help="serve HTTP+SSE, at /sse")
    return parser


def serve(app: Any, descriptor: int) -> None:
    """Serve until a signal ends the process, or until stdin closes because the parent has ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    listener = socket.socket(fileno=descriptor)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    _AnnouncingServer(config).run(sockets=[listener])


def _end_with_parent() -> None:
    # Not sys.stdin: this thread would hold its lock, which the interpreter needs when it exits.
    while os.read(0, 1024):
        pass
    sys.stderr.flush()
    os._exit(0)
