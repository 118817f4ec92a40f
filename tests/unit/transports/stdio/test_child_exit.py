"""An interpreter that ends without having closed its children leaves none of them, nor their children."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.children import is_gone
from support.orphans import no_orphans

# Starts a program, says its number, and ends, as that one does, for nothing but SIGKILL.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session={session})
os.write(1, b"%d\\n" % grandchild.pid)
time.sleep(3600)
"""

PROGRAM = """
import asyncio, gc, os, sys, threading, warnings
from mcp_manager.transports.stdio.child import Child, child_environment

code = sys.argv[1]
output = bytearray()

def on_end(code):
    pass

async def start():
    child = Child([sys.executable, "-c", code], child_environment({}), None, on_stdout=output.extend, on_end=on_end)
    await child.start()
    while b"\\n" not in output:
        await asyncio.sleep(0.005)
    print(child.pid, output.decode(), sep=",", end="", flush=True)
    return child
"""
ENDINGS = {
    "loop-closed": "child = asyncio.run(start())",
    "loop-running": """
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
child = asyncio.run_coroutine_threadsafe(start(), loop).result()
""",
    "exception": """
child = asyncio.run(start())
raise SystemExit(0)
""",
    "forgotten": """
warnings.simplefilter("ignore", ResourceWarning)
pid = asyncio.run(start()).pid
gc.collect()
try:
    os.kill(pid, 0)
except ProcessLookupError:
    pass
else:
    sys.exit("it still runs")
""",
    "forked": """
async def main():
    child = await start()
    fork = os.fork()
    if fork == 0:
        sys.exit(0)
    assert os.waitpid(fork, 0)[1] == 0
    os.kill(child.pid, 0)
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, "the copy killed it"
    await child.aclose(0.0)
asyncio.run(main())
""",
}


@pytest.mark.parametrize(
    "session",
    [
        False,
        pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="nothing tells whose it was")),
    ],
    ids=["same group", "own session"],
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interpreter_that_ends_leaves_no_child(ending: str, session: bool) -> None:
    with no_orphans():
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM + ENDINGS[ending], STUBBORN.replace("{session}", str(session))],
            capture_output=True,
            text=True,
            timeout=60,
        )
        child, _ = map(int, done.stdout.split(","))
        assert (done.returncode, done.stderr) == (0, "")
        assert is_gone(child)
