"""``python manage.py mcp_servers``: start the fleet, print it, and stop it."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from mcp_manager import DeadlineExceededError, PyMcpManager


class Command(BaseCommand):
    """Print the servers of the fleet and their tools; fail if one of them does not serve."""

    help = "Connect to every MCP server of the fleet, and print its state and its tools."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options of this command."""
        parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait for the servers (30)")

    def handle(self, *args: Any, timeout: float, **options: Any) -> None:
        """Run the command."""
        # Its own, stopped at the end of the block: a command is a process of a few seconds.
        with PyMcpManager(settings.MCP_FLEET) as manager:
            problem = ""
            try:
                manager.wait_ready(timeout=timeout)
            except DeadlineExceededError as error:
                problem = error.message
            catalog = manager.list_all_tools()
            for view in manager.servers():
                tools = ", ".join(each.tool.name for each in catalog.tools if each.server_id == view.id)
                self.stdout.write(
                    f"{view.id}: {view.state}, {view.ready} of {view.desired} ready, tools: {tools or '-'}"
                )
        if problem:
            raise CommandError(problem)
