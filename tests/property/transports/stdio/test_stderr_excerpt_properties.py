"""Whatever a program wrote, the excerpt has only lines of it, in their order, and no more than were asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.transports.stdio.stderr_excerpt import stderr_excerpt

PIECES = st.sampled_from(
    [
        "Traceback (most recent call last):",
        '  File "a.py", line 1, in b',
        "    at a (b.js:1:1) {",
        "}",
        "^",
        "panic: no",
        "goroutine 1 [running]:",
        "thread 'main' panicked at a.rs:1:1:",
        "Error: no",
        "Caused by: a.B: c",
        "\tat a.b(C.java:1)",
        "",
        "plain",
    ]
)
TEXTS = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=30).map("\n".join))


@given(TEXTS, st.integers(-1, 8))
def test_lines_of_the_text_in_their_order(text: str, most: int) -> None:
    told = stderr_excerpt(text, most)
    lines = iter([line for line in text.splitlines() if line.strip()])
    assert all(line in lines for line in told)
    assert len(told) <= max(most, 0)
    assert bool(told) == (most > 0 and bool(text.strip()) and any(line.strip() for line in text.splitlines()))


@given(st.lists(st.text("abc 0123:.-", min_size=1, max_size=9), max_size=40))
def test_an_error_is_among_them_wherever_it_stands(others: list[str]) -> None:
    for place in {0, len(others) // 2, len(others)}:
        text = "\n".join([*others[:place], "ValueError: the cause", *others[place:]])
        assert "ValueError: the cause" in stderr_excerpt(text, 3)
