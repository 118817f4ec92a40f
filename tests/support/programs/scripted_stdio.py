"""A scripted MCP server over stdio: it answers correctly, or with the faults of the JSON script in its argument.

``{"start": [action, …], "on": {method: [[action, …], …]}, "once": path}``: the actions of ``start`` run at the start;
the lists of ``on`` replace the answers to the first, second, … request of a method. With ``once``, only the first
process follows the script: it creates the file at that path, and processes that find the file answer correctly.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

Action = dict[str, Any]

_LAST_KNOWN_REVISION = "2025-11-25"
_FOR_EVER_S = 3600.0
_POLL_S = 0.01


class Server:
    """The server, with a method ``_do_NAME`` for each action of a script."""

    def __init__(self, script: dict[str, Any]) -> None:
        self._start: list[Action] = script.get("start", [])
        self._on: dict[str, list[list[Action]]] = script.get("on", {})
        self._kept: list[Any] = []
        self._ignore_end = False

    def run(self) -> None:
        for action in self._start:
            self._do(action, None)
        for line in sys.stdin.buffer:
            self._take(json.loads(line))
        if self._ignore_end:
            time.sleep(_FOR_EVER_S)

    def _take(self, message: Any) -> None:
        method = message.get("method", "")
        scripted = self._on.get(method)
        if scripted:
            for action in scripted.pop(0):
                self._do(action, message)
        elif "id" in message and method:
            self._send(reply_to(message))

    def _do(self, action: Action, message: Any) -> None:
        name = action["do"]
        getattr(self, f"_do_{name}")(message, **{key: value for key, value in action.items() if key != "do"})

    def _send(self, message: object) -> None:
        self._write(json.dumps(message).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    # The process

    def _do_exit(self, message: Any, code: int = 3) -> None:
        os._exit(code)

    def _do_die(self, message: Any, signal_name: str = "SIGSEGV") -> None:
        signal.signal(getattr(signal, signal_name), signal.SIG_DFL)
        os.kill(os.getpid(), getattr(signal, signal_name))

    def _do_hang(self, message: Any) -> None:
        time.sleep(_FOR_EVER_S)

    def _do_ignore_end(self, message: Any) -> None:
        """Keep running after the end of stdin and after SIGTERM."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._ignore_end = True

    def _do_close_stdout(self, message: Any) -> None:
        os.close(1)

    def _do_spawn(self, message: Any, pid_file: str) -> None:
        """Start a grandchild that sleeps, and write its process id to a file."""
        child = subprocess.Popen(
            [sys.executable, "-c", f"import time; time.sleep({_FOR_EVER_S})"], stdin=subprocess.DEVNULL
        )
        Path(pid_file).write_text(str(child.pid), encoding="ascii")

    # Messages and output

    def _do_note_start(self, message: Any, log: str) -> None:
        """Append the process id to a file."""
        with Path(log).open("a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")

    def _do_wait_for(self, message: Any, path: str) -> None:
        """Wait until a file exists, like a program that downloads files first."""
        while not Path(path).exists():
            time.sleep(_POLL_S)

    def _do_stderr(self, message: Any, text: str, times: int = 1) -> None:
        sys.stderr.write(text * times)
        sys.stderr.flush()

    def _do_raw(self, message: Any, text: str) -> None:
        """Write raw text, such as a banner, garbage or half a line."""
        self._write(text.encode("utf-8"))

    def _do_bytes(self, message: Any, hex: str) -> None:
        self._write(bytes.fromhex(hex))

    def _do_send(self, message: Any, what: Any) -> None:
        """Send a given message: a notification, a request or a batch."""
        self._send(what)

    def _do_reply(self, message: Any) -> None:
        self._send(reply_to(message))

    def _do_reply_bytewise(self, message: Any) -> None:
        for byte in json.dumps(reply_to(message)).encode() + b"\r\n":
            self._write(bytes([byte]))

    def _do_half_reply(self, message: Any) -> None:
        whole = json.dumps(reply_to(message)).encode()
        self._write(whole[: len(whole) // 2])

    def _do_wrong_id(self, message: Any) -> None:
        self._send({**reply_to(message), "id": 987654321})

    def _do_string_id(self, message: Any) -> None:
        self._send({**reply_to(message), "id": str(message["id"])})

    def _do_oversize(self, message: Any, size: int) -> None:
        self._send({"jsonrpc": "2.0", "id": message["id"], "result": {"text": "x" * size}})

    def _do_keep(self, message: Any) -> None:
        """Leave the request unanswered until ``reply_kept``."""
        self._kept.append(message)

    def _do_reply_kept(self, message: Any) -> None:
        """Answer this request, and then the kept ones, the last one first."""
        self._send(reply_to(message))
        while self._kept:
            self._send(reply_to(self._kept.pop()))

    def _do_nothing(self, message: Any) -> None:
        """Leave the request unanswered for good."""


def reply_to(message: Any) -> dict[str, Any]:
    """Return the correct reply to a request."""
    match message["method"]:
        case "initialize":
            result: dict[str, Any] = {
                "protocolVersion": _LAST_KNOWN_REVISION,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "scripted-stdio", "version": "1"},
            }
        case "ping":
            result = {}
        case "tools/list":
            result = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        case "tools/call":
            arguments = message["params"].get("arguments", {})
            text = str(os.getpid()) if message["params"]["name"] == "pid" else arguments.get("text", "")
            result = {"content": [{"type": "text", "text": text}], "isError": False}
        case method:
            error = {"code": -32601, "message": f"Method not found: {method}"}
            return {"jsonrpc": "2.0", "id": message["id"], "error": error}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def main() -> None:
    script = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    if "once" in script:
        first = Path(script["once"])
        if first.exists():
            script = {}
        else:
            first.touch()
    Server(script).run()


if __name__ == "__main__":
    main()
