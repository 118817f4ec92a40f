"""A stdio server of 2026-07-28 with subscriptions, controlled by its tools.

The tool ``tell`` sends a notification on every subscription; ``end`` and ``cancel`` end them with a result or a
cancellation; ``crash`` ends the process; ``received`` returns all messages so far as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

_KEY = "io.modelcontextprotocol/subscriptionId"
_CAPABILITIES = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}

received: list[Any] = []
subscriptions: list[Any] = []


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def notify(method: str, subscription: Any, **params: Any) -> None:
    send({"method": method, "params": {**params, "_meta": {_KEY: subscription}}})


def call(name: str, arguments: dict[str, Any]) -> str:
    match name:
        case "tell":
            for subscription in subscriptions:
                notify(arguments["method"], subscription, **arguments.get("params", {}))
        case "end":
            for subscription in subscriptions:
                send({"id": subscription, "result": {"resultType": "complete", "_meta": {_KEY: subscription}}})
            subscriptions.clear()
        case "cancel":
            for subscription in subscriptions:
                send({"method": "notifications/cancelled", "params": {"requestId": subscription}})
            subscriptions.clear()
        case "crash":
            os._exit(3)
        case "received":
            return json.dumps(received)
    return name


def take(message: Any) -> None:
    received.append(message)
    request_id, params = message.get("id"), message.get("params", {})
    match message["method"]:
        case "server/discover":
            result: dict[str, Any] = {"supportedVersions": ["2026-07-28"], "capabilities": _CAPABILITIES}
        case "subscriptions/listen":
            subscriptions.append(request_id)
            wanted = params["notifications"]
            notify("notifications/subscriptions/acknowledged", request_id, notifications=wanted)
            return
        case "notifications/cancelled":
            if params["requestId"] in subscriptions:
                subscriptions.remove(params["requestId"])
            return
        case "tools/call":
            text = call(params["name"], params.get("arguments", {}))
            result = {"content": [{"type": "text", "text": text}]}
        case _:
            send({"id": request_id, "error": {"code": -32601, "message": "Method not found"}})
            return
    send({"id": request_id, "result": {"resultType": "complete", **result}})


if __name__ == "__main__":
    for line in sys.stdin:
        take(json.loads(line))
