"""A stdio server of 2025-11-25 whose tool ``slow`` must be called as the task ``t1``, which asks the client something.

Its tool ``other`` asks what belongs to that task, too. Each tool returns the answer as ``structuredContent``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_QUESTION = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
_OF_THE_TASK = {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": "t1"}}}
_TASKS = {"requests": {"tools": {"call": {}}}}


def send(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def main() -> None:
    asker: Any = None
    for line in sys.stdin:
        message = json.loads(line)
        params, request_id = message.get("params", {}), message.get("id")
        match message.get("method"):
            case "initialize":
                capabilities = {"tools": {}, "tasks": _TASKS}
                info = {"name": "tasks", "version": "1"}
                version = params["protocolVersion"]
                send(
                    id=request_id,
                    result={"protocolVersion": version, "capabilities": capabilities, "serverInfo": info},
                )
            case "tools/call" if params["name"] == "slow" and "task" not in params:
                send(id=request_id, error={"code": -32601, "message": "it must be called as a task"})
            case "tools/call" if params["name"] == "slow":
                task = {"taskId": "t1", "status": "input_required", "createdAt": "2025", "ttl": None}
                send(id=request_id, result={"task": task})
            case "tools/call" | "tasks/result":
                asker = request_id
                send(id="q", method="elicitation/create", params={**_QUESTION, **_OF_THE_TASK})
            case None if request_id == "q":
                send(id=asker, result={"content": [], "structuredContent": message["result"]})
            case _ if request_id is not None:
                send(id=request_id, error={"code": -32601, "message": "Method not found"})


if __name__ == "__main__":
    main()
