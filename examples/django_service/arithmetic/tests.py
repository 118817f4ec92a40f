"""The tests of this project's own: ``python manage.py test``."""

from __future__ import annotations

from io import StringIO

import mcp_fleet
from django.core.management import call_command
from django.core.management.base import CommandError, SystemCheckError
from django.test import SimpleTestCase, override_settings

from mcp_manager.testing import Faults, FaultyServer, Tool


class ArithmeticTests(SimpleTestCase):
    """The views with a server that answers as each test wants it; every test has a fleet of its own."""

    def setUp(self) -> None:
        """Start a server, and make it the fleet."""
        self.server = FaultyServer("stateless", {"add": Tool(result="5"), "sleep": Tool(result="slept")})
        self.enterContext(self.server)
        calculator = {"url": self.server.url, "tags": ["required"]}
        self.enterContext(override_settings(MCP_FLEET={"calculator": calculator}))

    def test_a_sum(self) -> None:
        """A sync view."""
        response = self.client.get("/add", {"a": 2, "b": 3})
        self.assertEqual((response.status_code, response.json()), (200, {"sum": 5.0}))
        self.server.ledger.assert_executed_once("add")

    async def test_a_sum_on_a_loop(self) -> None:
        """An async view."""
        response = await self.async_client.get("/async/add", {"a": "2", "b": "3"})
        self.assertEqual((response.status_code, response.json()), (200, {"sum": 5.0}))

    def test_a_parameter_that_is_no_number_is_not_sent(self) -> None:
        """The form refuses it."""
        self.assertEqual(self.client.get("/add", {"a": "two", "b": "3"}).status_code, 400)
        self.server.ledger.assert_not_executed("add")

    def test_a_connection_that_breaks_after_the_request(self) -> None:
        """Nobody knows whether the tool ran: 504, and no second attempt."""
        self.server.next(Faults.reset(after="headers"))
        with self.assertLogs("mcp_fleet", "WARNING") as logged:
            response = self.client.get("/add", {"a": 2, "b": 3})
        self.assertIn("GET '/add': ConnectionLostError: ", logged.output[0])
        self.assertEqual(response.status_code, 504)
        self.assertEqual(response.json()["delivery"], "unknown")
        self.server.ledger.assert_executed_once("add")

    def test_a_server_that_is_overloaded(self) -> None:
        """The client is told when to come back."""
        self.server.always(Faults.status(429, retry_after=7))
        with self.assertLogs("mcp_fleet", "WARNING"):
            response = self.client.get("/add", {"a": 2, "b": 3})
        self.assertEqual((response.status_code, response.headers["Retry-After"]), (503, "7"))
        self.server.ledger.assert_not_executed("add")

    def test_a_server_that_is_overloaded_and_may_have_executed_the_call(self) -> None:
        """A status 503 is not to be repeated blindly, unlike 429."""
        self.server.always(Faults.status(503))
        with self.assertLogs("mcp_fleet", "WARNING"):
            response = self.client.get("/add", {"a": 2, "b": 3})
        self.assertEqual((response.status_code, response.json()["delivery"]), (504, "unknown"))

    def test_readiness(self) -> None:
        """The service is not ready while a required server is away."""
        self.assertEqual(self.client.get("/ready").status_code, 200)
        mcp_fleet.stop()
        self.server.refuse_connections()
        response = self.client.get("/ready")
        self.assertEqual((response.status_code, response.json()["missing"]), (503, ["calculator"]))

    def test_the_command(self) -> None:
        """It prints the fleet, and fails if a server does not serve."""
        output = StringIO()
        call_command("mcp_servers", stdout=output)
        self.assertEqual(output.getvalue(), "calculator: Healthy, 1 of 1 ready, tools: add, sleep\n")
        self.server.refuse_connections()
        with self.assertRaisesRegex(CommandError, "calculator"):
            call_command("mcp_servers", "--timeout", "0.2", stdout=output)

    @override_settings(MCP_FLEET={"calculator": {"url": "http://127.0.0.1:9/mcp", "timout": 5}})
    def test_a_mistake_in_the_fleet_is_found_before_the_start(self) -> None:
        """``python manage.py check`` names it."""
        with self.assertRaisesRegex(SystemCheckError, "timout"):
            call_command("check")
