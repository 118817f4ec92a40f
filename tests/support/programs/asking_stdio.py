"""A stdio server of either era that sends requests to its client.

``asking_stdio.py [stateless|handshake] [name=value …]``; ``start_log=path`` appends the process id to a file. Its tools
are named after what they do, and return what they learned as ``structuredContent``.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_META = "io.modelcontextprotocol/"
_URL = {"mode": "url", "message": "Sign in", "url": "http://127.0.0.1/sign-in", "elicitationId": "e-1"}


class Server:
    """A server for the one client of this process."""

    def __init__(self, era: str) -> None:
        self._is_stateless = era == "stateless"
        self._received: list[Any] = []
        self._asked: dict[Any, Any] = {}
        self._numbers = itertools.count(1)
        self._level: str | None = None
        self._refusals = 0

    def run(self) -> None:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            self._received.append(message)
            if "method" not in message:
                self._take_answer(message)
            elif "id" in message:
                self._take_request(message, message.get("params", {}))

    def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            sys.stdout.buffer.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        sys.stdout.buffer.flush()

    def reply(self, request: Any, result: dict[str, Any]) -> None:
        more = {"resultType": "complete"} if self._is_stateless else {}
        self.send({"id": request["id"], "result": {**more, **result}})

    def tell(self, request: Any, **learned: Any) -> None:
        """Answer a tool call."""
        self.reply(request, {"content": [], "structuredContent": learned})

    def _take_request(self, request: Any, params: Any) -> None:
        match request["method"]:
            case "server/discover" if self._is_stateless:
                capabilities: dict[str, Any] = {"tools": {}, "logging": {}}
                self.reply(request, {"supportedVersions": ["2026-07-28"], "capabilities": capabilities})
            case "initialize" if not self._is_stateless:
                version = params["protocolVersion"]
                result = {"protocolVersion": version, "capabilities": {"tools": {}, "logging": {}}}
                self.reply(request, {**result, "serverInfo": {"name": "asking", "version": "1"}})
            case "ping" if not self._is_stateless:
                self.reply(request, {})
            case "logging/setLevel" if not self._is_stateless:
                self._level = params["level"]
                self.reply(request, {})
            case "tools/call":
                getattr(self, "_tool_" + params["name"])(request, params, params.get("arguments", {}))
            case method:
                self.send({"id": request["id"], "error": {"code": -32601, "message": f"Method not found: {method}"}})

    def _take_answer(self, answer: Any) -> None:
        asker = self._asked.pop(answer["id"], None)
        if asker is not None:
            self.tell(asker, answer={key: answer[key] for key in ("result", "error") if key in answer})

    def _ask(self, asker: Any, method: str, params: Any) -> str:
        request_id = f"ask-{next(self._numbers)}"
        self._asked[request_id] = asker
        self.send({"id": request_id, "method": method, **({} if params is None else {"params": params})})
        return request_id

    # Tools

    def _tool_ask(self, request: Any, params: Any, arguments: Any) -> None:
        """Ask the client something, and return its answer."""
        if not self._is_stateless:
            self._ask(request, arguments["method"], arguments.get("params"))
        elif "inputResponses" in params:
            state = {"state": params["requestState"]} if "requestState" in params else {}
            self.tell(request, answer={"result": params["inputResponses"]["q"]}, **state)
        else:
            question = {"method": arguments["method"], "params": arguments.get("params", {})}
            asked = {"resultType": "input_required", "inputRequests": {"q": question}}
            state = {"requestState": arguments["state"]} if "state" in arguments else {}
            self.send({"id": request["id"], "result": {**asked, **state}})

    def _tool_ask_and_cancel(self, request: Any, params: Any, arguments: Any) -> None:
        """Ask the client something and cancel that request at once; return the request's id."""
        asked = self._ask(request, arguments["method"], {})
        self.send({"method": "notifications/cancelled", "params": {"requestId": asked, "reason": "never mind"}})
        self.tell(request, asked=asked)

    def _tool_flood(self, request: Any, params: Any, arguments: Any) -> None:
        """Send many requests without reading, and then continue normally."""
        self.send(*({"id": f"flood-{number}", "method": arguments["method"]} for number in range(arguments["times"])))
        self.tell(request)

    def _tool_batch(self, request: Any, params: Any, arguments: Any) -> None:
        """Send requests and the reply to this call as one batch (2025-03-26)."""
        asked = [{"jsonrpc": "2.0", "id": method, "method": method} for method in arguments["methods"]]
        result = {"content": [], "structuredContent": {"batched": True}}
        asked.insert(1, {"jsonrpc": "2.0", "id": request["id"], "result": result})
        sys.stdout.buffer.write(json.dumps(asked).encode() + b"\n")
        sys.stdout.buffer.flush()

    def _tool_received(self, request: Any, params: Any, arguments: Any) -> None:
        """Return all messages received before this one."""
        self.tell(request, received=self._received[:-1])

    def _tool_nothing(self, request: Any, params: Any, arguments: Any) -> None:
        """Leave the call unanswered."""

    def _tool_answer_late(self, request: Any, params: Any, arguments: Any) -> None:
        """Answer all calls of ``nothing``, and then this one."""
        for message in self._received:
            if message.get("params", {}).get("name") == "nothing":
                self.tell(message)
        self.tell(request)

    def _tool_level(self, request: Any, params: Any, arguments: Any) -> None:
        """Return the lowest level of log messages that the client wants."""
        level = params.get("_meta", {}).get(_META + "logLevel") if self._is_stateless else self._level
        self.tell(request, level=level)

    def _tool_progress(self, request: Any, params: Any, arguments: Any) -> None:
        """Send a log message and a progress report before the reply; with ``cut``, its text ends in half an emoji."""
        token = params["_meta"]["progressToken"]
        more = {"message": "\ud83d"} if arguments.get("cut") else {}
        progress = {"progressToken": token, "progress": 1, "total": 2, **more}
        report = {"method": "notifications/progress", "params": progress}
        self.send({"method": "notifications/message", "params": {"level": "info", "data": "working"}}, report)
        self.tell(request)

    def _tool_visit(self, request: Any, params: Any, arguments: Any) -> None:
        """Refuse the first call until the user has visited a URL; unless ``completes``, refuse all calls."""
        self._refusals += 1
        if self._refusals > 1 and arguments.get("completes", True):
            self.tell(request, refusals=self._refusals - 1)
            return
        error = {"code": -32042, "message": "Sign in first", "data": {"elicitations": [_URL]}}
        self.send({"id": request["id"], "error": error})
        if arguments.get("completes", True):
            self.send({"method": "notifications/elicitation/complete", "params": {"elicitationId": "unknown"}})
            self.send({"method": "notifications/elicitation/complete", "params": {"elicitationId": "e-1"}})

    def _tool_notify(self, request: Any, params: Any, arguments: Any) -> None:
        """Send a notification."""
        self.send({"method": arguments["method"], **({"params": arguments["params"]} if "params" in arguments else {})})
        self.tell(request)

    def _tool_say(self, request: Any, params: Any, arguments: Any) -> None:
        """Write a raw line to stdout."""
        sys.stdout.buffer.write(arguments["text"].encode() + b"\n")
        self.tell(request)

    def _tool_complain(self, request: Any, params: Any, arguments: Any) -> None:
        """Write many lines to stderr."""
        sys.stderr.write("something is odd\n" * arguments["times"])
        self.tell(request)

    def _tool_spawn(self, request: Any, params: Any, arguments: Any) -> None:
        """Start a program in its own process session."""
        program = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(3600)"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self.tell(request, pid=program.pid)

    def _tool_exit(self, request: Any, params: Any, arguments: Any) -> None:
        """End the process."""
        os._exit(3)


def main() -> None:
    era = sys.argv[1] if len(sys.argv) > 1 else "handshake"
    options = dict(argument.split("=", 1) for argument in sys.argv[2:])
    if "start_log" in options:
        with Path(options["start_log"]).open("a", encoding="ascii") as log:
            log.write(f"{os.getpid()}\n")
    Server(era).run()


if __name__ == "__main__":
    main()
