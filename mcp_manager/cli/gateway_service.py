"""The gateway that a command line names, as a service: of one process, or of one worker."""

from __future__ import annotations

import socket

from mcp_manager.auth.token_store import FileTokenStore
from mcp_manager.cli.grants import stored_in
from mcp_manager.cli.options import Options
from mcp_manager.cli.source import Fleet, file_of
from mcp_manager.config import ServeConfig
from mcp_manager.gateway.gateway import Gateway
from mcp_manager.gateway.service import Service
from mcp_manager.gateway.workers.assignment import Assignment
from mcp_manager.gateway.workers.worker import Worker

__all__ = ["service_of"]


def service_of(
    fleet: Fleet, serve: ServeConfig, options: Options, told: tuple[Assignment, socket.socket] | None
) -> tuple[Gateway, Service]:
    """Return the gateway of a fleet, and the service that runs it.

    Parameters
    ----------
    fleet, serve
        What is served, and how.
    options
        The command line.
    told
        What the parent said if this process is a worker, and the socket to it; else ``None``.
    """
    worker = None if told is None else Worker(*told)
    gateway = Gateway(
        fleet.config,
        serve=serve,
        views=fleet.views,
        worker=worker,
        stdio=options.stdio,
        token_store=_token_store(fleet),
    )
    service = Service(
        gateway,
        None if options.demo else file_of(options),
        fleet.serve,
        watch=options.watch,
        lenient=options.lenient,
        stdio=options.stdio,
        worker=worker,
    )
    return gateway, service


def _token_store(fleet: Fleet) -> FileTokenStore | None:
    uses_oauth = any(server.auth.type == "oauth" for server in fleet.servers.values())
    return FileTokenStore(stored_in()) if uses_oauth else None
