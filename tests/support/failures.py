"""Failures that users run into, each provoked as it happens to them; the table for the test of hints."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from support.asking_servers import of_fastmcp, of_the_sdk
from support.authority import Authority
from support.authorization import ProtectedServer, oauth
from support.era_server import EraServer
from support.proxy import ScriptedProxy

from mcp_manager import ManagerConfig, McpManager, PyMcpManager, Selector
from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.config import load_manager_config
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import Fault, ScriptedServer
from mcp_manager.testing.scripted.stateless import HANDSHAKE, STATELESS

__all__ = ["FAILURES", "KEY", "Failure"]

KEY = "canary-4b7d1e"
"""The credential in some of the failures, which none of them may quote."""

FAILED_START = {
    "connect_timeout_s": 3.0,
    "shutdown_grace_s": 0.2,
    "health": {"enabled": False},
    "retry": {"attempts": 1},
}


class Failure(NamedTuple):
    """A failure, and what its text must name for the user to find the way out."""

    name: str
    provoke: Callable[[Path], Awaitable[object]]
    says: tuple[str, ...]


FAILURES: list[Failure] = []


def failure(*says: str) -> Callable[[Callable[[Path], Awaitable[object]]], None]:
    def add(provoke: Callable[[Path], Awaitable[object]]) -> None:
        FAILURES.append(Failure(provoke.__name__, provoke, says))

    return add


async def called(spec: dict[str, Any], *, manager: dict[str, Any] | None = None, timeout: float = 10.0) -> None:
    """Deploy a server and call it."""
    async with McpManager(ManagerConfig(**(manager or {}))) as running:
        await running.deploy("docs", {**FAILED_START, **spec})
        await running.call_tool("docs", "echo", {"text": "x"}, timeout=timeout)


async def refused(fault: Fault, *, path: str = "", on: str = "*", **spec: Any) -> None:
    """Call a server that answers with a fault."""
    with ScriptedServer() as server:
        server.script_always(on, fault)
        await called({"url": server.url.removesuffix("/mcp") + (path or "/mcp"), **spec})


def program(text: str, **spec: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-c", text], **spec}


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Programs


@failure("args", "command")
async def a_command_with_blanks(_: Path) -> None:
    await called({"command": f"npx -y @modelcontextprotocol/server-files --key={KEY}"})


@failure("PATH", "command")
async def a_command_that_does_not_exist(_: Path) -> None:
    await called({"command": "no-such-program-anywhere"})


@failure("cwd")
async def a_working_directory_that_does_not_exist(folder: Path) -> None:
    await called({"command": sys.executable, "cwd": str(folder / "gone")})


@failure("make the file executable", "command")
async def a_command_that_is_not_executable(folder: Path) -> None:
    (folder / "server.py").write_text("")
    await called({"command": str(folder / "server.py")})


@failure("env", "API_KEY is not set")
async def a_variable_that_the_program_wants(_: Path) -> None:
    await called(program("import sys; print('Error: API_KEY is not set', file=sys.stderr); sys.exit(1)"))


@failure("No module named nowhere")
async def a_module_that_is_not_installed(_: Path) -> None:
    await called({"command": sys.executable, "args": ["-m", "nowhere"]})


@failure("start_timeout_s", "Ok to proceed?", "args")
async def a_program_that_asks_at_its_start(_: Path) -> None:
    text = "import sys, time; print('Ok to proceed? (y)', file=sys.stderr, flush=True); time.sleep(30)"
    await called(program(text, start_timeout_s=0.4, connect_timeout_s=0.4), timeout=3.0)


@failure("longer timeout")
async def a_program_that_is_still_starting(_: Path) -> None:
    await called(program("import time; time.sleep(30)", connect_timeout_s=0.1), timeout=0.3)


@failure("url", "Listening on port 3000")
async def a_program_that_does_not_speak_over_stdio(_: Path) -> None:
    text = "import time; print('Listening on port 3000', flush=True); time.sleep(30)"
    await called(program(text, start_timeout_s=0.4, connect_timeout_s=0.4), timeout=3.0)


@failure("exit", "boom")
async def a_program_that_ends_again_and_again(_: Path) -> None:
    async with McpManager() as manager:
        await manager.deploy("docs", program("import sys; sys.exit('boom')", **FAILED_START))
        with contextlib.suppress(Exception):
            await manager.call_tool("docs", "echo")
        await manager.call_tool("docs", "echo")


# URLs


@failure("url", "path")
async def a_url_without_a_path(_: Path) -> None:
    await refused(faults.Status(404), path="/")


@failure("url", "/mcp")
async def a_path_that_is_no_endpoint(_: Path) -> None:
    await refused(faults.Status(404, {"Content-Type": "application/json"}, b'{"detail":"Not Found"}'), path="/api")


@failure("url", "/mcp")
async def a_web_page(_: Path) -> None:
    await refused(faults.Status(200, {"Content-Type": "text/html"}, b"<title>Welcome</title>"), path="/docs")


@failure("url")
async def a_redirect(_: Path) -> None:
    await refused(faults.Redirect("https://docs.example.com/mcp", 301))


@failure("transport", "/sse")
async def a_stream_that_is_not_there(_: Path) -> None:
    await refused(faults.Status(404), on="GET", transport="sse")


@failure("url", "runs")
async def nobody_at_the_port(_: Path) -> None:
    await called({"url": f"http://127.0.0.1:{unused_port()}/mcp"})


@failure("url", "name")
async def a_host_that_does_not_exist(_: Path) -> None:
    await called({"url": "http://no-such-host.invalid/mcp"})


@failure("protocol_version")
async def a_revision_that_the_server_does_not_speak(_: Path) -> None:
    with EraServer(HANDSHAKE) as server:
        await called({"url": server.url, "protocol_version": STATELESS})


# TLS and proxies


@failure("tls.ca_file")
async def an_unknown_issuer(folder: Path) -> None:
    with ScriptedServer(tls=Authority(folder).issue("127.0.0.1").load()) as server:
        await called({"url": server.url})


@failure("url", "certificate")
async def a_certificate_of_another_name(folder: Path) -> None:
    authority = Authority(folder)
    with ScriptedServer(tls=authority.issue("other.example.com").load()) as server:
        await called({"url": server.url, "tls": {"ca_file": str(authority.ca_file)}})


@failure("https://")
async def http_to_a_port_of_tls(folder: Path) -> None:
    with ScriptedServer(tls=Authority(folder).issue("127.0.0.1").load()) as server:
        await called({"url": server.url.replace("https", "http")})


@failure("http://")
async def tls_to_a_port_of_http(_: Path) -> None:
    with ScriptedServer() as server:
        server.script_connections(faults.Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n"), times=8)
        await called({"url": server.url.replace("http", "https")})


@failure("proxy")
async def a_proxy_that_is_not_there(_: Path) -> None:
    await called({"url": "http://192.0.2.1/mcp", "proxy": f"http://127.0.0.1:{unused_port()}"})


@failure("user and password", "proxy")
async def a_proxy_that_wants_credentials(_: Path) -> None:
    with ScriptedProxy(credentials="u:p") as proxy:
        await called({"url": "https://192.0.2.1/mcp", "proxy": f"http://127.0.0.1:{proxy.port}"})


@failure("unix_socket")
async def a_socket_that_is_not_there(folder: Path) -> None:
    await called({"url": "http://localhost/mcp", "unix_socket": str(folder / "no.sock")})


# Credentials


@failure('auth.type = "oauth"')
async def an_oauth_challenge(_: Path) -> None:
    fields = {
        "WWW-Authenticate": 'Bearer resource_metadata="https://docs.example.com/.well-known/oauth-protected-resource"'
    }
    await refused(faults.Status(401, fields))


@failure("auth", "headers")
async def no_credentials(_: Path) -> None:
    await refused(faults.Status(401))


@failure("auth")
async def refused_credentials(_: Path) -> None:
    body = f"the key {KEY} has expired".encode()
    await refused(faults.Status(401, {}, body), auth={"type": "bearer", "token": KEY})


@failure("Invalid Host header", "url")
async def a_host_check(_: Path) -> None:
    await refused(faults.Status(403, {}, b"Invalid Host header"))


@failure("auth", "headers", "operator")
async def a_refusal_without_a_word(_: Path) -> None:
    await refused(faults.Status(403))


@failure("Invalid Origin header", "headers")
async def an_origin_that_the_server_does_not_accept(_: Path) -> None:
    await refused(faults.Status(403, {}, b"Invalid Origin header"), headers={"Origin": "https://example.com"})


@failure("Invalid Host header", "url")
async def a_host_check_of_the_official_sdk(_: Path) -> None:
    await refused(faults.Status(421, {}, b"Invalid Host header"))


# Statuses

for status, says in {
    400: "its own log",
    405: "url is the MCP endpoint",
    406: "url is the MCP endpoint",
    410: "url is the MCP endpoint",
    413: "shorter arguments",
    415: "url is the MCP endpoint",
    422: "url is the MCP endpoint",
    426: "write https:// in url",
    429: "limits.rate",
    431: "shorten headers",
    500: "its own log",
    501: "url is the MCP endpoint",
    502: "check that the server behind it runs",
    503: "check that it runs",
    504: "the gateway's own timeout",
    522: "check that the server behind it runs",
}.items():

    async def answers_with_status(_: Path, status: int = status) -> None:
        await refused(faults.Status(status))

    FAILURES.append(Failure(f"status_{status}", answers_with_status, (f"HTTP {status}", says)))


@failure("check that the server behind it runs", "retry.tools")
async def a_gateway_that_loses_a_call_that_may_not_be_repeated(_: Path) -> None:
    with ScriptedServer() as server:
        server.script_always("tools/call", faults.Status(502))
        await called({"url": server.url, "retry": {"attempts": 2}})


@failure("redirect_handler")
async def nobody_to_agree(_: Path) -> None:
    with ProtectedServer() as server:
        await called({"url": server.url, **oauth()})


# Times and limits


@failure("deadline of 0.3 s (request_timeout_s)", "longer timeout=", "raise request_timeout_s")
async def a_call_that_takes_longer_than_the_configuration_says(_: Path) -> None:
    with ScriptedServer() as server:
        server.script_always("tools/call", faults.Hold())
        async with McpManager() as manager:
            await manager.deploy("docs", {**FAILED_START, "url": server.url, "request_timeout_s": 0.3})
            await manager.call_tool("docs", "echo")


@failure("deadline of 0.3 s (timeout=)", "longer timeout=")
async def a_call_that_takes_longer_than_its_caller_says(_: Path) -> None:
    with ScriptedServer() as server:
        server.script_always("tools/call", faults.Hold())
        await called({"url": server.url}, timeout=0.3)


@failure("timeout of 0.3 s", "longer timeout=")
async def a_search_for_a_tool_that_takes_longer(_: Path) -> None:
    with ScriptedServer() as server:
        server.script_always("tools/list", faults.Hold())
        async with McpManager() as manager:
            await manager.deploy("docs", {**FAILED_START, "url": server.url})
            await manager.call_tool(Selector(tool="echo"), "echo", timeout=0.3)


@failure("deadline of 0.3 s (timeout=)", "longer timeout=")
async def a_program_that_takes_longer_than_its_caller_says(_: Path) -> None:
    async with McpManager({"docs": stdio_server_config()}) as manager:
        await manager.wait_ready(timeout=20)
        await manager.call_tool("docs", "sleep", {"seconds": 30}, timeout=0.3)


@failure("connect_timeout_s")
async def a_server_that_does_not_answer_the_handshake(_: Path) -> None:
    await refused(faults.Hold(), connect_timeout_s=0.3)


@failure("max_response_bytes")
async def a_reply_that_is_too_long(_: Path) -> None:
    await refused(faults.Oversize(1 << 20), on="tools/call", max_response_bytes=1 << 16)


@contextlib.asynccontextmanager
async def busy(limits: dict[str, Any], **settings: Any) -> AsyncIterator[McpManager]:
    """Run a manager whose server has one call under way."""
    with ScriptedServer() as server:
        server.script_always("tools/call", faults.Hold())
        async with McpManager(ManagerConfig(**settings)) as manager:
            await manager.deploy("docs", {**FAILED_START, "url": server.url, "limits": limits})
            held = asyncio.create_task(manager.call_tool("docs", "echo"))
            await server.wait_for("tools/call")
            try:
                yield manager
            finally:
                held.cancel()
                await asyncio.gather(held, return_exceptions=True)


@failure("limits.max_concurrent")
async def more_calls_than_max_concurrent(_: Path) -> None:
    async with busy({"max_concurrent": 1, "max_waiting": 0}) as manager:
        await manager.call_tool("docs", "echo")


@failure("deadline of 0.3 s (timeout=)", "limits.max_concurrent")
async def a_place_that_never_gets_free(_: Path) -> None:
    async with busy({"max_concurrent": 1}) as manager:
        await manager.call_tool("docs", "echo", timeout=0.3)


@failure("limits.rate")
async def more_calls_than_the_rate(_: Path) -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            limits = {"rate": {"rate": 0.01, "burst": 1}, "max_waiting": 0}
            await manager.deploy("docs", {**FAILED_START, "url": server.url, "limits": limits})
            await manager.call_tool("docs", "echo", {"text": "x"})
            await manager.call_tool("docs", "echo", {"text": "x"}, timeout=0.3)


@failure("retry in 7.0 s", "limits.rate")
async def a_server_that_limits(_: Path) -> None:
    await refused(faults.Status(429, {"Retry-After": "7"}), on="tools/call")


@failure("breaker")
async def an_open_circuit(_: Path) -> None:
    with ScriptedServer() as server:
        server.script_always("tools/call", faults.Status(500))
        async with McpManager() as manager:
            breaker = {"consecutive_failures": 2}
            await manager.deploy("docs", {**FAILED_START, "url": server.url, "breaker": breaker})
            for _number in range(2):
                with contextlib.suppress(Exception):
                    await manager.call_tool("docs", "echo")
            await manager.call_tool("docs", "echo")


@failure("set_maintenance")
async def maintenance(_: Path) -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("docs", {**FAILED_START, "url": server.url})
            await manager.set_maintenance("docs", True)
            await manager.call_tool("docs", "echo")


@failure("scale")
async def no_instances(_: Path) -> None:
    with ScriptedServer() as server:
        await called({"url": server.url, "instances": 0})


# Names and arguments


async def deployed(act: Callable[[McpManager], Awaitable[object]], **spec: Any) -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("docs", {**FAILED_START, "url": server.url, **spec})
            await act(manager)


@failure("did you mean docs?")
async def a_similar_server_id(_: Path) -> None:
    await deployed(lambda manager: manager.call_tool("dosc", "echo"))


@failure("servers()")
async def an_unknown_server_id(_: Path) -> None:
    await deployed(lambda manager: manager.call_tool("billing", "echo"))


@failure("did you mean docs__echo?")
async def a_similar_tool(_: Path) -> None:
    await deployed(lambda manager: manager.call_fleet_tool("docs__ecko", {}))


@failure("begin with the server", "list_all_tools()")
async def a_tool_without_its_server(_: Path) -> None:
    await deployed(lambda manager: manager.call_fleet_tool("echo", {}))


@failure("Unknown tool: ecko", "list_tools(")
async def a_tool_that_a_server_of_the_sdk_does_not_know(_: Path) -> None:
    async with McpManager({"docs": of_the_sdk()}) as manager:
        (await manager.call_tool("docs", "ecko")).raise_for_error()


@failure("Unknown tool: 'ecko'", "list_tools(")
async def a_tool_that_a_server_of_fastmcp_does_not_know(_: Path) -> None:
    async with McpManager({"docs": of_fastmcp()}) as manager:
        (await manager.call_tool("docs", "ecko")).raise_for_error()


@failure("list_all_tools()")
async def an_unknown_tool(_: Path) -> None:
    await deployed(lambda manager: manager.call_fleet_tool("billing__pay", {}))


@failure("tools.allow")
async def a_forbidden_tool(_: Path) -> None:
    await deployed(lambda manager: manager.call_tool("docs", "echo"), tools={"allow": ["read_*"]})


@failure("selector")
async def a_selector_without_a_server(_: Path) -> None:
    await deployed(lambda manager: manager.call_tool(Selector(tags=("nope",)), "echo"))


@failure("redeploy")
async def an_id_in_use(_: Path) -> None:
    await deployed(lambda manager: manager.deploy("docs", {"url": "http://127.0.0.1:1/mcp"}))


@failure("list", "url")
async def more_instances_than_urls(_: Path) -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("docs", {**FAILED_START, "url": [server.url]})
            await manager.scale("docs", 2)


@failure("timeout")
async def a_timeout_that_is_no_number(_: Path) -> None:
    await deployed(lambda manager: manager.call_tool("docs", "echo", timeout="5"))  # type: ignore[call-overload]


@failure("arguments", "mapping")
async def arguments_as_json_text(_: Path) -> None:
    await deployed(lambda manager: manager.call_tool("docs", "echo", '{"text": "x"}'))  # type: ignore[call-overload]


@failure("name", "call_tool(server_id, name, arguments)", "call_fleet_tool")
async def a_call_without_a_server_id(_: Path) -> None:
    await deployed(lambda manager: manager.call_tool("echo", {"text": "x"}))  # type: ignore[call-overload]


@failure("bytes", "request(")
async def a_request_as_a_mapping(_: Path) -> None:
    await deployed(lambda manager: manager.execute_raw("docs", {"method": "ping"}))  # type: ignore[arg-type]


@failure('Caller("')
async def a_caller_as_text(_: Path) -> None:
    await deployed(lambda manager: manager.for_caller("user-17").list_tools("docs"))  # type: ignore[arg-type]


@failure("tag", "use tags")
async def a_list_as_a_tag(_: Path) -> None:
    await deployed(lambda manager: manager.call_tool(Selector(tag=["docs"]), "echo"))  # type: ignore[arg-type]


@failure("method", "tools/list")
async def a_request_without_a_method(_: Path) -> None:
    await deployed(lambda manager: manager.execute_raw("docs", b'{"id": 1}'))


# The life of a manager


@failure("start()")
async def a_call_before_the_start(_: Path) -> None:
    await McpManager().call_tool("docs", "echo")


@failure("new manager")
async def a_call_after_the_end(_: Path) -> None:
    async with McpManager() as manager:
        pass
    await manager.call_tool("docs", "echo")


@failure("PyMcpManager")
async def a_call_on_another_loop(_: Path) -> None:
    async with McpManager() as manager:
        await asyncio.to_thread(lambda: asyncio.run(manager.list_tools("docs")))


@failure("start()")
async def a_call_before_the_start_in_threads(_: Path) -> None:
    await asyncio.to_thread(lambda: PyMcpManager().execute("docs", '{"method": "ping"}'))


@failure("await", "async")
async def a_blocking_call_on_the_own_loop(_: Path) -> None:
    async with PyMcpManager() as manager:
        manager.execute("docs", '{"method": "ping"}')


@failure("docs", "Connection refused", "check that the server runs", "FILES_ROOT", "env")
async def servers_that_do_not_get_ready(_: Path) -> None:
    async with McpManager() as manager:
        await manager.deploy("docs", {**FAILED_START, "url": f"http://127.0.0.1:{unused_port()}/mcp"})
        await manager.deploy("files", program("import sys; sys.exit('FILES_ROOT is not set')", **FAILED_START))
        await manager.wait_ready(timeout=0.3)


# Configuration


async def configured(**spec: Any) -> None:
    async with McpManager() as manager:
        await manager.deploy("docs", spec)


@failure("server_id", "id of the server comes first")
async def a_server_without_an_id(_: Path) -> None:
    async with McpManager() as manager:
        await manager.deploy({"url": "http://127.0.0.1:1/mcp"})  # type: ignore[arg-type]


@failure("Handlers(elicitation=")
async def a_field_of_handlers_as_a_method(_: Path) -> None:
    McpManager(handlers={"elicitation": print})


@failure("handlers", "use Handlers")
async def a_function_as_handlers(_: Path) -> None:
    McpManager(handlers=print)  # type: ignore[arg-type]


@failure("token_store", "FileTokenStore(")
async def a_path_as_a_token_store(_: Path) -> None:
    McpManager(token_store="tokens.json")  # type: ignore[arg-type]


@failure("redirect_handler", "function")
async def a_url_as_a_redirect_handler(_: Path) -> None:
    McpManager(redirect_handler="http://localhost")  # type: ignore[arg-type]


@failure("request_timeout_s")
async def a_field_timeout(_: Path) -> None:
    await configured(url="http://127.0.0.1:1/mcp", timeout=5)


@failure("priority")
async def a_misspelt_field(_: Path) -> None:
    await configured(url="http://127.0.0.1:1/mcp", prioriti=5)


@failure("url", "http://")
async def a_url_without_a_scheme(_: Path) -> None:
    await configured(url="localhost:8001/mcp")


@failure("auth")
async def a_url_with_a_password(_: Path) -> None:
    await configured(url=f"http://me:{KEY}@localhost/mcp")


@failure("url", "command")
async def neither_url_nor_command(_: Path) -> None:
    await configured(name="docs")


@failure("args")
async def arguments_of_a_program_as_text(_: Path) -> None:
    await configured(command="npx", args="-y server")


@failure("fewer are deployed: 1")
async def fewer_servers_than_wanted(_: Path) -> None:
    await deployed(lambda manager: manager.wait_ready(3, timeout=0.05))


@failure("configuration files", "ServerConfig")
async def a_variable_that_is_not_set(_: Path) -> None:
    await configured(url="http://127.0.0.1:1/mcp", auth={"type": "bearer", "token": "${NO_SUCH_VARIABLE}"})


@failure("oauth", "bearer")
async def an_unknown_kind_of_credentials(_: Path) -> None:
    await configured(url="http://127.0.0.1:1/mcp", auth={"type": "token", "token": KEY})


@failure("auth.key")
async def a_key_in_the_wrong_field(_: Path) -> None:
    await configured(url="http://127.0.0.1:1/mcp", auth={"type": "api_key", "token": KEY})


@failure("JSON")
async def text_that_is_not_json(_: Path) -> None:
    async with McpManager() as manager:
        await manager.deploy("docs", "{invalid json}")


@failure("No such file")
async def a_file_that_does_not_exist(folder: Path) -> None:
    load_manager_config(folder / "fleet.toml")


@failure("elicitation/create", "handlers")
async def a_question_without_a_handler(_: Path) -> None:
    with EraServer(STATELESS) as server:
        async with McpManager() as manager:
            await manager.deploy("docs", {**FAILED_START, "url": server.url})
            await manager.call_tool("docs", "ask")


async def asked_by(server: Any, **spec: Any) -> None:
    """Call a tool of a server in memory, which asks the client."""
    async with McpManager() as manager:
        await manager.deploy("docs", {"server": server, **spec})
        (await manager.call_tool("docs", "ask")).raise_for_error()


@failure('protocol_version = "handshake"', "handlers")
async def a_question_of_fastmcp_in_the_latest_revision(_: Path) -> None:
    await asked_by(of_fastmcp())


@failure('protocol_version = "handshake"', "handlers")
async def a_question_of_the_sdk_in_the_latest_revision(_: Path) -> None:
    await asked_by(of_the_sdk())


@failure("elicitation/create", "Handlers(elicitation=")
async def a_question_of_fastmcp_without_a_handler(_: Path) -> None:
    await asked_by(of_fastmcp(), protocol_version="handshake")


@failure("elicitation/create", "Handlers(elicitation=")
async def a_question_of_the_sdk_without_a_handler(_: Path) -> None:
    await asked_by(of_the_sdk(), protocol_version="handshake")


@failure("Handlers(sampling=")
async def a_capability_that_the_typescript_sdk_misses(_: Path) -> None:
    text = "Client does not support sampling (required for sampling/createMessage)"
    with ScriptedServer() as server:
        server.script_always("tools/call", faults.RpcErrorReply(-32603, text))
        await called({"url": server.url})
