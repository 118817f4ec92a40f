"""Ranked search: the scores of the formula, and the terms that texts are cut into."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manager.adapters import bm25
from mcp_manager.adapters.bm25 import Bm25Index, terms_of

WORDS = st.sampled_from("create list issue issues file user calendar Zürich s3 getUser 天気予報".split())
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)
FIELDS = st.lists(st.tuples(st.sampled_from([0.5, 1.0, 3.0]), TEXTS), max_size=3)


def scores_by_the_formula(documents: Sequence[Sequence[tuple[float, str]]], query: str) -> dict[int, float]:
    """BM25F, written down as in the literature, without an index."""
    frequencies = []
    for fields in documents:
        counts: Counter[str] = Counter()
        for weight, text in fields:
            for term in terms_of(text):
                counts[term] += weight  # type: ignore[assignment]
        frequencies.append(counts)
    lengths = [sum(counts.values()) for counts in frequencies]
    average = sum(lengths) / len(lengths) if any(lengths) else 1.0
    found = {}
    for number, counts in enumerate(frequencies):
        total, is_found = 0.0, False
        for term in set(terms_of(query)):
            having = sum(term in each for each in frequencies)
            if counts[term]:
                idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
                norm = 1.2 * (1 - 0.75 + 0.75 * lengths[number] / average)
                total += idf * counts[term] / (counts[term] + norm)
                is_found = True
        if is_found:
            found[number] = total
    return found


@given(st.lists(FIELDS, max_size=8), TEXTS, st.none() | st.integers(0, 5))
def test_the_index_ranks_as_the_formula_says(
    documents: list[list[tuple[float, str]]], query: str, limit: int | None
) -> None:
    expected = scores_by_the_formula(documents, query)
    found = Bm25Index(documents).search(query, limit)
    assert len(found) == len(expected) if limit is None else len(found) == min(limit, len(expected))
    for number, score in found:
        assert score == pytest.approx(expected[number])
    assert found == sorted(found, key=lambda each: (-each[1], each[0]))
    if found and len(found) < len(expected):
        left = [score for number, score in expected.items() if number not in dict(found)]
        assert max(left) <= found[-1][1] + 1e-9


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    texts = ["create issue", "create file", "create user", "create calendar"]
    index = Bm25Index([[(1.0, text)] for text in texts])
    assert [texts[number] for number, _ in index.search("create calendar", 1)] == ["create calendar"]
    assert [number for number, _ in index.search("create")] == [0, 1, 2, 3]
    assert [number for number, _ in index.search("create", among=lambda number: number % 2 == 1)] == [1, 3]
    assert index.search("nothing") == [] and len(index) == 4
    assert Bm25Index([]).search("x") == []


def test_texts_are_cut_at_the_seams_of_names() -> None:
    assert terms_of("github__create_issue") == ["github", "create", "issue"]
    assert terms_of("repos.list-files") == ["repo", "list", "file"]
    assert terms_of("getUserById") == ["getuserbyid", "get", "user", "by", "id"]
    assert terms_of("parseHTMLPage") == ["parsehtmlpage", "parse", "html", "page"]
    assert terms_of("queries, trees; status: 404 (S3) gas") == ["query", "tree", "status", "404", "s3", "gas"]
    assert terms_of("Zürich STRASSE Straße") == ["zurich", "strasse", "strasse"]
    assert terms_of("天気予報 get") == ["天気", "気予", "予報", "get"]
    assert terms_of("") == []


def test_no_long_word_is_kept() -> None:
    before = bm25._kept.cache_info().currsize
    assert terms_of("x" * 100_000) == ["x" * 100_000]
    assert bm25._kept.cache_info().currsize == before
