"""Has a program run by ``preloaded_host.py``, and ends as it ends: ``preloaded_run.py SOCKET PROGRAM ARGUMENT ...``."""

import json
import os
import signal
import socket
import sys

_LENGTH_BYTES = 4

with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    asked = {"arguments": sys.argv[2:], "environment": dict(os.environ), "directory": os.getcwd()}
    body = json.dumps(asked).encode()
    socket.send_fds(connection, [len(body).to_bytes(_LENGTH_BYTES, "big")], [0, 1, 2])
    connection.sendall(body)
    status = int.from_bytes(connection.recv(_LENGTH_BYTES), "big", signed=True)
if status < 0:
    if -status not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
