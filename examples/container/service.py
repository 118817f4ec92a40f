"""An HTTP service that calls the tools of a fleet of MCP servers, made to be run by something that looks after it.

The same program runs in a container, under systemd and in Kubernetes. All of its settings are environment variables
(see ``Settings``); the fleet is in a file, which may change while it runs.

    GET  /health/live                       200 while the event loop runs
    GET  /health/ready                      200 between the start and the end of the service, otherwise 503
    GET  /metrics                           for Prometheus
    POST /servers/{server}/tools/{tool}     calls a tool; its arguments are a JSON object
                                            (X-Affinity-Key: calls with the same key stay together)

SIGTERM and SIGINT end it: readiness turns 503, calls under way are finished, then the MCP servers are stopped. SIGHUP
reads the file at once. It exits with 0 after a signal, with 78 if the file or a variable is invalid at the start, and
with 1 if it cannot listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from mcp_manager import (
    AuthError,
    CallError,
    ConfigError,
    DeadlineExceededError,
    InvalidRequestError,
    McpManager,
    McpManagerError,
    RpcError,
    ServerNotFoundError,
    ToolNotAllowedError,
)
from mcp_manager.observe.log_format import JsonFormatter

LOG = logging.getLogger("service")
EXIT_CONFIG = 78  # sysexits.h: a restart would not help

# The first class that fits; where none does, `delivery` decides.
STATUS_BY_ERROR: Mapping[type[McpManagerError], int] = {
    InvalidRequestError: 400,
    ToolNotAllowedError: 403,
    ServerNotFoundError: 404,
    RpcError: 422,
    DeadlineExceededError: 504,
    AuthError: 502,
}
STATUS_BY_DELIVERY = {"not_sent": 503, "rejected": 503, "unknown": 502, "answered": 502}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Settings:
    """The settings of the service, from the environment.

    Parameters
    ----------
    fleet
        ``FLEET_FILE``: the file that describes the MCP servers.
    host, port
        ``HOST``, ``PORT``: where to listen; port 0 for any free one.
    start_s
        ``START_S``: seconds that the start waits for all servers. After that, one that is ready is enough.
    linger_s
        ``LINGER_S``: seconds that new calls are still accepted after the signal to end. Load balancers notice within
        this time that the service is no longer ready.
    drain_s
        ``DRAIN_S``: seconds that calls under way then have.
    log_format
        ``LOG_FORMAT``: ``text`` or ``json``.
    """

    fleet: Path
    host: str = "127.0.0.1"
    port: int = 8080
    start_s: float = 30.0
    linger_s: float = 0.0
    drain_s: float = 25.0
    log_format: str = "text"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; raise ``ValueError`` for one that is invalid."""

        def number(name: str, default: float, most: float = 86_400.0) -> float:
            text = environment.get(name) or str(default)
            with contextlib.suppress(ValueError):
                if 0 <= (value := float(text)) <= most:
                    return value
            raise ValueError(f"{name} is no number from 0 to {most:.0f}: {text}")

        log_format = environment.get("LOG_FORMAT") or cls.log_format
        if log_format not in ("text", "json"):
            raise ValueError(f"LOG_FORMAT is neither text nor json: {log_format}")
        return cls(
            fleet=Path(environment.get("FLEET_FILE") or Path(__file__).with_name("fleet.toml")),
            host=environment.get("HOST") or cls.host,
            port=int(number("PORT", cls.port, most=65_535)),
            start_s=number("START_S", cls.start_s),
            linger_s=number("LINGER_S", cls.linger_s),
            drain_s=number("DRAIN_S", cls.drain_s),
            log_format=log_format,
        )


class Service:
    """The fleet, and what the service does with it."""

    def __init__(self, manager: McpManager, settings: Settings) -> None:
        self.manager = manager
        self.settings = settings
        self.state = "starting"
        self.stop_asked = asyncio.Event()
        self.reload_asked = asyncio.Event()

    def application(self) -> web.Application:
        """Return the application that answers requests."""
        app = web.Application(middlewares=[self.closing, errors])
        app.router.add_get("/health/live", self.live)
        app.router.add_get("/health/ready", self.ready)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/servers/{server}/tools/{tool}", self.call)
        return app

    async def live(self, _: web.Request) -> web.StreamResponse:
        """Answer that the event loop runs. Servers that are down are no reason to restart this process."""
        return web.json_response({"state": self.state})

    async def ready(self, _: web.Request) -> web.StreamResponse:
        """Answer whether to send calls here.

        A server that goes down later changes nothing: it is as much down for every other replica, and calls to the
        others should go on.
        """
        health = self.manager.health()
        body = {"state": self.state, "servers": health.total_servers, "unhealthy": health.unhealthy_servers}
        return web.json_response(body, status=200 if self.state == "ready" else 503)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Answer a scrape of Prometheus."""
        page = await self.manager.scrape(request.headers.get("Accept", ""))
        return web.Response(body=page.body, headers={"Content-Type": page.content_type})

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Call a tool, and answer with its result as MCP describes it: 422 if the tool reports an error."""
        # A form of a web page can be sent here without asking, JSON cannot.
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="the arguments are a JSON object, Content-Type: application/json\n")
        try:
            arguments = json.loads(await request.read())
        # The latter for what is nested thousands of levels deep.
        except (ValueError, RecursionError):
            raise web.HTTPBadRequest(text="the body is no JSON\n") from None
        server, tool = request.match_info["server"], request.match_info["tool"]
        # Calls with the same key stay together, if the server's `balancing` says so.
        key = request.headers.get("X-Affinity-Key")
        result = await self.manager.call_tool(server, tool, arguments, key=key)
        body = result.to_json()
        return web.Response(body=body, status=422 if result.is_error else 200, content_type="application/json")

    @web.middleware
    async def closing(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Close connections after their answer once the service is stopping: the next request goes to another."""
        response = await handler(request)
        if self.state == "stopping":
            response.force_close()
        return response

    async def follow(self) -> None:
        """Start the fleet, follow its file, and read that again whenever somebody asks."""
        await self.manager.start()
        await self.manager.watch(self.settings.fleet)
        try:
            await self.manager.wait_ready(timeout=self.settings.start_s)
        except TimeoutError as error:
            LOG.warning("%s", error)
            await self.manager.wait_ready(min=1)
        self.state = "ready"
        notify("READY=1", f"STATUS={self.status}")
        LOG.info("ready: %s", self.status)
        while True:
            await self.reload_asked.wait()
            self.reload_asked.clear()
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                await self.manager.watch(self.settings.fleet)
            except ConfigError as error:
                LOG.error("the fleet stays as it is: %s", error)
            notify("READY=1", f"STATUS={self.status}")

    async def stop(self, runner: web.AppRunner) -> None:
        """Turn unready, finish the calls under way, and end all MCP servers."""
        self.state = "stopping"
        notify("STOPPING=1", "STATUS=stopping")
        LOG.info("stopping")
        await asyncio.sleep(self.settings.linger_s)
        for site in runner.sites:
            await site.stop()
        # What was accepted until now is answered. `cleanup` would not read from a connection that is quite new, and
        # would wait for it all of DRAIN_S (aiohttp 3.14).
        await asyncio.sleep(0.1)
        await runner.cleanup()
        await self.manager.stop()

    @property
    def status(self) -> str:
        """One line about the fleet, for ``systemctl status``."""
        health = self.manager.health()
        return f"{health.total_servers - health.unhealthy_servers} of {health.total_servers} servers serve"


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with what became of a call that failed."""
    try:
        return await handler(request)
    except McpManagerError as error:
        by_class = (status for kind, status in STATUS_BY_ERROR.items() if isinstance(error, kind))
        status = next(by_class, STATUS_BY_DELIVERY[error.delivery])
        body = {
            "error": type(error).__name__,
            "message": str(error),
            "delivery": error.delivery,
            "retryable": error.retryable,
        }
        headers: dict[str, str] = {}
        if status == 503 and isinstance(error, CallError) and error.retry_after_s is not None:
            headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        return web.json_response(body, status=status, headers=headers)


def notify(*lines: str) -> None:
    """Tell systemd about the service, if systemd has started it (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            # An address that begins with @ is in the abstract namespace.
            channel.sendto("\n".join(lines).encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError as error:
        LOG.warning("systemd was not told %s: %s", lines[0], error)


async def feed_watchdog(service: Service) -> None:
    """Tell systemd that the event loop runs, twice as often as it wants. A loop that is blocked says nothing."""
    interval_us = int(os.environ.get("WATCHDOG_USEC") or 0)
    if not interval_us or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1", *([f"STATUS={service.status}"] if service.state == "ready" else []))
        await asyncio.sleep(interval_us / 2e6)


async def serve(manager: McpManager, settings: Settings) -> None:
    """Run the service until a signal ends it."""
    service = Service(manager, settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop_asked.set)
    loop.add_signal_handler(signal.SIGHUP, service.reload_asked.set)
    runner = web.AppRunner(service.application(), access_log=None, shutdown_timeout=settings.drain_s)
    # It listens before the servers have started: that may take longer than a probe of liveness waits.
    await runner.setup()
    await web.TCPSite(runner, settings.host, settings.port).start()
    LOG.info("listening on %s port %d", *runner.addresses[0][:2])
    async with asyncio.TaskGroup() as tasks:
        watchdog = tasks.create_task(feed_watchdog(service))
        try:
            following = tasks.create_task(service.follow())
            await service.stop_asked.wait()
            following.cancel()
        finally:
            await service.stop(runner)
            watchdog.cancel()


def configure_logging(log_format: str) -> None:
    """Log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def main() -> int:
    """Run the service; return its exit status."""
    try:
        settings = Settings.from_environment(os.environ)
        configure_logging(settings.log_format)
        manager = McpManager.from_file(settings.fleet)
    # ConfigError is one, too.
    except ValueError as error:
        LOG.critical("%s", error)
        return EXIT_CONFIG
    try:
        asyncio.run(serve(manager, settings))
    except OSError as error:
        LOG.critical("cannot listen on %s port %d: %s", settings.host, settings.port, error.strerror or error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
