"""Pages of servers: whatever comes and goes between two of them, none is shown twice, and none that stays is left out."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_manager.gateway.admin.pages import LONGEST_CURSOR, page_after, place
from mcp_manager.gateway.admin.problems import Refusal

IDS = st.text("ab~é\U0001f600", min_size=1, max_size=3)
FEW = settings(max_examples=40)


@FEW
@given(st.sets(IDS), st.integers(1, 5), st.lists(st.tuples(st.sets(IDS), st.integers(0, 5))))
def test_nothing_is_shown_twice_and_what_stays_is_not_left_out(
    ids: set[str], limit: int, changes: list[tuple[set[str], int]]
) -> None:
    present, always, seen = set(ids), set(ids), []
    after: str | None = ""
    while after is not None:
        page = page_after(present, after, limit)
        assert len(page.ids) <= limit
        seen += page.ids
        assert seen == sorted(set(seen))
        after = None if page.cursor is None else place(page.cursor, "cursor")
        if changes:
            new, gone = changes.pop()
            # The one at which the page ended among them.
            removed = {*sorted(present)[:gone], *page.ids[-1:]}
            present = (present - removed) | new
            always &= present
    assert always <= set(seen)


@FEW
@given(st.text(st.characters(min_codepoint=0x10000, max_codepoint=0x10FFFF), min_size=256, max_size=256))
def test_the_longest_id_makes_the_longest_cursor(server_id: str) -> None:
    cursor = page_after([server_id, "\U0010ffff" * 257], "", 1).cursor
    assert cursor is not None and len(cursor) == LONGEST_CURSOR
    assert place(cursor, "cursor") == server_id


@FEW
@given(st.text() | st.binary().map(lambda data: urlsafe_b64encode(data).decode().rstrip("=")))
def test_a_cursor_of_somebody_else_is_refused_or_names_a_place(text: str) -> None:
    try:
        after = place(text, "cursor")
    except Refusal as refusal:
        assert (refusal.problem.status, refusal.problem.field) == (400, "cursor")
        return
    assert page_after([f"{after}-"], after, 1).ids == [f"{after}-"]


@pytest.mark.parametrize("text", ["", "cw==", "c w", "cw\n", "c", "//8", "_w", "c" * 2_000, "\N{SUPERSCRIPT TWO}"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(Refusal):
        place(text, "cursor")
