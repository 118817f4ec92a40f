"""A demo MCP server on standard input and output; it ends at the end of its input."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from typing import Any

from mcp_manager.cli.demo_servers._tools import answer, error_reply, sleep_seconds

__all__ = ["main"]

_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
_writing = threading.Lock()


def main() -> int:
    """Serve until standard input ends."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for line in sys.stdin.buffer:
            if line.strip():
                _take(line)
        return 0
    # The reader is gone: the interpreter must not flush the buffer at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _take(line: bytes) -> None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        _write(error_reply(None, _PARSE_ERROR, "Parse error"))
        return
    if not isinstance(message, dict):
        _write(error_reply(None, _INVALID_REQUEST, "Invalid request: expected one object"))
        return
    seconds = sleep_seconds(message)
    if seconds:
        timer = threading.Timer(seconds, _reply, (message,))
        # A daemon, so that a sleeping reply does not keep the server alive after the end of its input.
        timer.daemon = True
        timer.start()
    else:
        _reply(message)


def _reply(message: dict[str, Any]) -> None:
    reply = answer(message, "demo-stdio")
    if reply is not None:
        _write(reply)


def _write(reply: dict[str, Any]) -> None:
    with _writing:
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
