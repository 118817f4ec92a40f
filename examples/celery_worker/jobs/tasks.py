"""The tasks."""

from __future__ import annotations

from jobs.calls import ToolTask
from jobs.celery import app


@app.task(base=ToolTask, bind=True, is_repeatable=True, acks_late=True, reject_on_worker_lost=True)
def add(self: ToolTask, a: float, b: float) -> float:
    """Add two numbers: that changes nothing, so a lost child is no reason to give up.

    ``acks_late`` leaves the message in the queue until the task is done. If its child is killed, the task runs again.
    """
    return self.call("calculator", "add", {"a": a, "b": b}, into=float, timeout=10)


@app.task(base=ToolTask, bind=True)
def post(self: ToolTask, text: str) -> str:
    """Post a text, which must not happen twice: the message leaves the queue before the task begins."""
    return self.call("calculator", "echo", {"text": text}, into=str, timeout=10)


@app.task(base=ToolTask, bind=True)
def wait(self: ToolTask, seconds: float) -> str:
    """Call a tool that takes long."""
    return self.call("calculator", "sleep", {"seconds": seconds}, into=str, timeout=30)


@app.task(base=ToolTask, bind=True, max_retries=1, longest_pause_s=1)
def ask_a_server_that_is_gone(self: ToolTask) -> float:
    """Call a server that is not there: after the last attempt, the task fails."""
    return self.call("gone", "add", {"a": 2, "b": 3}, into=float, timeout=10)
