"""The recipe of a FastAPI service: run by uvicorn, seen by HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from support.documents import blocks_of
from support.recipes import EXAMPLES, Program, environment, folder_of, run, running
from support.suites import PLUGIN

from mcp_manager.testing import Faults, FaultyServer, Hold, Tool

RECIPE = "fastapi_service"
# The service of the module keeps its connections and programs from one test to the next.
pytestmark = pytest.mark.allow_leaks("descriptors", "children", reason="they belong to fixtures of the module")
JSON = {"Content-Type": "application/json"}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Answer(NamedTuple):
    """What the service answered."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.text)


class Service(NamedTuple):
    """The service that runs."""

    program: Program
    port: int

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection of its own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a page."""
        return self._ask("GET", path, None, headers)

    def wait_until_ready(self) -> None:
        """Wait for programs that start slowly, as a load balancer does."""
        until = time.monotonic() + 30
        while self.get("/health/ready").status != 200:
            assert time.monotonic() < until
            time.sleep(0.1)

    def post(self, path: str, arguments: object, **headers: str) -> Answer:
        """Send JSON."""
        return self._ask("POST", path, json.dumps(arguments), headers)

    def call(self, tool: str, arguments: object, **headers: str) -> Answer:
        """Call a tool of any server."""
        return self.post(f"/servers/{tool.replace('/', '/tools/')}", arguments, **headers)

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Answer:
        connection = self.connect()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {**JSON, **named})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()


@contextmanager
def started(*options: str, **variables: str) -> Iterator[Service]:
    """Run the service as its README says, on a free port."""
    command = ("uvicorn", "service:app", "--log-config", "logging.json", "--port", "0", *options)
    env = environment(PYTHONWARNINGS="error", **variables)
    with running(*command, folder=folder_of(RECIPE), env=env) as program:
        yield Service(program, int(program.wait_for(r"running on http://127\.0\.0\.1:(\d+)")[1]))


@pytest.fixture(scope="module")
def shop() -> Iterator[FaultyServer]:
    with FaultyServer("handshake", {"buy": Tool(), "fail": Tool(result="sold out", is_error=True)}) as server:
        yield server


@pytest.fixture(scope="module")
def service(shop: FaultyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    fleet = tmp_path_factory.mktemp("fleet") / "fleet.toml"
    fleet.write_text(f"""
[servers.shop]
url = "{shop.url}"
tags = ["required"]
tools = {{ deny = ["steal"] }}
retry = {{ attempts = 1 }}
limits = {{ max_concurrent = 1, max_waiting = 0 }}

[servers.gone]
url = "http://127.0.0.1:9/mcp"
tags = ["required"]

[servers.starting]
command = "sh"
args = ["-c", "cat > /dev/null"]
connect = "lazy"
""")
    with started(FLEET_FILE=str(fleet)) as service:
        yield service


@contextmanager
def next_request(server: FaultyServer, method: str) -> Iterator[None]:
    """Wait at the end of the block until a server has got another request of a method."""
    before = len(server.requests_of(method))
    yield
    asyncio.run(server.wait_for(method, before + 1))


def test_serves_what_the_readme_shows() -> None:
    with started() as service:
        service.wait_until_ready()
        assert service.get("/health/live").json["total_servers"] == 2
        assert service.get("/health/ready").json == {"is_ready": True, "missing": []}
        assert service.post("/sums", {"a": 40, "b": 2}).text == "42.0"
        assert service.call("notes/echo", {"text": "hi"}).json["content"] == [{"type": "text", "text": "hi"}]
        assert len(service.post("/digests?text=hi", None).json) == 128
        assert [(each["id"], each["ready"]) for each in service.get("/servers").json] == [
            ("calculator", 2),
            ("notes", 1),
        ]
        plain, open_metrics = service.get("/metrics"), service.get("/metrics", Accept=OPENMETRICS)
        assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert 'mcp_requests_total{method="tools/call",server_id="calculator",status="success"} 1.0' in plain.text
        assert open_metrics.headers["Content-Type"].startswith("application/openmetrics-text")
        assert open_metrics.text.endswith("# EOF\n")
        # JSON has no infinity; "null" would be a wrong answer.
        assert service.post("/sums", {"a": 1e308, "b": 1e308}).status == 502
        children = psutil.Process(service.program.process.pid).children(recursive=True)
        assert len(children) >= 3
        assert end_during_a_call(service) == (-signal.SIGTERM, 200, "slept 0.5 s")
        assert not psutil.wait_procs(children, 5)[1]
        assert not [line for line in service.program.lines if "ERROR" in line or "Traceback" in line]


def end_during_a_call(service: Service) -> tuple[int, int, str]:
    """Send SIGTERM while a call is under way; return the exit status, and status and text of the call's answer."""
    connection = service.connect()
    connection.request("POST", "/servers/calculator/tools/sleep", '{"seconds": 0.5}', JSON)
    # Once this is answered, the service has also read the request that came before it.
    assert service.get("/health/live").status == 200
    status = service.program.end(signal.SIGTERM)
    response = connection.getresponse()
    text = json.loads(response.read())["content"][0]["text"]
    connection.close()
    return status, response.status, text


def test_answers_the_call_that_it_gives_up_when_it_ends(shop: FaultyServer, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.json"
    fleet.write_text(json.dumps({"servers": {"shop": {"url": shop.url}}}))
    shop.next(Hold())
    with (
        started("--timeout-graceful-shutdown", "0", FLEET_FILE=str(fleet)) as service,
        closing(service.connect()) as connection,
    ):
        with next_request(shop, "tools/call"):
            connection.request("POST", "/servers/shop/tools/buy", "{}", JSON)
        assert service.program.end(signal.SIGTERM) == -signal.SIGTERM
        response = connection.getresponse()
        assert (response.status, json.load(response)["delivery"]) == (504, "unknown")
        assert "Traceback" not in service.program.output


def test_describes_itself(service: Service) -> None:
    described = service.get("/openapi.json").json
    assert described["components"]["schemas"]["ServerView"]["properties"]["state"]["title"] == "ServerState"
    sums = described["paths"]["/sums"]["post"]
    assert sums["responses"].keys() == {"200", "default"}
    problem = sums["responses"]["default"]["content"]["application/problem+json"]["schema"]
    assert problem["properties"]["delivery"]["enum"] == ["not_sent", "rejected", "unknown", "answered"]


def test_names_the_servers_that_are_missing(service: Service) -> None:
    answer = service.get("/health/ready")
    assert (answer.status, answer.json["is_ready"]) == (503, False)
    (missing,) = answer.json["missing"]
    assert (missing["id"], missing["state"]) == ("gone", "Unhealthy")
    assert "not connected" in missing["reasons"]
    assert service.get("/health/live").status == 200


@pytest.mark.parametrize(
    ("tool", "status", "error", "delivery", "detail"),
    [
        ("nowhere/buy", 404, "ServerNotFoundError", "not_sent", "Server nowhere not found"),
        ("shop/steal", 403, "ToolNotAllowedError", "not_sent", "steal"),
        ("shop/fail", 422, "ToolError", "answered", "sold out"),
        ("shop/nothing", 422, "RpcError", "answered", "nothing"),
        ("gone/buy", 503, "ConnectError", "not_sent", "The call was not executed."),
    ],
)
def test_answers_with_a_problem(
    service: Service, tool: str, status: int, error: str, delivery: str, detail: str
) -> None:
    answer = service.call(tool, {})
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status, answer.json["status"], answer.json["error"]) == (status, status, error)
    assert answer.json["delivery"] == delivery
    assert detail in answer.json["detail"]
    assert "127.0.0.1" not in answer.text


def test_refuses_what_is_not_valid(service: Service) -> None:
    answer = service.post("/sums", {"a": 1})
    assert (answer.status, answer.json["delivery"]) == (422, "not_sent")
    assert answer.json["detail"] == "body.b: Field required"
    assert service.post("/sums", {"a": 1, "b": 2}, Request_Timeout="0").status == 422
    assert service.post("/sums", {"a": float("nan"), "b": 2}).json["detail"].startswith("body.a: ")


@pytest.mark.parametrize(("server_id", "delivery"), [("shop", "unknown"), ("starting", "not_sent")])
def test_takes_the_deadline_from_the_request(
    service: Service, shop: FaultyServer, server_id: str, delivery: str
) -> None:
    if server_id == "shop":
        shop.next(Faults.stall())
    answer = service.call(f"{server_id}/buy", {}, Request_Timeout="0.2")
    assert (answer.status, answer.json["error"], answer.json["delivery"]) == (504, "DeadlineExceededError", delivery)


def test_cancels_a_call_whose_client_has_gone(service: Service, shop: FaultyServer) -> None:
    shop.next(Hold())
    connection = service.connect()
    with next_request(shop, "tools/call"):
        # The deadline, which would cancel the call as well, comes later than this test waits.
        connection.request("POST", "/servers/shop/tools/buy", "{}", {**JSON, "Request-Timeout": "60"})
    with next_request(shop, "notifications/cancelled"):
        connection.close()
    assert service.call("shop/buy", {}).status == 200
    assert "Traceback" not in service.program.output


def test_refuses_at_once_what_is_too_much(service: Service, shop: FaultyServer) -> None:
    held = Hold()
    shop.next(held)
    with closing(service.connect()) as connection:
        with next_request(shop, "tools/call"):
            connection.request("POST", "/servers/shop/tools/buy", "{}", JSON)
        refused = service.call("shop/buy", {})
        held.release()
        assert connection.getresponse().status == 200
    assert (refused.status, refused.json["error"], refused.json["delivery"]) == (503, "OverloadedError", "not_sent")


def test_an_overload_after_which_a_repetition_may_do_harm(service: Service, shop: FaultyServer) -> None:
    shop.next(Faults.status(503, retry_after=1))
    failed = service.call("shop/buy", {})
    assert (failed.status, failed.json["error"], failed.json["delivery"]) == (504, "OverloadedError", "unknown")


def test_says_when_to_come_back(service: Service, shop: FaultyServer) -> None:
    shop.next(Faults.status(429, retry_after=30))
    refused = service.call("shop/buy", {})
    assert (refused.status, refused.json["error"], refused.json["delivery"]) == (503, "OverloadedError", "rejected")
    assert 0 < int(refused.headers["Retry-After"]) <= 30


CALLS_OF_USERS = """
from service import app
from users import UserCalls


@app.get("/orders")
async def orders(calls: UserCalls) -> str:
    return (await calls.call_tool("shop", "buy", into=str)).data


async def test_the_token_reaches_the_server(faulty_server: FaultyServerFactory, mcp_fleet: McpManager) -> None:
    server = faulty_server(tools={"buy": Tool(result="a book")})
    await mcp_fleet.deploy("shop", server.spec)
    app.dependency_overrides[manager_of] = lambda: mcp_fleet
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        assert (await client.get("/orders")).status_code == 401
        assert (await client.get("/orders", headers={"Authorization": "Bearer ada-1"})).json() == "a book"
    assert [each.headers["authorization"] for each in server.requests_of("tools/call")] == ["Bearer ada-1"]
"""


def test_calls_of_users_and_tests_are_as_the_readme_shows(tmp_path: Path) -> None:
    pytest.importorskip("httpx")
    folder = tmp_path / "service"
    shutil.copytree(folder_of(RECIPE), folder, ignore=shutil.ignore_patterns("__pycache__"))
    users, tests = (block.text for block in blocks_of(folder / "README.md") if block.language == "python")
    (folder / "users.py").write_text(users, encoding="utf-8")
    (folder / "test_service.py").write_text(tests + CALLS_OF_USERS, encoding="utf-8")
    shutil.copy(EXAMPLES / "testing_your_code" / "pyproject.toml", folder)
    options = [f"-pno:{each}" for each in ("cacheprovider", "benchmark", "hypothesispytest", "timeout", "xdist")]
    output = run(sys.executable, "-m", "pytest", "-q", *options, *PLUGIN, folder=folder)
    assert "2 passed" in output
