"""A scripted stdio server for 2026-07-28, the handshake revisions, or both; see ``scripted_stdio``.

Its script also has ``{"speaks": ["2026-07-28", …], "log": path}``. If it does not speak the handshake, every request
must have ``_meta``. Every message that arrives is appended to ``log``, one per line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from scripted_stdio import Server, reply_to

_META = "io.modelcontextprotocol/"


class EraProgram(Server):
    """Answer in the configured eras."""

    def __init__(self, script: dict[str, Any]) -> None:
        super().__init__(script)
        self._speaks: list[str] = script["speaks"]
        self._log = Path(script["log"])
        self._asked: list[Any] = []

    def _take(self, message: Any) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(message) + "\n")
        if self._on.get(message.get("method", "")):
            super()._take(message)
        elif "id" in message and "method" in message:
            self._send(self._reply(message))

    def _reply(self, message: Any) -> dict[str, Any]:
        meta = (message.get("params") or {}).get("_meta", {})
        version = meta.get(_META + "protocolVersion")
        if version is None:
            if "2025-11-25" in self._speaks:
                return reply_to(message)
            return _refusal(message, -32602, {"supported": self._speaks})
        if "2026-07-28" not in self._speaks:
            return reply_to(message)
        if version not in self._speaks:
            return _refusal(message, -32022, {"supported": self._speaks, "requested": version})
        if message["method"] == "server/discover":
            result: dict[str, Any] = {"supportedVersions": self._speaks, "capabilities": {"tools": {}}}
        else:
            reply = reply_to(message)
            if "result" not in reply:
                return reply
            result = reply["result"]
        return {"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete", **result}}

    def _do_empty(self, message: Any) -> None:
        """Answer with an empty result."""
        self._send({"jsonrpc": "2.0", "id": message["id"], "result": {}})

    def _do_result(self, message: Any, result: Any) -> None:
        """Answer with a given result."""
        self._send({"jsonrpc": "2.0", "id": message["id"], "result": result})

    def _do_twice(self, message: Any) -> None:
        """Answer twice."""
        self._send(self._reply(message))
        self._send(self._reply(message))

    def _do_proper(self, message: Any) -> None:
        """Answer correctly for the era of the request."""
        self._send(self._reply(message))

    def _do_refuse(self, message: Any, code: int, data: Any = None) -> None:
        """Answer with an error."""
        self._send(_refusal(message, code, data))


def _refusal(message: Any, code: int, data: Any) -> dict[str, Any]:
    error = {"code": code, "message": "scripted", "data": data}
    return {"jsonrpc": "2.0", "id": message["id"], "error": error}


if __name__ == "__main__":
    EraProgram(json.loads(sys.argv[1])).run()
