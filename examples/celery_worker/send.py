"""Send tasks, and print what became of them; a worker has to run."""

from __future__ import annotations

from jobs.errors import ToolCallFailed
from jobs.tasks import add, ask_a_server_that_is_gone, post


def main() -> None:
    """Send three tasks."""
    total: float = add.delay(2, 3).get(timeout=30, interval=0.1)
    print("add:", total)
    posted: str = post.delay("hello").get(timeout=30, interval=0.1)
    print("post:", posted)
    try:
        ask_a_server_that_is_gone.delay().get(timeout=30, interval=0.1)
    except ToolCallFailed as error:
        print("gone:", error.cause, error.delivery)


if __name__ == "__main__":
    main()
