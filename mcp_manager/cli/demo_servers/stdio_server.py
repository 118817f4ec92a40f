"""A demo MCP server on standard input and output; ends when its input does."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from mcp_manager.cli.demo_servers._tools import answer, sleep_seconds

__all__ = ["main"]

_writing = threading.Lock()


def main() -> int:
    """Serve until standard input ends."""
    for line in sys.stdin.buffer:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if not isinstance(message, dict):
            continue
        seconds = sleep_seconds(message)
        if seconds:
            timer = threading.Timer(seconds, _reply, (message,))
            timer.daemon = True
            timer.start()
        else:
            _reply(message)
    return 0


def _reply(message: dict[str, Any]) -> None:
    reply = answer(message, "demo-stdio")
    if reply is not None:
        with _writing:
            sys.stdout.write(json.dumps(reply) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
