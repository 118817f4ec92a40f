"""The fixture of the official conformance suite, over streamable HTTP, in one era: ``--era handshake|stateless``."""

from __future__ import annotations

import asyncio
import os
import socket
import threading

from _conformance_handshake import handshake_application
from _conformance_stateless import stateless_application
from aiohttp import web

_APPLICATIONS = {"handshake": handshake_application, "stateless": stateless_application}


async def _serve(application: web.Application, descriptor: int) -> None:
    # A client that goes cancels its call.
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    await web.SockSite(runner, socket.socket(fileno=descriptor), shutdown_timeout=0.1).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True, help="a listening socket")
    parser.add_argument("--era", choices=_APPLICATIONS, required=True)
    options = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_serve(_APPLICATIONS[options.era](), options.fd))
