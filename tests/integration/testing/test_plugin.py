"""The plugin as a user's test-suite meets it: with pytest-asyncio, with anyio, with neither, and not used at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.suites import run_suite

ROOT = Path(__file__).resolve().parents[3]

ASYNC_SUITE = """
    import pytest
    from mcp_manager import ConnectionLostError, McpManager
    from mcp_manager.testing import Faults, Tool, assert_delivery, assert_no_hang, assert_recovers
    {mark}

    async def test_survives_expiry(faulty_server, mcp_fleet):
        assert isinstance(mcp_fleet, McpManager)
        server = faulty_server(era="handshake", tools={{"book": Tool(effect="ledger")}})
        await mcp_fleet.deploy("travel", {{"url": server.url}})
        server.next(Faults.expire_session())
        await mcp_fleet.call_tool("travel", "book", {{"seat": 7}})
        server.ledger.assert_executed_once("book")

    async def test_a_lost_connection_is_told(faulty_server, mcp_fleet):
        server = faulty_server(era="stateless", tools={{"book": Tool()}})
        await mcp_fleet.deploy("travel", {{"url": server.url}})
        server.next(Faults.reset(after="headers"))
        async with assert_no_hang(within=20):
            with pytest.raises(ConnectionLostError) as caught:
                await mcp_fleet.call_tool("travel", "book", {{"seat": 7}})
        assert_delivery(caught.value, "unknown")
        server.ledger.assert_executed_once("book")

    async def test_the_bad_one(mcp_fleet):
        import asyncio
        globals()["kept"] = asyncio.create_task(asyncio.sleep(3600))
"""


@pytest.mark.parametrize(
    ("plugin", "options", "mark"),
    [
        ("asyncio", ["-o", "asyncio_mode=auto"], ""),
        ("asyncio", ["-o", "asyncio_mode=strict"], "pytestmark = pytest.mark.asyncio(loop_scope='module')"),
        ("anyio", [], "pytestmark = pytest.mark.anyio\n    anyio_backend = pytest.fixture(lambda: 'asyncio')"),
    ],
    ids=["auto", "strict-and-a-shared-loop", "anyio"],
)
def test_async_tests_have_a_fleet_on_their_loop(tmp_path: Path, plugin: str, options: list[str], mark: str) -> None:
    ran = run_suite(tmp_path, ASYNC_SUITE.format(mark=mark), *options, plugins=(plugin,))
    assert "3 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert ran.stdout.count("a task is still pending") == 1, ran.stdout
    assert "ERROR test_suite.py::test_the_bad_one" in ran.stdout


ORDINARY_SUITE = """
    import asyncio
    import concurrent.futures
    import multiprocessing
    import threading
    import time
    from multiprocessing import shared_memory
    import pytest
    import pytest_asyncio
    {policy}

    @pytest_asyncio.fixture(autouse=True, loop_scope={scope!r})
    async def of_the_user():
        yield

    pytestmark = pytest.mark.asyncio(loop_scope={scope!r})

    async def test_threads(leaks):
        assert await asyncio.to_thread(int, "5") == 5

    async def test_processes(leaks):
        spawning = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawning) as pool:
            assert await asyncio.get_running_loop().run_in_executor(pool, int, "5") == 5

    async def test_shared_memory(leaks):
        memory = shared_memory.SharedMemory(create=True, size=100)
        memory.close()
        memory.unlink()

    async def test_the_bad_one(leaks):
        threading.Thread(target=time.sleep, args=(30,), daemon=True, name="left").start()
"""
ON_UVLOOP = "import uvloop; event_loop_policy = pytest.fixture(lambda: uvloop.EventLoopPolicy(), scope='session')"


@pytest.mark.parametrize(
    ("policy", "scope"), [("", "function"), (ON_UVLOOP, "module")], ids=["own-loop", "shared-uvloop"]
)
def test_what_python_and_loops_keep_is_no_leak(tmp_path: Path, policy: str, scope: str) -> None:
    options = ["-o", "asyncio_mode=strict", "-W", "ignore::DeprecationWarning"]
    ran = run_suite(tmp_path, ORDINARY_SUITE.format(policy=policy, scope=scope), *options, plugins=("asyncio",))
    assert "4 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "thread 'left' (daemon=True) is still running" in ran.stdout


def test_sync_tests_need_no_other_plugin(tmp_path: Path) -> None:
    ran = run_suite(
        tmp_path,
        """
        import asyncio
        import threading
        import time
        import pytest
        from mcp_manager import ManagerConfig, PyMcpManager, ServerConfig
        from mcp_manager.testing import Faults, Tool

        @pytest.fixture
        def mcp_fleet_config():
            lazy = ServerConfig(url="http://127.0.0.1:9/mcp", connect="lazy")
            return ManagerConfig(servers={"configured": lazy})

        def test_a_call(faulty_server, fault_proxy, mcp_fleet):
            assert isinstance(mcp_fleet, PyMcpManager)
            assert [info.id for info in mcp_fleet.list_servers()] == ["configured"]
            server = faulty_server(tools={"book": Tool()}, sse=True)
            proxy = fault_proxy(server.url, piece=7)
            mcp_fleet.deploy_server("travel", {"url": proxy.url})
            request = '{"method": "tools/call", "params": {"name": "book", "arguments": {"seat": 7}}}'
            assert "seat" in mcp_fleet.execute("travel", request)
            server.ledger.assert_executed_once("book", {"seat": 7})

        def test_virtual_time(virtual_clock):
            virtual_clock.run(asyncio.sleep(86_400))
            assert virtual_clock.passed_s == pytest.approx(86_400)

        def test_leaves_a_thread(leaks):
            threading.Thread(target=time.sleep, args=(30,), daemon=True, name="left").start()

        def test_may_leave_a_thread(leaks):
            leaks.allow("threads", reason="it ends with the process")
            threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        """,
    )
    assert "4 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "thread 'left' (daemon=True) is still running" in ran.stdout


def test_pytest_does_not_compile_the_package_anew(tmp_path: Path) -> None:
    # As pytest does for a package that is installed with a plugin.
    early = "def pytest_addoption(pluginmanager):\n    pluginmanager.rewrite_hook.mark_rewrite('mcp_manager')\n"
    (tmp_path / "early.py").write_text(early, encoding="utf-8")
    ran = run_suite(
        tmp_path,
        """
        def test_the_loader():
            import mcp_manager.errors

            assert type(mcp_manager.errors.__spec__.loader).__name__ == "SourceFileLoader"
        """,
        *("-p", "early"),
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_who_does_not_use_it_pays_nothing(tmp_path: Path) -> None:
    ran = run_suite(
        tmp_path,
        """
        import sys

        def test_nothing_is_imported(request):
            loaded = {name for name in sys.modules if name.partition(".")[0] == "mcp_manager"}
            runtime = {"mcp_manager.runtime", "mcp_manager.runtime.moved"}
            assert loaded == {"mcp_manager", "mcp_manager._version", "mcp_manager.pytest_plugin", *runtime}
            assert {"asyncio", "msgspec", "psutil", "aiohttp"} & set(sys.modules) == set()
        """,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr
